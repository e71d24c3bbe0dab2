"""Predictions of held-out users by heads, neighbours and references, fold by fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.config import DownstreamConfig, TaskKind
from clue_jax.errors import DataError
from clue_jax.evaluation.heads import Features, Fitted, fit
from clue_jax.evaluation.neighbours import lookalike_scores, neighbour_predictions
from clue_jax.evaluation.people import People
from clue_jax.evaluation.targets import TaskInputs
from clue_jax.ranking import ranks_of

CHUNK = 512  # users whose catalogue scores are in memory at a time


@dataclass(frozen=True)
class Prediction:
    """What one head says of each row, and its validation loss.

    `values` are probabilities [n], class probabilities [n, C], values [n], scores [n] (AUDIENCE) or
    ranks of the right item [n] (RETRIEVAL).
    """

    values: np.ndarray
    loss: float
    fitted: Fitted | None = None  # of heads that were trained


def predict(
    inputs: TaskInputs, features: Features, config: DownstreamConfig, seed: int
) -> dict[str, Prediction]:
    """Predictions by head; those that the kind of the task allows."""
    found = {}
    for head in config.heads:
        if head != "knn":
            fitted = fit(head, inputs.problem, features, config, seed)
            found[head] = Prediction(_values(inputs, fitted), fitted.loss, fitted)
        elif inputs.task.kind in (TaskKind.BINARY, TaskKind.MULTICLASS, TaskKind.REGRESSION):
            found[head] = _neighbours(inputs, features, config)
    if inputs.task.kind is TaskKind.AUDIENCE:
        problem = inputs.problem
        x_nF = features.users_UF[problem.owner_n]
        scores = lookalike_scores(x_nF, problem.target_n, problem.folds)
        # It has no loss to be chosen by; it is listed beside the heads.
        found["lookalike"] = Prediction(scores, np.inf)
    if inputs.task.kind is TaskKind.RETRIEVAL:
        found["cosine"] = Prediction(_cosine_ranks(inputs, features), np.inf)
    return found


def references(inputs: TaskInputs, people: People) -> dict[str, np.ndarray]:
    """What knows no user: the shares or the mean of all labels, or popularity; and `best`."""
    problem, kind = inputs.problem, inputs.task.kind
    found: dict[str, np.ndarray] = {}
    if kind is TaskKind.RETRIEVAL:
        assert problem.prior_C is not None
        same_QC = np.broadcast_to(problem.prior_C, (len(problem.target_n), len(problem.prior_C)))
        found["popularity"] = ranks_of(same_QC, problem.target_n)
    else:
        found["prior"] = _prior(inputs)
    if inputs.task.best:
        found["best"] = _best(inputs)
    return found


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit))."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def _values(inputs: TaskInputs, fitted: Fitted) -> np.ndarray:
    problem, kind = inputs.problem, inputs.task.kind
    count = len(problem.target_n)
    shape = (count, problem.outputs) if kind is TaskKind.MULTICLASS else (count,)
    values = np.empty(shape)
    for number, fold in enumerate(problem.folds):
        for rows in _chunks(fold.predict, kind):
            out_BK = fitted.outputs(number, problem.owner_n[rows])
            values[rows] = _of_outputs(inputs, fitted, number, rows, out_BK)
    return values


def _chunks(rows: np.ndarray, kind: TaskKind) -> list[np.ndarray]:
    if kind is not TaskKind.RETRIEVAL or len(rows) <= CHUNK:
        return [rows]
    return np.array_split(rows, -(-len(rows) // CHUNK))


def _of_outputs(
    inputs: TaskInputs, fitted: Fitted, fold: int, rows: np.ndarray, out_BK: np.ndarray
) -> np.ndarray:
    problem, kind = inputs.problem, inputs.task.kind
    if kind is TaskKind.RETRIEVAL:
        return ranks_of(out_BK, problem.target_n[rows])
    if kind is TaskKind.REGRESSION:
        return out_BK[:, 0]
    if kind is TaskKind.MULTICLASS:
        p_BK = np.exp(out_BK - out_BK.max(axis=1, keepdims=True))
        return p_BK / p_BK.sum(axis=1, keepdims=True)
    if kind is TaskKind.CLICKS:
        assert problem.action_n is not None and problem.position_n is not None
        logit_B = out_BK[np.arange(len(rows)), problem.action_n[rows]]
        return sigmoid(logit_B + fitted.position_bias(fold)[problem.position_n[rows]])
    return sigmoid(out_BK[:, 0])


def _neighbours(inputs: TaskInputs, features: Features, config: DownstreamConfig) -> Prediction:
    problem, kind = inputs.problem, inputs.task.kind
    value_nK = problem.target_n.astype(np.float64)[:, None]
    if kind is TaskKind.MULTICLASS:
        value_nK = np.eye(problem.outputs)[problem.target_n]
    x_nF = features.users_UF[problem.owner_n].astype(np.float64)
    found_nK, loss = neighbour_predictions(
        x_nF, value_nK, problem.folds, config.neighbours, inputs.task.kind
    )
    if kind is TaskKind.REGRESSION:  # heads are chosen by the error in units of the spread
        loss = loss / float(value_nK.var())
    return Prediction(found_nK if kind is TaskKind.MULTICLASS else found_nK[:, 0], loss)


def _cosine_ranks(inputs: TaskInputs, features: Features) -> np.ndarray:
    problem = inputs.problem
    assert features.items_CG is not None
    rank_n = np.empty(len(problem.target_n))
    for rows in _chunks(np.arange(len(rank_n)), TaskKind.RETRIEVAL):
        score_BC = features.users_UF[problem.owner_n[rows]].astype(np.float64)
        score_BC = score_BC @ features.items_CG.T.astype(np.float64)
        rank_n[rows] = ranks_of(score_BC, problem.target_n[rows])
    return rank_n


def _prior(inputs: TaskInputs) -> np.ndarray:
    """The shares, or the mean, of all labels: of those of other folds alone, it would be low where
    a fold is high, and rank users worse than a coin."""
    problem, count = inputs.problem, len(inputs.problem.target_n)
    if inputs.task.kind is TaskKind.MULTICLASS:
        return np.tile(np.bincount(problem.target_n, minlength=problem.outputs) / count, (count, 1))
    return np.full(count, problem.target_n.mean())


def _best(inputs: TaskInputs) -> np.ndarray:
    """The best possible predictions, which the label table brings along."""
    kind, labels, name = inputs.task.kind, inputs.labels, inputs.task.best
    if kind is TaskKind.MULTICLASS:
        return _best_classes(inputs)
    if kind is not TaskKind.RETRIEVAL:
        return labels.numbers(name)
    assert inputs.catalogue is not None
    # A list of items, the most probable first; all that are not in it tie behind it.
    lists = labels.table.column(name).combine_chunks()
    first = np.asarray(lists.value_lengths() if hasattr(lists, "value_lengths") else [])
    entries = inputs.catalogue.find(lists.flatten())
    width = int(first[0]) if len(first) else len(entries) // max(1, len(lists))
    order_nW = entries.reshape(len(lists), width)
    hit_nW = order_nW == inputs.problem.target_n[:, None]
    behind = 0.5 * (width + 1 + len(inputs.catalogue))
    return np.where(hit_nW.any(axis=1), 1.0 + hit_nW.argmax(axis=1), behind)


def _best_classes(inputs: TaskInputs) -> np.ndarray:
    labels, name = inputs.labels, inputs.task.best
    rows = labels.table.column(name).to_pylist()
    known = inputs.classes
    if any(len(row) != len(known) for row in rows):
        raise DataError(
            f"task {inputs.task.name}: {name!r} has {len(rows[0])} chances a row, but the labels"
            f" have {len(known)} classes"
        )
    return np.array(rows, np.float64)
