"""Paired bootstrap over users: intervals of metrics, and of differences between models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
CELLS = 1 << 20  # weights (of a user in a resample) in memory at a time


@dataclass(frozen=True)
class Resampled:
    """Scores on the sample at hand and on every resample of its users."""

    value: np.ndarray  # [...]
    resamples: np.ndarray  # [R, ...]

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Percentile interval (Efron and Tibshirani 1993, section 13.3): low and high, [...]."""
        tail = 100.0 * (1.0 - LEVEL) / 2.0
        low, high = np.percentile(self.resamples, [tail, 100.0 - tail], axis=0)
        return low, high

    def minus(self, other: Resampled) -> Resampled:
        """The difference on the same resamples: paired, so that what users share cancels."""
        return Resampled(self.value - other.value, self.resamples - other.resamples)


def bootstrap(scores_UX: np.ndarray, resamples: int, seed: int) -> Resampled:
    """Means over users, and the same on resamples of the users with replacement.

    Calls with the same number of users and the same seed draw the same users, so that their
    results may be subtracted. Candidates stay as they are: the interval is about queries.

    Args:
        scores_UX: score of each user in each of X columns.
        resamples: R.
        seed: of the draws.

    Returns:
        Means [X].
    """
    users = len(scores_UX)
    rng = np.random.default_rng(seed)
    drawn_RX = np.empty((resamples, scores_UX.shape[1]))
    chunk = max(1, CELLS // users)
    for first in range(0, resamples, chunk):
        size = min(chunk, resamples - first)
        weights_RU = _multiplicities(rng.integers(users, size=(size, users)), users)
        drawn_RX[first : first + size] = weights_RU @ scores_UX / users
    return Resampled(scores_UX.mean(axis=0), drawn_RX)


def _multiplicities(drawn_RU: np.ndarray, users: int) -> np.ndarray:
    """How often each user was drawn in each resample, float64 [R, U]."""
    rows = np.arange(len(drawn_RU))[:, None] * users
    flat = np.bincount((rows + drawn_RU).ravel(), minlength=len(drawn_RU) * users)
    return flat.reshape(len(drawn_RU), users).astype(np.float64)
