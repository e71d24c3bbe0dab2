"""Results of cross-service user matching: the export, its baselines and the differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clue_jax.config import EvaluateConfig
from clue_jax.console import progress, say
from clue_jax.data.records import Users
from clue_jax.data.source import Dataset
from clue_jax.embeddings.reader import Embeddings
from clue_jax.evaluation import baselines
from clue_jax.evaluation.bootstrap import bootstrap
from clue_jax.evaluation.exported import users_of
from clue_jax.evaluation.matching import METRICS, Model, Pair
from clue_jax.evaluation.results import MODEL, Result, exact_rows, rows_of


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
        users = users_of(export, dataset, config.matching.splits)
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
