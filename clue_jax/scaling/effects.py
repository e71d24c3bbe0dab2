"""What a doubling of one factor does, all else equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from clue_jax.evaluation.bootstrap import LEVEL
from clue_jax.scaling.results import Result
from clue_jax.scaling.selection import FACTORS, grouped

Score = Callable[[Result], float]


@dataclass(frozen=True)
class Effect:
    """Change of a score for each doubling of a factor, with its 95 % interval.

    Attributes:
        value: of the change.
        error: its standard error; NaN where there are too few runs.
        freedom: degrees of freedom of the error.
        runs: that it is from.
    """

    value: float
    error: float
    freedom: int
    runs: int

    @property
    def low(self) -> float:
        return self.value - self._half_width

    @property
    def high(self) -> float:
        return self.value + self._half_width

    @property
    def _half_width(self) -> float:
        if not self.freedom:
            return math.nan
        return float(stats.t.ppf((1.0 + LEVEL) / 2.0, self.freedom)) * self.error

    def minus(self, other: Effect) -> Effect:
        """The difference of two effects on different runs (Welch)."""
        errors = np.array([self.error, other.error]) ** 2
        freedoms = np.array([max(1, self.freedom), max(1, other.freedom)])
        freedom = int(errors.sum() ** 2 / (errors**2 / freedoms).sum()) if errors.sum() > 0 else 0
        if not (self.freedom and other.freedom):
            freedom = 0
        error = float(np.sqrt(errors.sum()))
        return Effect(self.value - other.value, error, freedom, self.runs + other.runs)


def effect(
    runs: Sequence[Result], factor: str, score: Score, same: Sequence[str] = ()
) -> Effect | None:
    """Slope of a score against log2 of a factor, within groups of runs that agree on all else.

    The error holds both seeds and what is not linear: least squares with a height for each group.

    Args:
        runs: of one study.
        factor: one of `FACTORS`, or another number of a result.
        score: of a run.
        same: more that the runs of a group agree on.

    Returns:
        None: no group has two values of the factor.
    """
    keys = [*(name for name in FACTORS if name != factor), *same]
    x_parts, y_parts = [], []
    for group in grouped(runs, keys).values():
        x_R = np.log2([run[factor] for run in group])
        if np.ptp(x_R) == 0:
            continue
        y_R = np.array([score(run) for run in group])
        x_parts.append(x_R - x_R.mean())
        y_parts.append(y_R - y_R.mean())
    if not x_parts:
        return None
    x_R, y_R = np.concatenate(x_parts), np.concatenate(y_parts)
    slope = float(x_R @ y_R / (x_R @ x_R))
    freedom = len(x_R) - len(x_parts) - 1
    if freedom < 1:
        return Effect(slope, math.nan, 0, len(x_R))
    residuals_R = y_R - slope * x_R
    error = math.sqrt(float(residuals_R @ residuals_R) / freedom / float(x_R @ x_R))
    return Effect(slope, error, freedom, len(x_R))
