"""Nearest neighbours by cosine as a head without training, and look-alikes of seeds."""

from __future__ import annotations

import numpy as np

from clue_jax.composition import unit
from clue_jax.config import TaskKind
from clue_jax.evaluation.folds import Folds

CHUNK = 1_024  # queries at a time
PRIOR_WEIGHT = 1.0  # neighbours' worth of the fitted users' mean, so that no class has chance zero


def neighbour_predictions(
    x_nF: np.ndarray, value_nK: np.ndarray, folds: Folds, sizes: tuple[int, ...], kind: TaskKind
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Mean value of the nearest fitted users, with the best number of them for each fold.

    Args:
        x_nF: features of the rows.
        value_nK: what is averaged: one column of 0 and 1, or of values, or a column a class.
        folds: of the rows.
        sizes: numbers of neighbours to choose from; at most all fitted users count.
        kind: of the task; decides the loss that chooses.

    Returns:
        Predictions [n, K], and the validation loss of each fold.
    """
    unit_nF = unit(x_nF)
    predicted_nK, losses = np.empty(value_nK.shape), []
    for fold in folds:
        chosen = [
            _average(unit_nF[fold.choose], unit_nF[fold.fit], value_nK[fold.fit], k) for k in sizes
        ]
        errors = [_loss(kind, value_nK[fold.choose], guess) for guess in chosen]
        k = sizes[int(np.argmin(errors))]
        losses.append(min(errors))
        predicted_nK[fold.predict] = _average(
            unit_nF[fold.predict], unit_nF[fold.fit], value_nK[fold.fit], k
        )
    return predicted_nK, tuple(losses)


def lookalike_scores(x_nF: np.ndarray, positive_n: np.ndarray, folds: Folds) -> np.ndarray:
    """Cosine with the mean direction of the positive users of the other folds, [n]."""
    unit_nF = unit(x_nF)
    score_n = np.empty(len(x_nF))
    for fold in folds:
        known = np.concatenate([fold.fit, fold.choose])
        mean_F = unit_nF[known[positive_n[known] > 0]].mean(axis=0)
        score_n[fold.predict] = (
            unit_nF[fold.predict] @ mean_F / max(float(np.linalg.norm(mean_F)), 1e-12)
        )
    return score_n


def _average(
    queries_QF: np.ndarray, fitted_fF: np.ndarray, value_fK: np.ndarray, k: int
) -> np.ndarray:
    k = min(k, len(fitted_fF))
    prior_K = value_fK.mean(axis=0)
    parts = []
    for first in range(0, len(queries_QF), CHUNK):
        cosine = queries_QF[first : first + CHUNK] @ fitted_fF.T
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        total = value_fK[nearest].sum(axis=1)
        parts.append((total + PRIOR_WEIGHT * prior_K) / (k + PRIOR_WEIGHT))
    return np.concatenate(parts)


def _loss(kind: TaskKind, value_QK: np.ndarray, guess_QK: np.ndarray) -> float:
    if kind is TaskKind.REGRESSION:
        return float(((value_QK - guess_QK) ** 2).mean())
    log_QK = np.log(np.maximum(guess_QK, 1e-12))
    if value_QK.shape[1] > 1:
        return float(-(value_QK * log_QK).sum(axis=1).mean())
    other_QK = np.log(np.maximum(1.0 - guess_QK, 1e-12))
    return float(-(value_QK * log_QK + (1.0 - value_QK) * other_QK).mean())
