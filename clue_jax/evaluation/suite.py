"""`evaluate`: an export against its baselines -> results.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.config import EvaluateConfig, epoch_seconds, to_json, validate_evaluate
from clue_jax.console import progress, say
from clue_jax.data.records import Users, concatenate, visible
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.embeddings.reader import SEAL, Embeddings, read_embeddings
from clue_jax.errors import DataError
from clue_jax.evaluation import baselines, matching
from clue_jax.evaluation.bootstrap import bootstrap
from clue_jax.evaluation.matching import METRICS, Model, Pair
from clue_jax.evaluation.results import Result, as_json, exact_rows, print_table, rows_of

MODEL = "clue"  # the export itself


def evaluate(config: EvaluateConfig, embeddings: str, out: str) -> None:
    """Evaluates an export of users and writes results.json and config.json to `out`.

    A result has the keys task, model, metric, value, low, high, n and seed. Tasks are
    `matching/SPLITS/QUERY->CANDIDATES` for every direction and `matching/SPLITS/A<->B (mean)` for
    the mean of both, each also with ` blocks of N` where more than N users are eligible. Models
    are `clue`, the baselines, and differences on the same users, such as `clue - tfidf`.

    Args:
        config: what to evaluate.
        embeddings: folder that `export` wrote.
        out: folder for the results.

    Raises:
        ConfigError: a setting that cannot work, or a service that the export does not have.
        DataError: a damaged export, another dataset than it was made from, or too few users.
        NonFiniteError: an embedding that cannot be ranked.
        StorageError: `out` is there already, or cannot be written.
    """
    validate_evaluate(config)
    files.refuse_existing(out, overwrite=config.overwrite)
    export = read_embeddings(embeddings, config.matching.splits)
    pairs = matching.eligible_pairs(export, config.matching, config.seed)
    dataset = _dataset_of(export, config.data)
    for pair in pairs:
        say(f"{pair.first} and {pair.second}: {len(pair.rows):,} eligible of {len(export):,} users")
    with files.staged_directory(out, overwrite=config.overwrite) as folder:
        results = evaluate_matching(config, export, dataset, pairs)
        files.write_json(folder / "results.json", as_json(results))
        files.write_json(folder / "config.json", to_json(config))
        files.write_json(folder / "evaluated.json", _origin(embeddings, export, pairs))
    print_table(results)
    say(f"wrote {epath.Path(out) / 'results.json'}")


def evaluate_matching(
    config: EvaluateConfig, export: Embeddings, dataset: Dataset, pairs: list[Pair]
) -> list[Result]:
    """Results of cross-service matching for the export, its baselines and the differences."""
    models = _models(config, export, dataset, pairs)
    prefix = f"matching/{'+'.join(config.matching.splits)}"
    results = []
    with progress("matching", len(models) * len(pairs)) as advance:
        for pair in pairs:
            scores = {}
            for name, model in models.items():
                scores[name] = pair.match(model)
                advance(1)
            for task, candidates in pair.tasks().items():
                of_task = {name: by_task[task] for name, by_task in scores.items()}
                results += _of_task(config, export, f"{prefix}/{task}", of_task, candidates)
    return results


def _of_task(
    config: EvaluateConfig,
    export: Embeddings,
    task: str,
    scores: dict[str, np.ndarray],
    candidates: int,
) -> list[Result]:
    """Results of every model, and of the export's difference to each, from scores [n, X]."""
    users = len(scores[MODEL])
    samples = {
        name: bootstrap(scores_nX, config.matching.bootstrap, config.seed)
        for name, scores_nX in scores.items()
    }
    for name in scores:
        if name != MODEL:
            samples[f"{MODEL} - {name}"] = samples[MODEL].minus(samples[name])
    trained = int(export.manifest["train_seed"])
    results = []
    for name, sample in samples.items():
        seed = trained if name.startswith(MODEL) else config.seed
        results += rows_of(task, name, list(METRICS), sample, users, seed)
    if "chance" in config.matching.baselines:
        results += exact_rows(task, "chance", baselines.chance(candidates), users, config.seed)
    return results


# -------------------------------------------------------------------------------------- models


def _models(
    config: EvaluateConfig, export: Embeddings, dataset: Dataset, pairs: list[Pair]
) -> dict[str, Model]:
    models: dict[str, Model] = {MODEL: _dense(export.by_service)}
    wanted = [name for name in config.matching.baselines if name != "chance"]
    if wanted:
        users = _users_of(export, dataset, config.matching.splits)
    for name in wanted:
        say(f"preparing {name}")
        models[name] = _BASELINES[name](config, export, dataset, users, pairs)
    return models


def _dense(by_service: dict[str, np.ndarray]) -> Model:
    return lambda first, second, rows: (by_service[first][rows], by_service[second][rows])


def _tfidf(
    config: EvaluateConfig, export: Embeddings, dataset: Dataset, users: Users, pairs: list[Pair]
) -> Model:
    counts = baselines.word_counts(users, dataset.items())
    by_service = dict(zip(users.services, counts, strict=True))

    def model(first: str, second: str, rows: np.ndarray) -> tuple[Any, Any]:
        # Fitted on the queries' and candidates' texts, which differ from pair to pair.
        queries, candidates = baselines.tfidf([by_service[first][rows], by_service[second][rows]])
        return queries, candidates

    return model


def _random_encoder(
    config: EvaluateConfig, export: Embeddings, dataset: Dataset, users: Users, pairs: list[Pair]
) -> Model:
    rows = np.unique(np.concatenate([pair.rows for pair in pairs]))
    found = baselines.random_encoder(
        export.manifest["config"], users.take(rows), dataset.tokenizer.vocab_size, config.seed
    )
    position_N = np.zeros(len(users), np.int64)
    position_N[rows] = np.arange(len(rows))
    return lambda first, second, rows: (
        found[first][position_N[rows]],
        found[second][position_N[rows]],
    )


_BASELINES: dict[str, Callable[..., Model]] = {"tfidf": _tfidf, "random_encoder": _random_encoder}


# ------------------------------------------------------------------------------------------ data


def _dataset_of(export: Embeddings, path: str) -> Dataset:
    """The dataset an export was made from.

    Raises:
        DataError: it is another one; names both fingerprints.
    """
    made_from = export.manifest["dataset"]
    dataset = open_dataset(path or made_from["path"])
    if dataset.fingerprint != made_from["fingerprint"]:
        raise DataError(
            f"{dataset.path}: fingerprint {dataset.fingerprint[:12]}, but the export was made from"
            f" {made_from['fingerprint'][:12]}; name that dataset with --config.data=DIR"
        )
    return dataset


def _users_of(export: Embeddings, dataset: Dataset, splits: tuple[str, ...]) -> Users:
    """The export's users in its order, with the behaviours that it could see.

    Raises:
        DataError: a user, or a number of behaviours, that differs between the two.
    """
    everyone = concatenate([dataset.users(split) for split in splits], dataset.services)
    position = {user_id: n for n, user_id in enumerate(everyone.user_ids.tolist())}
    unknown = [user_id for user_id in export.user_ids.tolist() if user_id not in position]
    if unknown:
        raise DataError(
            f"{dataset.path}: {len(unknown):,} users of the export are not in its splits"
            f" {', '.join(splits)}; export again from this dataset"
        )
    chosen = everyone.take([position[user_id] for user_id in export.user_ids.tolist()])
    users = visible(chosen, cutoff_seconds(export), int(export.manifest["hold_out_last"] or 0))
    exported_NS = np.stack([export.counts[service] for service in users.services], axis=1)
    differ = np.flatnonzero((users.counts() != exported_NS).any(axis=1))
    if len(differ):
        raise DataError(
            f"{dataset.path}: {len(differ):,} users have another number of behaviours there than in"
            f" the export (row {differ[0]}: {users.counts()[differ[0]].tolist()} and"
            f" {exported_NS[differ[0]].tolist()}); export again"
        )
    return users


def cutoff_seconds(export: Embeddings) -> int | None:
    """The export's cutoff in epoch seconds; a time without zone is UTC."""
    cutoff = export.manifest["cutoff"]
    return epoch_seconds(cutoff) if cutoff else None


def _origin(embeddings: str, export: Embeddings, pairs: list[Pair]) -> dict[str, Any]:
    """What was evaluated: enough to tell two results apart."""
    keys = ("model_version", "checkpoint", "train_seed", "dataset", "cutoff", "hold_out_last")
    return {
        "embeddings": str(embeddings),
        "embeddings_manifest_sha256": export.manifest[SEAL],
        "eligible": {f"{pair.first}, {pair.second}": len(pair.rows) for pair in pairs},
        **{key: export.manifest.get(key) for key in keys},
    }
