"""Metrics of predictions as statistics of weighted users, for the bootstrap.

Ties: equal scores count half in AUC; a class that shares the greatest probability with others is
right by its share; among users of equal score, places at k are shared evenly. Probabilities are
kept `EDGE` away from 0 and 1, so that a log loss is finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.evaluation.bootstrap import Statistic
from clue_jax.ranking import hits_at, reciprocal

EDGE = 1e-7
BINS = 10  # of the expected calibration error


@dataclass(frozen=True)
class Scored:
    """Named statistics of the users of one model on one task."""

    metrics: tuple[str, ...]
    statistic: Statistic
    cells: int  # that it needs for one sample


BINARY = ("auc", "log_loss", "normalised_entropy", "calibration_error", "accuracy")
MULTICLASS = ("accuracy", "log_loss", "normalised_entropy", "calibration_error")
REGRESSION = ("r2", "rmse", "mae")


def score_binary(label_N: np.ndarray, p_N: np.ndarray, owner_N: np.ndarray | None = None) -> Scored:
    """Metrics `BINARY` of probabilities.

    Normalised entropy is the log loss over that of the share of positives (He et al. 2014,
    "Practical Lessons from Predicting Clicks on Ads at Facebook", section 3); the calibration error
    is the mean distance of probability and share over ten bins of equal width (Guo et al. 2017,
    equation 3).

    Args:
        label_N: 0 or 1 of each row.
        p_N: probability of 1.
        owner_N: the user of each row; None: row n is user n.
    """
    label_N = label_N.astype(np.float64)
    p_N = np.clip(p_N.astype(np.float64), EDGE, 1.0 - EDGE)
    loss_N = -(label_N * np.log(p_N) + (1.0 - label_N) * np.log1p(-p_N))
    right_N = np.where(p_N == 0.5, 0.5, (p_N > 0.5) == (label_N > 0.5))
    auc, error = Auc(label_N, p_N), Calibration(label_N, p_N)

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        weights_RN = weights_RU if owner_N is None else weights_RU[:, owner_N]
        total_R = weights_RN.sum(axis=1)
        loss_R, share_R = weights_RN @ loss_N / total_R, weights_RN @ label_N / total_R
        entropy_R = _entropy(share_R) + _entropy(1.0 - share_R)
        with np.errstate(invalid="ignore", divide="ignore"):
            normalised_R = np.where(entropy_R > 0.0, loss_R / entropy_R, np.nan)
        return np.stack(
            [
                auc(weights_RN),
                loss_R,
                normalised_R,
                error(weights_RN),
                weights_RN @ right_N / total_R,
            ],
            axis=1,
        )

    return Scored(BINARY, statistic, len(label_N))


def score_multiclass(label_N: np.ndarray, p_NC: np.ndarray) -> Scored:
    """Metrics `MULTICLASS` of class probabilities; the calibration error is that of the first."""
    p_NC = np.clip(p_NC.astype(np.float64), EDGE, 1.0)
    rows = np.arange(len(label_N))
    p_N, most_N = p_NC[rows, label_N], p_NC.max(axis=1)
    loss_N = -np.log(p_N)
    right_N = (p_N == most_N) / (p_NC == most_N[:, None]).sum(axis=1)
    one_hot_NC = np.zeros(p_NC.shape)
    one_hot_NC[rows, label_N] = 1.0
    error = Calibration(right_N, most_N)

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        total_R = weights_RU.sum(axis=1)
        loss_R = weights_RU @ loss_N / total_R
        entropy_R = _entropy(weights_RU @ one_hot_NC / total_R[:, None]).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            normalised_R = np.where(entropy_R > 0.0, loss_R / entropy_R, np.nan)
        accuracy_R = weights_RU @ right_N / total_R
        return np.stack([accuracy_R, loss_R, normalised_R, error(weights_RU)], axis=1)

    return Scored(MULTICLASS, statistic, len(label_N))


def score_regression(label_N: np.ndarray, predicted_N: np.ndarray) -> Scored:
    """Metrics `REGRESSION`; R2 is 1 - squared error / variance of the labels of the sample."""
    label_N, predicted_N = label_N.astype(np.float64), predicted_N.astype(np.float64)
    centred_N = label_N - label_N.mean()  # for the precision of the variance
    error_N = predicted_N - label_N

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        total_R = weights_RU.sum(axis=1)
        squared_R = weights_RU @ error_N**2 / total_R
        spread_R = weights_RU @ centred_N**2 / total_R - (weights_RU @ centred_N / total_R) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            # Where all labels of a sample are the same, rounding may leave a little.
            defined_R = spread_R > 1e-12 * max(1e-300, float((centred_N**2).max()))
            r2_R = np.where(defined_R, 1.0 - squared_R / spread_R, np.nan)
        return np.stack([r2_R, np.sqrt(squared_R), weights_RU @ np.abs(error_N) / total_R], axis=1)

    return Scored(REGRESSION, statistic, len(label_N))


def score_ranks(rank_N: np.ndarray, at: tuple[int, ...]) -> Scored:
    """Hit rate and NDCG at each k, and MRR, of ranks as of ranking.py."""
    columns = {f"hit_rate_at_{k}": hits_at(rank_N, k) for k in at}
    gain_N = 1.0 / np.log2(1.0 + rank_N)
    columns |= {f"ndcg_at_{k}": hits_at(rank_N, k) * gain_N for k in at}
    columns["mrr"] = reciprocal(rank_N)
    scores_NX = np.stack(list(columns.values()), axis=1)

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        return weights_RU @ scores_NX / weights_RU.sum(axis=1, keepdims=True)

    return Scored(tuple(columns), statistic, len(rank_N))


def score_audience(label_N: np.ndarray, score_N: np.ndarray, at: tuple[int, ...]) -> Scored:
    """AUC, and the share of positives among the k users of the greatest score, for each k."""
    label_N = label_N.astype(np.float64)
    auc = Auc(label_N, score_N)
    tops = [Top(label_N, score_N, k) for k in at]

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        return np.stack([auc(weights_RU), *(top(weights_RU) for top in tops)], axis=1)

    return Scored(("auc", *(f"precision_at_{k}" for k in at)), statistic, len(label_N))


class _Ordered:
    """Rows by falling score, with equal scores as one group."""

    def __init__(self, label_N: np.ndarray, score_N: np.ndarray):
        self.order = np.argsort(-score_N, kind="stable")
        sorted_N = score_N[self.order]
        self.starts = np.flatnonzero(np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]]))
        self.label_N = label_N[self.order]

    def groups(self, weights_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of positives and of all rows of each group, [R, G]."""
        weights_RN = weights_RN[:, self.order]
        return (
            np.add.reduceat(weights_RN * self.label_N, self.starts, axis=1),
            np.add.reduceat(weights_RN, self.starts, axis=1),
        )


class Auc(_Ordered):
    """Chance that a positive scores above a negative, ties counted half; NaN without both."""

    def __call__(self, weights_RN: np.ndarray) -> np.ndarray:
        positive_RG, all_RG = self.groups(weights_RN)
        negative_RG = all_RG - positive_RG
        after_RG = negative_RG.sum(axis=1, keepdims=True) - np.cumsum(negative_RG, axis=1)
        right_R = (positive_RG * (after_RG + 0.5 * negative_RG)).sum(axis=1)
        pairs_R = positive_RG.sum(axis=1) * negative_RG.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs_R > 0.0, right_R / pairs_R, np.nan)


class Found(_Ordered):
    """Share of positives above the threshold that a share of the negatives passes, ties shared.

    The power of a test: true positives at a rate of false ones, interpolated where the scores at
    the threshold are equal; NaN without both.
    """

    def __init__(self, label_N: np.ndarray, score_N: np.ndarray, false_rate: float):
        super().__init__(label_N, score_N)
        self.false_rate = false_rate

    def __call__(self, weights_RN: np.ndarray) -> np.ndarray:
        positive_RG, all_RG = self.groups(weights_RN)
        negative_RG = all_RG - positive_RG
        passed_RG = np.cumsum(negative_RG, axis=1)
        allowed_R = self.false_rate * passed_RG[:, -1:]
        room_RG = allowed_R - (passed_RG - negative_RG)
        # A group without negatives is taken whole while there is room before it or none is needed.
        share_RG = np.where(
            negative_RG > 0.0,
            np.clip(room_RG / np.maximum(negative_RG, 1e-300), 0.0, 1.0),
            room_RG >= 0.0,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            found_R = (positive_RG * share_RG).sum(axis=1) / positive_RG.sum(axis=1)
        return np.where(passed_RG[:, -1] > 0.0, found_R, np.nan)


class Top(_Ordered):
    """Share of positives among the k rows of the greatest score; ties share what is left."""

    def __init__(self, label_N: np.ndarray, score_N: np.ndarray, k: int):
        super().__init__(label_N, score_N)
        self.k = k

    def __call__(self, weights_RN: np.ndarray) -> np.ndarray:
        positive_RG, all_RG = self.groups(weights_RN)
        before_RG = np.cumsum(all_RG, axis=1) - all_RG
        taken_RG = np.clip(self.k - before_RG, 0.0, all_RG)
        share_RG = positive_RG / np.maximum(all_RG, 1.0)
        return (taken_RG * share_RG).sum(axis=1) / self.k


class Calibration:
    """Mean distance of probability and outcome over `BINS` bins of equal width."""

    def __init__(self, outcome_N: np.ndarray, p_N: np.ndarray):
        bin_N = np.minimum((p_N * BINS).astype(np.int64), BINS - 1)
        self.gap_NB = np.zeros((len(p_N), BINS))
        self.gap_NB[np.arange(len(p_N)), bin_N] = outcome_N - p_N

    def __call__(self, weights_RN: np.ndarray) -> np.ndarray:
        return np.abs(weights_RN @ self.gap_NB).sum(axis=1) / weights_RN.sum(axis=1)


def _entropy(p_X: np.ndarray) -> np.ndarray:
    return -p_X * np.log(np.maximum(p_X, np.finfo(np.float64).tiny))
