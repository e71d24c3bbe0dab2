"""Paired bootstrap over users: intervals of metrics, and of differences between models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clue_jax.errors import DataError

LEVEL = 0.95
CELLS = 1 << 20  # weights (of a user in a resample) in memory at a time

# How often each of U users counts in each of R samples, [R, U] -> X statistics of each, [R, X];
# NaN where a statistic is not defined, such as AUC where all labels are the same.
Statistic = Callable[[np.ndarray], np.ndarray]


def percentile_interval(resamples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high [...] of what was found on resamples [R, ...]; NaN of none."""
    if not len(resamples):
        nothing = np.full(resamples.shape[1:], np.nan)
        return nothing, nothing
    tail = 100.0 * (1.0 - LEVEL) / 2.0
    low, high = np.percentile(resamples, [tail, 100.0 - tail], axis=0)
    return low, high


@dataclass(frozen=True)
class Resampled:
    """Scores on the sample at hand and on every resample of its users."""

    value: np.ndarray  # [...]
    resamples: np.ndarray  # [R, ...]

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Percentile interval (Efron and Tibshirani 1993, section 13.3): low and high, [...]."""
        return percentile_interval(self.resamples)

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
    return resample(lambda weights_RU: weights_RU @ scores_UX / users, users, resamples, seed)


def resample(
    statistic: Statistic,
    users: int,
    resamples: int,
    seed: int | Sequence[int],
    cells: int = 0,
) -> Resampled:
    """Any statistic of weighted users, and the same on resamples; see `bootstrap`.

    Resamples in which a statistic is not defined are left out. Where that depends on the labels
    alone, as for AUC and R2, it leaves out the same ones of every model, so that pairs stay pairs.

    Args:
        statistic: of R samples at a time.
        users: U.
        resamples: R, of which some may be left out.
        seed: of the draws.
        cells: that the statistic needs for a sample; 0: as many as users.

    Raises:
        DataError: the statistic is not defined on the users, or on no resample of them.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, CELLS // max(users, cells))
    drawn = []
    for first in range(0, resamples, chunk):
        size = min(chunk, resamples - first)
        drawn.append(statistic(_multiplicities(rng.integers(users, size=(size, users)), users)))
    drawn_RX = np.concatenate(drawn)
    value_X = statistic(np.ones((1, users)))[0]
    drawn_RX = drawn_RX[~np.isnan(drawn_RX).any(axis=1)]
    if np.isnan(value_X).any() or not len(drawn_RX):
        raise DataError(
            f"a metric is not defined on these {users:,} users; they are too much alike"
        )
    return Resampled(value_X, drawn_RX)


def _multiplicities(drawn_RU: np.ndarray, users: int) -> np.ndarray:
    """How often each user was drawn in each resample, float64 [R, U]."""
    rows = np.arange(len(drawn_RU))[:, None] * users
    flat = np.bincount((rows + drawn_RU).ravel(), minlength=len(drawn_RU) * users)
    return flat.reshape(len(drawn_RU), users).astype(np.float64)
