"""Predictions of held-out users by heads, neighbours and references, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clue_jax.config import DownstreamConfig, TaskKind
from clue_jax.errors import DataError
from clue_jax.evaluation.boosting import fit_boosting
from clue_jax.evaluation.heads import Features, Own, Problem, Trained, fit
from clue_jax.evaluation.neighbours import lookalike_scores, neighbour_predictions
from clue_jax.evaluation.people import People
from clue_jax.evaluation.scores import Auc
from clue_jax.evaluation.targets import TaskInputs
from clue_jax.ranking import mrr, ranks_of

CHUNK = 512  # users whose catalogue scores are in memory at a time


@dataclass(frozen=True)
class Prediction:
    """What a head says of each row, and what it lost on the validation users of each fold.

    The loss is that of training, but for AUDIENCE and RETRIEVAL, where untrained scores take part:
    there it is minus the AUC, or minus the mean reciprocal rank. `values` are probabilities [n],
    class probabilities [n, C], values [n], scores [n] (AUDIENCE) or ranks of the right item [n]
    (RETRIEVAL).
    """

    values: np.ndarray
    losses: tuple[float, ...]
    fitted: tuple[Trained, ...] = ()  # of each fold, where something was trained

    @property
    def loss(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.losses))


def predict(
    inputs: TaskInputs, features: Features, config: DownstreamConfig, seed: int
) -> dict[str, Prediction]:
    """Predictions by head; those that the kind of the task allows."""
    problem, kind = inputs.problem, inputs.task.kind
    found = {}
    for head in config.heads:
        if head == "boosting":
            if kind is not TaskKind.RETRIEVAL:
                trees = fit_boosting(problem, features, config, seed)
                found[head] = of_trained(inputs, trees)
        elif head != "knn":
            found[head] = of_trained(inputs, fit(head, problem, features, config, seed))
        elif kind in (TaskKind.BINARY, TaskKind.MULTICLASS, TaskKind.REGRESSION):
            found[head] = _neighbours(inputs, features, config)
    if kind is TaskKind.AUDIENCE:
        x_nF = features.users_UF[problem.owner_n]
        score_n = lookalike_scores(x_nF, problem.target_n, problem.folds)
        found["lookalike"] = _untrained(inputs, score_n)
    if kind is TaskKind.RETRIEVAL:
        found["cosine"] = _untrained(inputs, _cosine_ranks(inputs, features))
    return found


def choose(inputs: TaskInputs, found: Mapping[str, Prediction]) -> Prediction:
    """Of several heads, in each fold the one that lost least on its validation users."""
    heads = list(found.values())
    best = np.argmin([head.losses for head in heads], axis=0)
    values = np.empty(heads[0].values.shape)
    for number, fold in enumerate(inputs.problem.folds):
        values[fold.predict] = heads[best[number]].values[fold.predict]
    fitted = [heads[pick].fitted for pick in best]
    return Prediction(
        values,
        tuple(heads[pick].losses[number] for number, pick in enumerate(best)),
        tuple(one[number] for number, one in enumerate(fitted)) if all(fitted) else (),
    )


def of_trained(inputs: TaskInputs, fitted: Trained) -> Prediction:
    """Predictions of each fold's users by what was trained on others."""
    problem, kind = inputs.problem, inputs.task.kind
    count = len(problem.target_n)
    values = np.empty((count, problem.outputs) if kind is TaskKind.MULTICLASS else count)
    losses = list(fitted.losses)
    for number, fold in enumerate(problem.folds):
        values[fold.predict] = _of_fold(inputs, fitted, number, fold.predict)
        if kind in (TaskKind.AUDIENCE, TaskKind.RETRIEVAL):
            chosen = _of_fold(inputs, fitted, number, fold.choose)
            losses[number] = _ordering_loss(inputs, fold.choose, chosen)
    return Prediction(values, tuple(losses), (fitted,) * problem.folds.count)


def _untrained(inputs: TaskInputs, values: np.ndarray) -> Prediction:
    losses = [
        _ordering_loss(inputs, fold.choose, values[fold.choose]) for fold in inputs.problem.folds
    ]
    return Prediction(values, tuple(losses))


def _ordering_loss(inputs: TaskInputs, rows: np.ndarray, values: np.ndarray) -> float:
    """What the values of some rows lose; see `Prediction`."""
    if inputs.task.kind is TaskKind.RETRIEVAL:
        return -mrr(values)
    label = inputs.problem.target_n[rows].astype(np.float64)
    found = float(Auc(label, values)(np.ones((1, len(rows))))[0])
    return -found if np.isfinite(found) else 0.0


def references(inputs: TaskInputs, people: People) -> dict[str, np.ndarray]:
    """What knows no vectors: the shares or the mean of all labels, or popularity and what users
    had; and `best`."""
    problem, kind = inputs.problem, inputs.task.kind
    found: dict[str, np.ndarray] = {}
    if kind is TaskKind.RETRIEVAL:
        assert problem.prior_C is not None and problem.own is not None
        same_QC = np.broadcast_to(problem.prior_C, (len(problem.target_n), len(problem.prior_C)))
        found["popularity"] = ranks_of(same_QC, problem.target_n)
        found["history"] = _history_ranks(problem.prior_C, problem.own, problem)
    else:
        found["prior"] = _prior(inputs)
    if inputs.task.best:
        found["best"] = _best(inputs)
    return found


def _history_ranks(prior_C: np.ndarray, own: Own, problem: Problem) -> np.ndarray:
    """Ranks where what a user had comes first, most often had first, then what is popular."""
    rank_n = np.empty(len(problem.target_n))
    for rows in _chunks(np.arange(len(rank_n)), TaskKind.RETRIEVAL):
        owner_B = problem.owner_n[rows]
        # Log popularity is below any whole number times this; the last column is of padding.
        score_BC = np.tile(np.append(prior_C, 0.0), (len(rows), 1))
        counts_BH = own.count_UH[owner_B] * (prior_C.max() + 1.0)
        np.add.at(score_BC, (np.arange(len(rows))[:, None], own.entry_UH[owner_B]), counts_BH)
        rank_n[rows] = ranks_of(score_BC[:, :-1], problem.target_n[rows])
    return rank_n


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit))."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def _of_fold(inputs: TaskInputs, fitted: Trained, fold: int, rows: np.ndarray) -> np.ndarray:
    """What the head of a fold says of some rows."""
    parts = []
    for some in _chunks(rows, inputs.task.kind):
        if inputs.task.kind is TaskKind.CLICKS:
            parts.append(sigmoid(fitted.shown_logits(fold, some)))
        else:
            out_BK = fitted.outputs(fold, inputs.problem.owner_n[some])
            parts.append(_of_outputs(inputs, some, out_BK))
    return np.concatenate(parts)


def _chunks(rows: np.ndarray, kind: TaskKind) -> list[np.ndarray]:
    if kind is not TaskKind.RETRIEVAL or len(rows) <= CHUNK:
        return [rows]
    return np.array_split(rows, -(-len(rows) // CHUNK))


def _of_outputs(inputs: TaskInputs, rows: np.ndarray, out_BK: np.ndarray) -> np.ndarray:
    kind = inputs.task.kind
    if kind is TaskKind.RETRIEVAL:
        return ranks_of(out_BK, inputs.problem.target_n[rows])
    if kind is TaskKind.REGRESSION:
        return out_BK[:, 0]
    if kind is TaskKind.MULTICLASS:
        p_BK = np.exp(out_BK - out_BK.max(axis=1, keepdims=True))
        return p_BK / p_BK.sum(axis=1, keepdims=True)
    return sigmoid(out_BK[:, 0])


def _neighbours(inputs: TaskInputs, features: Features, config: DownstreamConfig) -> Prediction:
    problem, kind = inputs.problem, inputs.task.kind
    value_nK = problem.target_n.astype(np.float64)[:, None]
    if kind is TaskKind.MULTICLASS:
        value_nK = np.eye(problem.outputs)[problem.target_n]
    x_nF = features.users_UF[problem.owner_n].astype(np.float64)
    found_nK, losses = neighbour_predictions(x_nF, value_nK, problem.folds, config.neighbours, kind)
    if kind is TaskKind.REGRESSION:  # trained heads lose in units of the fitted users' spread
        spreads = [float(value_nK[fold.fit].var()) for fold in problem.folds]
        losses = tuple(loss / one for loss, one in zip(losses, spreads, strict=True))
    return Prediction(found_nK if kind is TaskKind.MULTICLASS else found_nK[:, 0], losses)


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
    rows = labels.table.column(name).to_pylist()
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise DataError(f"task {inputs.task.name}: {name!r} has lists of different lengths")
    entries = inputs.catalogue.find(pa.array([item for row in rows for item in row], pa.string()))
    order_nW = entries.reshape(len(rows), -1)
    hit_nW = order_nW == inputs.problem.target_n[:, None]
    behind = 0.5 * (order_nW.shape[1] + 1 + len(inputs.catalogue))
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
