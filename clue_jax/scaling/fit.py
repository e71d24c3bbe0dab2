"""Fits laws to the losses of runs, with intervals over runs and seeds.

Residuals are those of log losses under a Huber loss, from many starts, as Hoffmann et al. fit
theirs (arXiv 2203.15556, section 3.3).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from clue_jax.errors import DataError
from clue_jax.evaluation.bootstrap import percentile_interval
from clue_jax.scaling.forms import Columns, Form

HUBER = 0.03  # log losses further off count by their distance, not its square; seeds differ so much
_FEW_STEPS, _ENDED = 30, 6  # of a search from each start, and searches that are then ended
_ABOUT = 1.3  # times as much compute is about the same
_MOST = 700.0  # logarithm of what a float holds


@dataclass(frozen=True)
class Points:
    """Runs that a law is fitted to; those of one cell differ in their seed alone.

    Attributes:
        losses: [R], positive.
        columns: factor -> [R], positive.
        cells: [R] names.
    """

    losses: np.ndarray
    columns: Columns
    cells: np.ndarray

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, rows: np.ndarray) -> Points:
        """Some of the runs: their numbers, perhaps repeated, or a mask."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Points(self.losses[rows], columns, self.cells[rows])


@dataclass(frozen=True)
class Fit:
    """A law with its coefficients.

    Attributes:
        form: of the law.
        theta_P: its coefficients.
        resampled_KP: those on resamples of the runs; K is 0 where none were asked for.
        error: root mean square of the log losses' residuals.
        r2: share of the variance of log losses that it explains.
    """

    form: Form
    theta_P: np.ndarray
    resampled_KP: np.ndarray
    error: float
    r2: float

    def __call__(self, columns: Columns) -> np.ndarray:
        """Losses [R] that the law gives."""
        return self.form.predict(self.theta_P, columns)

    def interval(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Of these losses over the resamples: low and high, each [R]."""
        drawn_KR = np.array([self.form.predict(theta, columns) for theta in self.resampled_KP])
        return percentile_interval(drawn_KR)

    def coefficients(self) -> dict[str, tuple[float, float, float]]:
        """Name, as the law has it -> value, low, high; those kept as logarithms without them."""
        low_P, high_P = percentile_interval(self.resampled_KP)
        found = {}
        for name, *values in zip(self.form.coefficients, self.theta_P, low_P, high_P, strict=True):
            if name.startswith("log_"):
                values = [math.exp(min(value, _MOST)) for value in values]
            value, low, high = map(float, values)
            found[name.removeprefix("log_")] = (value, low, high)
        return found


def fit(form: Form, points: Points, resamples: int = 0, seed: int = 0) -> Fit:
    """Fits a law.

    Args:
        form: of it.
        points: runs.
        resamples: K, each of the cells with replacement, and of the seeds within each.
        seed: of the draws.

    Raises:
        DataError: too few cells, a factor that never varies, or a loss or factor that is not a
            positive number; names it.
    """
    check(form, points)
    starts_KP = form.starts(points.losses, points.columns)
    theta_P = _best(form, points, starts_KP)
    rng, resampled = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = points.take(_resample(points.cells, rng))
        if not _varies(form, drawn):
            continue
        # What fits all is near what fits some; the other starts are for the odd one.
        near_KP = np.concatenate([theta_P[None], form.starts(drawn.losses, drawn.columns)[:2]])
        resampled.append(_best(form, drawn, near_KP))
    residuals_R = _residuals(theta_P, form, points)
    spread_R = np.log(points.losses) - np.log(points.losses).mean()
    return Fit(
        form,
        theta_P,
        np.array(resampled).reshape(len(resampled), len(theta_P)),
        float(np.sqrt(np.mean(residuals_R**2))),
        float(1.0 - (residuals_R**2).sum() / (spread_R**2).sum()),
    )


def check(form: Form, points: Points) -> None:
    """Refuses points that say nothing about a form.

    Raises:
        DataError: see `fit`.
    """
    for name, values_R in (("loss", points.losses), *points.columns.items()):
        if not (np.isfinite(values_R) & (values_R > 0)).all():
            row = int(np.argmin(np.isfinite(values_R) & (values_R > 0)))
            raise DataError(
                f"run {points.cells[row]}: {name} is {values_R[row]}, not a positive number;"
                " leave the run out"
            )
    if not len(points):
        raise DataError(f"{form.name}: no run is left to fit {form.law} to")
    for factor in form.factors:
        values = np.unique(points.columns[factor])
        if len(values) < 2:
            raise DataError(
                f"{form.name}: {factor} is {values[0]:g} in every run, so its effect is unknown:"
                f" plan {form.values} values of it or more, or leave this form out"
            )
        if len(values) < form.values:
            raise DataError(
                f"{form.name}: {factor} has {len(values)} values, {values[0]:g} and"
                f" {values[-1]:g}, and {form.law} needs {form.values} of it: plan another"
            )
    cells, needed = len(np.unique(points.cells)), len(form.coefficients) + 1
    if cells < needed:
        raise DataError(
            f"{form.name}: {cells} different runs, but {form.law} has"
            f" {len(form.coefficients)} coefficients: plan {needed} or more"
        )


def frontier(points: Points) -> np.ndarray:
    """[R] whether no run of about the same compute or less has a lower loss (means over seeds).

    A run that is a little cheaper than a much better one is not the best of a budget, only the
    dearest below the next.
    """
    _, of_R = np.unique(points.cells, return_inverse=True)
    counts_C = np.bincount(of_R)
    loss_C = np.bincount(of_R, points.losses) / counts_C
    compute_C = np.bincount(of_R, points.columns["compute"]) / counts_C
    rivals_CC = compute_C[None, :] <= _ABOUT * compute_C[:, None]
    best_C = np.where(rivals_CC, loss_C[None, :], np.inf).min(axis=1)
    on_R: np.ndarray = (loss_C <= best_C)[of_R]
    return on_R


def _best(form: Form, points: Points, starts_KP: np.ndarray) -> np.ndarray:
    """The least of all searches; those that have got furthest after a few steps are ended."""
    begun = [_searched(form, points, start_P, _FEW_STEPS) for start_P in starts_KP]
    begun.sort(key=lambda pair: pair[0])
    ended = [_searched(form, points, theta_P, None) for _, theta_P in begun[:_ENDED]]
    return min(ended, key=lambda pair: pair[0])[1]


def _searched(
    form: Form, points: Points, start_P: np.ndarray, steps: int | None
) -> tuple[float, np.ndarray]:
    """Cost and coefficients of a search from a start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a start that leads nowhere
        solved = least_squares(
            _residuals,
            start_P,
            loss="huber",
            f_scale=HUBER,
            args=(form, points),
            x_scale="jac",
            max_nfev=steps,
        )
    return float(np.nan_to_num(solved.cost, nan=np.inf)), solved.x


def _residuals(theta_P: np.ndarray, form: Form, points: Points) -> np.ndarray:
    said_R = np.maximum(form.predict(theta_P, points.columns), 1e-30)
    return np.log(said_R) - np.log(points.losses)


def _resample(cells_R: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    names = np.unique(cells_R)
    rows = []
    for name in rng.choice(names, len(names)):
        own = np.flatnonzero(cells_R == name)
        rows.append(rng.choice(own, len(own)))
    return np.concatenate(rows)


def _varies(form: Form, points: Points) -> bool:
    try:
        check(form, points)
    except DataError:
        return False
    return True
