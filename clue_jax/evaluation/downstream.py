"""Downstream tasks: frozen embeddings and baselines under one protocol -> results.

Task names are `downstream/NAME`, and `downstream/NAME, GROUP` for users of one service only and by
the length of their history, where a group has enough of them.
Models are `FEATURES HEAD` (such as `clue linear`), and FEATURES alone for the head that was, fold
by fold, best on validation users; references without vectors (`prior`, `popularity`, `history`,
`context` of clicks); `clue+NAME`, the export beside the rival that was best on validation users;
`best`, where the labels say what the best prediction is; and `clue - NAME`, differences on the same
users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clue_jax.config import TUNED, EvaluateConfig, TaskKind
from clue_jax.console import progress, say
from clue_jax.embeddings.reader import Embeddings
from clue_jax.errors import DataError
from clue_jax.evaluation import clicks
from clue_jax.evaluation.beside import read_exports
from clue_jax.evaluation.boosting import check_boosting
from clue_jax.evaluation.bootstrap import Resampled, resample
from clue_jax.evaluation.catalogue import build_catalogue
from clue_jax.evaluation.features import FeatureSource
from clue_jax.evaluation.heads import Trained
from clue_jax.evaluation.people import People
from clue_jax.evaluation.predicted import Predicted
from clue_jax.evaluation.predictions import of_trained, predict, references
from clue_jax.evaluation.results import PREFIX, Result, rows_of
from clue_jax.evaluation.scores import (
    Scored,
    score_audience,
    score_binary,
    score_multiclass,
    score_ranks,
    score_regression,
)
from clue_jax.evaluation.targets import TaskInputs, task_inputs

MODEL = "clue"
SASREC = "sasrec"
CONTEXT = "context"  # what is shown and where, without the user
JOINED = "clue+best"  # stands for the export beside the best baseline
NO_RIVALS = (CONTEXT, "item_mean", "item_recent", *TUNED)
FEWEST_USERS = 30  # of a group; fewer are not reported on their own

Advance = Callable[[float], None]
Tune = Callable[[str, TaskInputs], Trained | None]  # model -> an encoder of each fold


@dataclass(frozen=True)
class Tasks:
    """All tasks of a config, read and found good."""

    people: People
    inputs: tuple[TaskInputs, ...]
    source: FeatureSource
    tune: Tune

    def is_rival(self, name: str) -> bool:
        """Whether features are a baseline's, and not of the vectors of the export's own encoder."""
        return not any(
            part in NO_RIVALS or self.source.of_encoder(part) for part in name.split("+")
        )

    def origin(self) -> dict[str, Any]:
        """What is evaluated, for evaluated.json."""
        return {
            "tasks": {
                inputs.task.name: {
                    "rows": len(inputs.labels),
                    "users": len(np.unique(inputs.labels.place_n)),
                    "rows_of_others": inputs.labels.elsewhere,
                    "classes": list(inputs.classes),
                }
                for inputs in self.inputs
            }
        }


def read_tasks(config: EvaluateConfig, export: Embeddings) -> Tasks:
    """Reads everything the tasks need, so that nothing is refused halfway.

    Raises:
        ConfigError: a service that the export does not have.
        DataError: labels that cannot be used, or an export that may have seen them.
    """
    downstream = config.downstream
    people = People(config, export)
    exports = read_exports(people)
    items = exports[MODEL].items
    source = FeatureSource(people, exports)
    services = {task.service for task in downstream.tasks if task.kind is TaskKind.RETRIEVAL}
    catalogues = {service: build_catalogue(items, service) for service in services if items}
    inputs = []
    for task in downstream.tasks:
        read = task_inputs(task, people, catalogues.get(task.service))
        if task.best:
            references(read, people)
        if task.truth:
            clicks.truth_of(read, people)
        if "boosting" in downstream.heads:
            check_boosting(task.name, read.problem)
        users = len(np.unique(read.labels.place_n))
        say(f"task {task.name}: {len(read.labels):,} labels of {users:,} users")
        inputs.append(read)
    for name in downstream.features:
        for part in name.split("+"):
            if part.partition("/")[0] in exports:
                source.users(part)  # a service may not be there
    source.check()
    return Tasks(people, tuple(inputs), source, _tuner(people))


def _tuner(people: People) -> Tune:
    if not set(TUNED) & set(people.config.downstream.features):
        return lambda name, inputs: None
    from clue_jax.evaluation.fine_tuning import Tuner  # needs the encoder

    return Tuner(people)


def evaluate_downstream(config: EvaluateConfig, tasks: Tasks) -> list[Result]:
    """Results of every task."""
    downstream = config.downstream
    results: list[Result] = []
    steps = len(tasks.inputs) * len(downstream.features) * len(downstream.heads)
    with progress("downstream", steps) as advance:
        for inputs in tasks.inputs:
            predicted = _predict_all(config, tasks, inputs, advance)
            results += _results(config, tasks.people, inputs, predicted)
            if inputs.task.kind is TaskKind.CLICKS:
                results += clicks.policy_results(config, tasks.people, inputs, predicted.chosen)
    return results


# ---------------------------------------------------------------------------------- predictions


def _predict_all(
    config: EvaluateConfig, tasks: Tasks, inputs: TaskInputs, advance: Advance
) -> Predicted:
    downstream = config.downstream
    predicted = Predicted(tasks.people, inputs, references(inputs, tasks.people))
    if inputs.task.kind is TaskKind.CLICKS:
        _add(config, tasks, inputs, predicted, CONTEXT, (CONTEXT,))
    for name in downstream.features:
        if name == SASREC:
            _add_sasrec(tasks.people, inputs, predicted)
            advance(len(downstream.heads))
        elif name in TUNED:
            trained = tasks.tune(name, inputs)
            found = {"linear": of_trained(inputs, trained)} if trained else {}
            predicted.keep(name, found)
            advance(len(downstream.heads))
        elif name != JOINED:
            _add(config, tasks, inputs, predicted, name, tuple(name.split("+")))
            advance(len(downstream.heads))
    rivals = {
        name: loss
        for name, loss in predicted.losses.items()
        if tasks.is_rival(name.partition(" (")[0])
    }
    if JOINED in downstream.features:
        if rivals:
            best = min(rivals, key=rivals.__getitem__).partition(" (")[0]
            _add(config, tasks, inputs, predicted, f"{MODEL}+{best}", (MODEL, best))
        advance(len(downstream.heads))
    return predicted


def _add(
    config: EvaluateConfig,
    tasks: Tasks,
    inputs: TaskInputs,
    predicted: Predicted,
    name: str,
    parts: tuple[str, ...],
) -> None:
    """Predictions of all heads on some features, and of the one that validation users choose."""
    features = tasks.source.joined(parts, inputs.catalogue)
    if features is None:  # no vectors of items
        return
    found = predict(inputs, features, config.downstream, config.seed)
    predicted.keep(name, found)


def _add_sasrec(people: People, inputs: TaskInputs, predicted: Predicted) -> None:
    """A model of its own, without heads, of RETRIEVAL alone."""
    if inputs.catalogue is None:
        return
    from clue_jax.evaluation.next_item import sasrec_ranks  # needs the model's layers

    problem, steps = inputs.problem, people.config.downstream.sasrec_steps
    say("training sasrec")
    predicted.by_model[SASREC] = sasrec_ranks(
        people, inputs.catalogue, problem.owner_n, problem.target_n, steps
    )


# --------------------------------------------------------------------------------------- results


def _results(
    config: EvaluateConfig, people: People, inputs: TaskInputs, predicted: Predicted
) -> list[Result]:
    name = f"{PREFIX}{inputs.task.name}"
    rows = np.arange(len(inputs.labels))
    results = _of_rows(config, people, inputs, predicted, name, rows)
    for group, member_N in people.groups().items():
        some = rows[member_N[inputs.labels.place_n]]
        if len(np.unique(inputs.labels.place_n[some])) < FEWEST_USERS:
            continue
        try:
            results += _of_rows(config, people, inputs, predicted, f"{name}, {group}", some)
        except DataError as error:
            say(f"{name}, {group}: not reported on their own: {error}")
    return results


def _of_rows(
    config: EvaluateConfig,
    people: People,
    inputs: TaskInputs,
    predicted: Predicted,
    name: str,
    rows: np.ndarray,
) -> list[Result]:
    """Results of all models, and of the export's differences to the others, on some rows."""
    owners, owner_r = np.unique(inputs.labels.place_n[rows], return_inverse=True)
    samples: dict[str, Resampled] = {}
    metrics: tuple[str, ...] = ()
    for model, values in predicted.by_model.items():
        scored = score(inputs, values, rows, owner_r)
        metrics = scored.metrics
        samples[model] = resample(
            scored.statistic, len(owners), config.downstream.bootstrap, config.seed, scored.cells
        )
    for left, right in differences(predicted):
        samples[f"{left} - {right}"] = samples[left].minus(samples[right])
    trained = int(people.export.manifest["train_seed"])
    return [
        result
        for model, sample in samples.items()
        for result in rows_of(
            name,
            model,
            metrics,
            sample,
            len(owners),
            trained if model.startswith(MODEL) else config.seed,
        )
    ]


def differences(predicted: Predicted) -> list[tuple[str, str]]:
    """Pairs of models to subtract: the export and each other model, and what joining it adds."""
    chosen = [name for name in predicted.by_model if name in predicted.losses]
    chosen += [
        name for name in predicted.by_model if name in ("prior", "popularity", "history", SASREC)
    ]
    mine = next((name for name in chosen if name.partition(" (")[0] == MODEL), None)
    pairs = [] if mine is None else [(mine, name) for name in chosen if name != mine]
    for name in chosen:
        joined, plus, best = name.partition("+")
        if plus and best in chosen and joined == MODEL:
            pairs.append((name, best))
    return pairs


def score(inputs: TaskInputs, values: np.ndarray, rows: np.ndarray, owner_r: np.ndarray) -> Scored:
    """The metrics of predictions on some rows."""
    kind, target_r, values = inputs.task.kind, inputs.problem.target_n[rows], values[rows]
    if kind is TaskKind.CLICKS:
        return score_binary(target_r, values, owner_r)
    if kind is TaskKind.BINARY:
        return score_binary(target_r, values)
    if kind is TaskKind.MULTICLASS:
        return score_multiclass(target_r, values)
    if kind is TaskKind.REGRESSION:
        return score_regression(target_r, values)
    if kind is TaskKind.AUDIENCE:
        at = tuple(k for k in inputs.task.at if k <= len(rows))
        return score_audience(target_r, values, at)
    return score_ranks(values, inputs.task.at)
