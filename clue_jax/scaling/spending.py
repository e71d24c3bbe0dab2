"""How a budget is spent best, by the laws of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clue_jax.evaluation.bootstrap import percentile_interval
from clue_jax.scaling.fit import Fit
from clue_jax.scaling.forms import EVERYTHING, Columns
from clue_jax.scaling.results import PF_DAY, Result

_SIZES = 241  # tried for each budget
_WASTE = 1.1  # samples that a batch may need, times those of the smallest batch that was tried


@dataclass(frozen=True)
class Allocation:
    """How a budget is spent best."""

    compute: float  # PF-days
    parameters: float
    parameters_low: float  # 95 % interval over resamples of the runs; NaN of none
    parameters_high: float
    samples: float
    behaviours: float  # per service
    batch: float  # the largest that costs at most a tenth more samples than the smallest tried
    users: float  # training users
    loss: float
    within: bool  # whether size and samples lie within what was tried


@dataclass(frozen=True)
class Tried:
    """What a study's runs were like.

    Attributes:
        runs: that the law was fitted to.
        per_unit: FLOPs for each parameter, sample and behaviour of a service, median over runs.
    """

    runs: Sequence[Result]
    per_unit: float

    def range_of(self, factor: str) -> tuple[float, float]:
        values = [float(run[factor]) for run in self.runs]
        return min(values), max(values)


def tried(runs: Sequence[Result]) -> Tried:
    """The runs of a law, and what they cost."""
    cost = [
        run["compute"] * PF_DAY / (run["parameters"] * run["samples"] * run["behaviours"])
        for run in runs
    ]
    return Tried(runs, float(np.median(cost)))


def allocation(law: Fit, study: Tried, compute: float, users: float | None = None) -> Allocation:
    """The size, samples, length and batch with the least loss for a budget, by a law.

    Compute is taken as k N D T. Sizes far beyond those tried are looked at, as a larger budget
    asks for them; lengths are those tried alone, since what a law of them says elsewhere is free.

    Args:
        law: of `SIZE_AND_SAMPLES`, `SIZE_AND_SAMPLES_FROM_CHANCE` or `EVERYTHING`.
        study: what was tried.
        compute: C in PF-days.
        users: training users there are; None: the most that were tried.
    """
    smallest, _ = study.range_of("parameters")
    product = compute * PF_DAY / study.per_unit
    size_Z = np.geomspace(smallest / 10, max(1e4 * smallest, product**0.75), _SIZES)
    lengths = sorted({float(run["behaviours"]) for run in study.runs})
    if law.form is not EVERYTHING:
        lengths = [float(np.median([run["behaviours"] for run in study.runs]))]
    chance = float(study.runs[0]["chance"])
    least_batch, most_users = study.range_of("batch")[0], study.range_of("users")[1]
    users = most_users if users is None else users
    grid = {
        "parameters": np.tile(size_Z, len(lengths)),
        "behaviours": np.repeat(lengths, _SIZES),
        "batch": np.full(_SIZES * len(lengths), least_batch),
        "users": np.full(_SIZES * len(lengths), users),
        "chance": np.full(_SIZES * len(lengths), chance),
    }
    grid["samples"] = product / grid["parameters"] / grid["behaviours"]
    losses = law(grid)
    best = int(losses.argmin())
    drawn = [_best_size(law, theta, grid) for theta in law.resampled_KP]
    low, high = percentile_interval(np.array(drawn))
    chosen = {name: float(values[best]) for name, values in grid.items()}
    return Allocation(
        compute=compute,
        parameters=chosen["parameters"],
        parameters_low=float(low),
        parameters_high=float(high),
        samples=chosen["samples"],
        behaviours=chosen["behaviours"],
        batch=_most_batch(law, study),
        users=users,
        loss=float(losses[best]),
        within=all(
            low <= chosen[name] <= high
            for name in ("parameters", "samples")
            for low, high in (study.range_of(name),)
        ),
    )


def _best_size(law: Fit, theta_P: np.ndarray, grid: Columns) -> float:
    return float(grid["parameters"][law.form.predict(theta_P, grid).argmin()])


def _most_batch(law: Fit, study: Tried) -> float:
    """What (1 + B / critical) may grow by a tenth over its least, within what was tried."""
    least, most = study.range_of("batch")
    if law.form is not EVERYTHING:
        return float(np.median([run["batch"] for run in study.runs]))
    critical = float(np.exp(law.theta_P[law.form.coefficients.index("log_critical")]))
    return float(np.clip(critical * (_WASTE * (1.0 + least / critical) - 1.0), least, most))
