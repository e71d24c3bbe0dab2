"""Labels -> what heads are fitted to, or a refusal that says why they cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from clue_jax.config import TaskConfig, TaskKind
from clue_jax.data.ragged import ranges
from clue_jax.errors import DataError
from clue_jax.evaluation.catalogue import Catalogue
from clue_jax.evaluation.exported import before_labels
from clue_jax.evaluation.folds import deal_folds
from clue_jax.evaluation.heads import Own, Problem
from clue_jax.evaluation.labels import Labels, read_labels, sample
from clue_jax.evaluation.people import People

MOST_OWN = 256  # items a user had that heads of RETRIEVAL know of


@dataclass(frozen=True)
class TaskInputs:
    """One task, ready to be evaluated."""

    task: TaskConfig
    labels: Labels
    problem: Problem
    classes: tuple[str, ...] = ()  # of MULTICLASS; of CLICKS what can be shown
    catalogue: Catalogue | None = None  # of RETRIEVAL


def task_inputs(task: TaskConfig, people: People, catalogue: Catalogue | None) -> TaskInputs:
    """Reads the labels of a task and makes targets of them.

    Raises:
        DataError: labels that cannot be used; see labels.py and the functions here.
    """
    if task.kind is TaskKind.RETRIEVAL:
        assert catalogue is not None
        return _retrieval(task, people, catalogue)
    labels = read_labels(task, people)
    make = {
        TaskKind.BINARY: _binary,
        TaskKind.AUDIENCE: _binary,
        TaskKind.MULTICLASS: _multiclass,
        TaskKind.REGRESSION: _regression,
        TaskKind.CLICKS: _clicks,
    }[task.kind]
    return make(task, labels, people)


def _binary(task: TaskConfig, labels: Labels, people: People) -> TaskInputs:
    target_n = _flags(task, labels)
    most = max(task.at) if task.kind is TaskKind.AUDIENCE else 0
    if most > len(labels):
        raise DataError(f"task {task.name}: k = {most}, but there are {len(labels):,} users")
    folds = deal_folds(people.held.user_ids, labels.place_n, _folds(people), target_n)
    return TaskInputs(task, labels, Problem(TaskKind.BINARY, labels.place_n, target_n, folds))


def _flags(task: TaskConfig, labels: Labels) -> np.ndarray:
    values = labels.numbers(task.label)
    if not np.isin(values, (0.0, 1.0)).all():
        odd = values[~np.isin(values, (0.0, 1.0))][0]
        raise DataError(f"task {task.name}: a label of {odd:g}; a binary one is 0 or 1")
    target_n = values.astype(np.int64)
    _refuse_rare(task, np.bincount(target_n, minlength=2), ("0", "1"), labels)
    return target_n


def _multiclass(task: TaskConfig, labels: Labels, people: People) -> TaskInputs:
    names, target_n = np.unique(labels.texts(task.label).astype(str), return_inverse=True)
    counts = np.sort(np.bincount(target_n))[::-1]
    if len(names) < 2:
        raise DataError(
            f"task {task.name}: all {len(labels):,} labels are {str(names[0])!r}; one class"
        )
    _refuse_rare(task, counts[:2], ("the most common class", "the second"), labels)
    folds = deal_folds(people.held.user_ids, labels.place_n, _folds(people), target_n)
    problem = Problem(TaskKind.MULTICLASS, labels.place_n, target_n, folds, outputs=len(names))
    return TaskInputs(task, labels, problem, classes=tuple(names.tolist()))


def _regression(task: TaskConfig, labels: Labels, people: People) -> TaskInputs:
    target_n = labels.numbers(task.label)
    if target_n.max() == target_n.min():
        raise DataError(
            f"task {task.name}: all {len(labels):,} labels are {target_n[0]:g}; nothing to predict"
        )
    folds = deal_folds(people.held.user_ids, labels.place_n, _folds(people))
    return TaskInputs(task, labels, Problem(TaskKind.REGRESSION, labels.place_n, target_n, folds))


def _clicks(task: TaskConfig, labels: Labels, people: People) -> TaskInputs:
    target_n = _flags(task, labels)
    propensity_n = labels.numbers(task.propensity)
    if not ((propensity_n > 0.0) & (propensity_n <= 1.0)).all():
        odd = propensity_n[~((propensity_n > 0.0) & (propensity_n <= 1.0))][0]
        raise DataError(
            f"task {task.name}: a propensity of {odd:g}; it is a probability above 0, or the"
            " impression could not have been logged"
        )
    shown, action_n = np.unique(labels.texts(task.action).astype(str), return_inverse=True)
    _, position_n = np.unique(labels.texts(task.position).astype(str), return_inverse=True)
    folds = deal_folds(people.held.user_ids, labels.place_n, _folds(people))
    problem = Problem(
        TaskKind.CLICKS,
        labels.place_n,
        target_n,
        folds,
        outputs=len(shown),
        action_n=action_n,
        position_n=position_n,
    )
    return TaskInputs(task, labels, problem, classes=tuple(shown.tolist()))


def _refuse_rare(
    task: TaskConfig, counts: np.ndarray, names: tuple[str, str], labels: Labels
) -> None:
    """A class must be in every fold, or the others cannot learn it or tell it."""
    for count, name in zip(counts.tolist(), names, strict=True):
        least = 3
        if count < least:
            other = " all labels are of one class;" if count == 0 else ""
            raise DataError(
                f"task {task.name}: {count} of {len(labels):,} labels are {name};{other} at least"
                f" {least} of each are needed"
            )


def _folds(people: People) -> int:
    return people.config.downstream.folds


# ------------------------------------------------------------------------------------ retrieval


def _retrieval(task: TaskConfig, people: People, catalogue: Catalogue) -> TaskInputs:
    if task.labels:
        labels = read_labels(task, people)
        entry_n = catalogue.find(labels.table.column(task.label))
        unknown = np.flatnonzero(entry_n < 0)
        if len(unknown):
            raise DataError(
                f"task {task.name}: {len(unknown):,} of {len(entry_n):,} labels are items that the"
                f" catalogue of {task.service!r} lacks, such as"
                f" {labels.table.column(task.label)[int(unknown[0])].as_py()!r}"
            )
    else:
        labels, entry_n = _first_left_out(task, people, catalogue)
    most = max(task.at)
    if most > len(catalogue):
        raise DataError(
            f"task {task.name}: k = {most}, but the catalogue of {task.service!r} has"
            f" {len(catalogue):,} items"
        )
    popularity_C = np.asarray(catalogue.counts(people.everyone).sum(axis=0)).ravel()
    folds = deal_folds(people.held.user_ids, labels.place_n, _folds(people))
    problem = Problem(
        TaskKind.RETRIEVAL,
        labels.place_n,
        entry_n,
        folds,
        outputs=len(catalogue),
        # One more behaviour each, so that an item nobody had yet can still be found.
        prior_C=np.log(popularity_C + 1.0),
        own=own_items(catalogue.counts(people.seen)),
    )
    return TaskInputs(task, labels, problem, catalogue=catalogue)


def own_items(count_UC: sp.csr_array) -> Own:
    """What users had most often, at most `MOST_OWN` items each."""
    users, entries = count_UC.shape
    count_UC = count_UC.tocoo()
    order = np.lexsort((count_UC.col, -count_UC.data, count_UC.row))
    user, entry, count = (a[order] for a in (count_UC.row, count_UC.col, count_UC.data))
    place = ranges(np.zeros(users, np.int64), np.bincount(user, minlength=users))
    width = min(MOST_OWN, int(place.max(initial=0)) + 1)
    kept = place < width
    entry_UH, count_UH = np.full((users, width), entries), np.zeros((users, width))
    entry_UH[user[kept], place[kept]] = entry[kept]
    count_UH[user[kept], place[kept]] = count[kept]
    return Own(entry_UH, count_UH)


def _first_left_out(
    task: TaskConfig, people: People, catalogue: Catalogue
) -> tuple[Labels, np.ndarray]:
    """The first behaviour on the service that the export could not see, of each who has one.

    Raises:
        DataError: the export saw all behaviours.
    """
    manifest = people.export.manifest
    if not (manifest["cutoff"] or manifest["hold_out_last"]):
        raise DataError(
            f"task {task.name}: the export has seen all behaviours; export with"
            " --config.hold_out_last=1, or with --config.cutoff=TIME"
        )
    if task.service not in people.dataset.services:
        raise DataError(
            f"task {task.name}: no service {task.service!r} in {people.dataset.path}; it has"
            f" {', '.join(people.dataset.services)}"
        )
    service = people.dataset.services.index(task.service)
    everything = people.whole
    earlier = before_labels(people.export, everything)
    earlier_N, all_N = earlier.counts()[:, service], everything.counts()[:, service]
    place_n = np.flatnonzero(all_N > earlier_N)
    if not len(place_n):
        raise DataError(f"task {task.name}: nobody has a later behaviour on {task.service!r}")
    rows = place_n * len(everything.services) + service
    behaviour_n = everything.behaviour_offsets[rows] + earlier_N[place_n]
    table = pa.table({task.label: pa.nulls(len(place_n)), "row": pa.array(np.arange(len(place_n)))})
    labels = sample(Labels(task, table, place_n, 0), people)
    chosen = pc.fill_null(labels.table.column("row"), 0).to_numpy()
    return labels, catalogue.entries(everything, place_n[chosen], behaviour_n[chosen])
