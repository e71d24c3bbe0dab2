"""Results of one task: of all users, of each group of them, and how far groups differ.

The groups that a table of the config names are compared by the first metric of the task. The more
groups there are, the further the best and the worst of them are apart by chance alone, so beside
the difference stands what it would be with users dealt to groups of the same sizes at random
(`chance`, mean and 95 % of the deals). Where labels are classes, users of each class are dealt
among each other, so that a group keeps its share of positives: an AUC of three of them is nearly
arbitrary. The interval of the difference itself is of the two groups that were found to be furthest
apart, and knows nothing of the search for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clue_jax.config import EvaluateConfig, TaskKind
from clue_jax.console import say
from clue_jax.errors import DataError
from clue_jax.evaluation.bootstrap import Resampled, resample
from clue_jax.evaluation.groups import Partition
from clue_jax.evaluation.people import People
from clue_jax.evaluation.predicted import Predicted
from clue_jax.evaluation.results import MODEL, PREFIX, Result, rows_of
from clue_jax.evaluation.scores import (
    Scored,
    score_audience,
    score_binary,
    score_multiclass,
    score_ranks,
    score_regression,
)
from clue_jax.evaluation.targets import TaskInputs

SASREC = "sasrec"
CLASSES = (TaskKind.BINARY, TaskKind.AUDIENCE, TaskKind.MULTICLASS)  # a class for each user


def results_of_task(
    config: EvaluateConfig,
    people: People,
    partitions: Sequence[Partition],
    inputs: TaskInputs,
    predicted: Predicted,
) -> list[Result]:
    """Results of all models on all users of a task, and on groups of at least `min_audience`."""
    name = f"{PREFIX}{inputs.task.name}"
    rows = np.arange(len(inputs.labels))
    results = _of_rows(config, people, inputs, predicted, name, rows)
    taking_part_N = np.zeros(len(people.held), bool)
    taking_part_N[inputs.labels.place_n] = True
    for partition in partitions:
        shown, hidden = partition.shown(taking_part_N, config.min_audience)
        if hidden:
            kind = f" of {partition.name}" if partition.name else ""
            say(
                f"{name}: {hidden} groups{kind} are not shown: fewer than config.min_audience="
                f"{config.min_audience} users are in them, or would be told by the others"
            )
        members = {}
        for group in shown:
            some = rows[partition.members[group][inputs.labels.place_n]]
            try:
                results += _of_rows(config, people, inputs, predicted, f"{name}, {group}", some)
                members[group] = some
            except DataError as error:
                say(f"{name}, {group}: not reported on their own: {error}")
        if partition.name and len(members) > 1:
            results += _largest_difference(config, people, inputs, predicted, partition, members)
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


# ------------------------------------------------------------------------------------ differences


def _largest_difference(
    config: EvaluateConfig,
    people: People,
    inputs: TaskInputs,
    predicted: Predicted,
    partition: Partition,
    members: dict[str, np.ndarray],
) -> list[Result]:
    """Of the two groups that the export serves best and worst, for each chosen model; chance."""
    chosen = [name for name in predicted.by_model if name in predicted.losses]
    mine = next(name for name in chosen if name.partition(" (")[0] == MODEL)
    title = f"{PREFIX}{inputs.task.name}"
    try:  # too few deals of the users may have a metric in each group
        samples = _by_group(config, inputs, predicted.by_model[mine], members)
        order = sorted(samples, key=lambda group: float(samples[group].value[0]))
        ends = {group: members[group] for group in (order[-1], order[0])}
        found = {
            model: _apart(_by_group(config, inputs, predicted.by_model[model], ends))
            for model in chosen
        }
        found["chance"] = _by_chance(config, inputs, predicted.by_model[mine], members)
    except DataError as error:
        say(f"{title}: groups of {partition.name} are not compared: {error}")
        return []
    task = f"{title}, {order[-1]} over {order[0]}, of {len(members)} groups"
    metric = f"{_first_metric(inputs, predicted.by_model[mine])}_difference"
    users = len(np.unique(inputs.labels.place_n[np.concatenate(list(members.values()))]))
    trained = int(people.export.manifest["train_seed"])
    return [
        result
        for model, sample in found.items()
        for result in rows_of(
            task, model, [metric], sample, users, trained if model == mine else config.seed
        )
    ]


def _first_metric(inputs: TaskInputs, values: np.ndarray) -> str:
    rows = np.arange(len(inputs.labels))
    return score(inputs, values, rows, rows).metrics[0]


def _by_group(
    config: EvaluateConfig,
    inputs: TaskInputs,
    values: np.ndarray,
    members: dict[str, np.ndarray],
) -> dict[str, Resampled]:
    """The metrics of each group with draws of its own, as its users are nobody else's."""
    found = {}
    for number, (group, rows) in enumerate(members.items(), start=1):
        owners, owner_r = np.unique(inputs.labels.place_n[rows], return_inverse=True)
        scored = score(inputs, values, rows, owner_r)
        found[group] = resample(
            scored.statistic,
            len(owners),
            config.downstream.bootstrap,
            [config.seed, number],
            scored.cells,
        )
    return found


def _apart(samples: dict[str, Resampled]) -> Resampled:
    """The first metric of the first group less that of the second, [1]."""
    best, worst = samples.values()
    drawn = min(len(best.resamples), len(worst.resamples))  # some are not defined
    return Resampled(
        best.value[:1] - worst.value[:1], best.resamples[:drawn, :1] - worst.resamples[:drawn, :1]
    )


def _by_chance(
    config: EvaluateConfig,
    inputs: TaskInputs,
    values: np.ndarray,
    members: dict[str, np.ndarray],
) -> Resampled:
    """The range of groups of the same sizes that users were dealt to at random: mean, and deals."""
    rows = np.concatenate(list(members.values()))
    owner_r = np.arange(len(rows))  # but for clicks, a row is a user of the statistic
    if inputs.task.kind is TaskKind.CLICKS:
        owner_r = np.unique(inputs.labels.place_n[rows], return_inverse=True)[1]
    users = int(owner_r.max()) + 1
    group_U = np.zeros(users, np.int64)
    group_U[owner_r] = np.repeat(np.arange(len(members)), [len(r) for r in members.values()])
    scored = score(inputs, values, rows, owner_r)
    class_U = np.zeros(users, np.int64)
    if inputs.task.kind in CLASSES:
        class_U[owner_r] = inputs.problem.target_n[rows]
    order, dealt_U = np.argsort(class_U, kind="stable"), np.empty_like(group_U)
    rng = np.random.default_rng([config.seed, 0])
    ranges = []
    for _ in range(config.downstream.bootstrap):
        dealt_U[order] = group_U[np.lexsort((rng.random(users), class_U))]
        weights_GU = dealt_U == np.arange(len(members))[:, None]
        value_G = scored.statistic(weights_GU.astype(np.float64))[:, 0]
        ranges.append(value_G.max() - value_G.min())
    drawn = np.array(ranges)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        raise DataError("no deal of the users to such groups has a metric in each of them")
    return Resampled(drawn.mean(keepdims=True), drawn[:, None])
