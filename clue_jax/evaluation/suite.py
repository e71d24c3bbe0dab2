"""`evaluate`: the suites of one config on an export -> results.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etils import epath

from clue_jax import files, publishing
from clue_jax.config import EvaluateConfig, to_json, validate_evaluate
from clue_jax.console import say
from clue_jax.embeddings.reader import SEAL, read_embeddings, read_manifest
from clue_jax.evaluation import audit, downstream, matching, matching_suite
from clue_jax.evaluation.audit_words import in_words
from clue_jax.evaluation.exported import dataset_of
from clue_jax.evaluation.results import Result, as_json, print_table


@dataclass(frozen=True)
class Prepared:
    """A suite whose inputs were read and found good."""

    run: Callable[[], list[Result]]
    origin: dict[str, Any]  # what it evaluates, for evaluated.json


def evaluate(config: EvaluateConfig, embeddings: str, out: str) -> None:
    """Evaluates an export of users and writes results.json and config.json to `out`.

    A result has the keys task, model, metric, value, low, high, n and seed. Tasks are
    `matching/SPLITS/QUERY->CANDIDATES` for every direction and `matching/SPLITS/A<->B (mean)` for
    the mean of both, each also with ` blocks of N` where more than N users are eligible, and
    `downstream/NAME` for the tasks of the config (downstream.py); for those of an audit see
    audit.py. Models are `clue`, the baselines, and differences on the same users, such as
    `clue - tfidf`.

    Args:
        config: what to evaluate.
        embeddings: folder that `export` wrote.
        out: folder for the results.

    Raises:
        ConfigError: a setting that cannot work, or a service that the export does not have.
        DataError: a damaged export, another dataset than it was made from, too few users, labels
            that cannot be used, or an export that may have seen them.
        NonFiniteError: an embedding that cannot be ranked.
        StorageError: `out` is there already, or cannot be written.
    """
    validate_evaluate(config)
    publishing.refuse_existing(out, overwrite=config.overwrite)
    prepared = [_SUITES[name](config, embeddings) for name in config.suites]
    with publishing.staged_directory(out, overwrite=config.overwrite) as folder:
        results = [result for suite in prepared for result in suite.run()]
        origin = _origin(embeddings)
        for suite in prepared:
            origin |= suite.origin
        files.write_json(folder / "results.json", as_json(results))
        files.write_json(folder / "config.json", to_json(config))
        files.write_json(folder / "evaluated.json", origin)
    print_table(results)
    if AUDIT in config.suites:
        say("\n" + "\n".join(in_words(results)))
    say(f"wrote {epath.Path(out) / 'results.json'}")


def _matching(config: EvaluateConfig, embeddings: str) -> Prepared:
    export = read_embeddings(embeddings, config.matching.splits)
    pairs = matching.eligible_pairs(export, config.matching, config.seed)
    dataset = dataset_of(export, config.data)
    for pair in pairs:
        say(f"{pair.first} and {pair.second}: {len(pair.rows):,} eligible of {len(export):,} users")

    def run() -> list[Result]:
        results = matching_suite.evaluate_matching(config, export, dataset, pairs)
        if config.matching.probe:
            from clue_jax.evaluation.recognition import recognition_results  # needs the encoder

            results += recognition_results(config, export, dataset, pairs)
        return results

    return Prepared(
        run,
        {"eligible": {f"{pair.first}, {pair.second}": len(pair.rows) for pair in pairs}},
    )


def _downstream(config: EvaluateConfig, embeddings: str) -> Prepared:
    tasks = downstream.read_tasks(config, read_embeddings(embeddings))
    return Prepared(lambda: downstream.evaluate_downstream(config, tasks), tasks.origin())


def _audit(config: EvaluateConfig, embeddings: str) -> Prepared:
    attacks = audit.read_attacks(config, read_embeddings(embeddings))
    return Prepared(lambda: audit.audit_results(config, attacks), attacks.origin())


AUDIT = "audit"
_SUITES: dict[str, Callable[[EvaluateConfig, str], Prepared]] = {
    "matching": _matching,
    "downstream": _downstream,
    AUDIT: _audit,
}


def _origin(embeddings: str) -> dict[str, Any]:
    """What was evaluated: enough to tell two results apart."""
    manifest = read_manifest(embeddings)
    model = ("model_version", "checkpoint", "train_seed", "dataset")
    keys = (*model, "start", "cutoff", "hold_out_last", "newest")
    return {
        "embeddings": str(embeddings),
        "embeddings_manifest_sha256": manifest[SEAL],
        **{key: manifest.get(key) for key in keys},
    }
