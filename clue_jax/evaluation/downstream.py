"""Downstream tasks: frozen embeddings and baselines under one protocol -> results.

Task names are `downstream/NAME`, and `downstream/NAME, GROUP` for groups of users (groups.py): of
one service only, by the length of their history, and by what tables of the config say, of which the
largest difference between two is a task, too (task_results.py).
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
from clue_jax.evaluation import clicks
from clue_jax.evaluation.beside import read_exports
from clue_jax.evaluation.boosting import check_boosting
from clue_jax.evaluation.catalogue import build_catalogue
from clue_jax.evaluation.features import FeatureSource
from clue_jax.evaluation.groups import Partition, partitions
from clue_jax.evaluation.heads import Trained
from clue_jax.evaluation.people import People
from clue_jax.evaluation.predicted import Predicted
from clue_jax.evaluation.predictions import of_trained, predict, references
from clue_jax.evaluation.results import MODEL, Result
from clue_jax.evaluation.targets import TaskInputs, task_inputs
from clue_jax.evaluation.task_results import SASREC, results_of_task

CONTEXT = "context"  # what is shown and where, without the user
JOINED = "clue+best"  # stands for the export beside the best baseline
NO_RIVALS = (CONTEXT, "item_mean", "item_recent", *TUNED)

Advance = Callable[[float], None]
Tune = Callable[[str, TaskInputs], Trained | None]  # model -> an encoder of each fold


@dataclass(frozen=True)
class Tasks:
    """All tasks of a config, read and found good."""

    people: People
    inputs: tuple[TaskInputs, ...]
    source: FeatureSource
    tune: Tune
    partitions: tuple[Partition, ...]

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
    return Tasks(people, tuple(inputs), source, _tuner(people), tuple(partitions(people)))


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
            results += results_of_task(config, tasks.people, tasks.partitions, inputs, predicted)
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
