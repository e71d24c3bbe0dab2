"""What the runs of a plan say: laws with intervals, a forecast that is checked, what to buy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clue_jax.errors import DataError
from clue_jax.evaluation.bootstrap import percentile_interval
from clue_jax.scaling import fit as fitting
from clue_jax.scaling.fit import Fit, Forecast, Points, fit, forecast, frontier
from clue_jax.scaling.forms import (
    INTERACTIONS,
    OF_COMPUTE,
    SIZE_AND_SAMPLES,
    SIZE_AND_USERS,
    Form,
)
from clue_jax.scaling.measure import PF_DAY

Result = dict[str, Any]
FACTORS = ("size", "users", "behaviours", "batch", "steps")
_LEARNT = 0.99  # of the loss of chance; random vectors come as near
COLUMNS = ("compute", "parameters", "users", "samples", "behaviours", "batch")
# What a form's factors are made of: runs that are compared agree on all other factors.
_MADE_OF = {"parameters": {"size"}, "samples": {"steps"}, "compute": set(FACTORS)}


@dataclass(frozen=True)
class Analysis:
    """Everything that was concluded.

    Attributes:
        kept: runs that count, of each experiment those with the best learning rate and temperature.
        excluded: run -> why it does not count.
        on_frontier: [R] of `kept`, those that nothing cheaper beats.
        fits: laws that the runs say something about.
        refused: form -> why nothing was fitted.
        forecast: of the largest budget by laws of compute that did not see it; None: too few runs.
        downstream: correlation of log loss and MRR, with its interval; None: too few runs.
        per_sample: FLOPs of training for each parameter and sample, median over runs.
    """

    kept: list[Result]
    excluded: dict[str, str]
    on_frontier: np.ndarray
    fits: dict[str, Fit]
    refused: dict[str, str]
    forecast: Forecast | None
    downstream: tuple[float, float, float] | None
    per_sample: float


def analyse(results: Sequence[Result], resamples: int, seed: int) -> Analysis:
    """Concludes from results of `measured`.

    Raises:
        DataError: no run can be used.
    """
    sound, excluded = _sound(results)
    kept, untuned = _tuned(sound)
    excluded |= untuned
    if not kept:
        raise DataError(f"no run of {len(results)} can be used: {'; '.join(excluded.values())}")
    points = points_of(kept)
    on_frontier = frontier(points)
    fits: dict[str, Fit] = {}
    refused: dict[str, str] = {}
    at_best = points.take(on_frontier)
    for form in (*OF_COMPUTE, SIZE_AND_SAMPLES, SIZE_AND_USERS, INTERACTIONS):
        try:
            some = at_best if form in OF_COMPUTE else _comparable(kept, form)
            fits[form.name] = fit(form, some, resamples, seed)
        except DataError as error:
            refused[form.name] = str(error)
    told = None
    try:
        told = forecast(OF_COMPUTE, at_best)
    except DataError as error:
        refused["forecast"] = str(error)
    product = points.columns["parameters"] * points.columns["samples"]
    return Analysis(
        kept,
        excluded,
        on_frontier,
        fits,
        refused,
        told,
        _downstream(kept, resamples, seed),
        float(np.median(points.columns["compute"] * PF_DAY / product)),
    )


def points_of(results: Iterable[Result]) -> Points:
    """Runs as a law sees them."""
    rows = [{**run, "samples": run["steps"] * run["batch"]} for run in results]
    columns = {name: np.array([row[name] for row in rows], float) for name in COLUMNS}
    losses = np.array([row["loss"] for row in rows], float)
    return Points(losses, columns, np.array([row["cell"] for row in rows]))


@dataclass(frozen=True)
class Allocation:
    """How a budget is spent best."""

    compute: float  # PF-days
    parameters: float
    samples: float
    loss: float


def allocation(law: Fit, per_sample: float, compute: float) -> Allocation:
    """Size and samples with the least loss for a budget, by the law of both.

    With C = k N D the least of floor + a N^-alpha + b D^-beta is where alpha a N^-alpha =
    beta b D^-beta (arXiv 2203.15556, equation 4).

    Args:
        law: of `SIZE_AND_SAMPLES`.
        per_sample: k, FLOPs for each parameter and sample.
        compute: C in PF-days.
    """
    _, log_a, alpha, log_b, beta = law.theta_P
    product = compute * PF_DAY / per_sample  # N D
    log_size = (math.log(alpha / beta) + log_a - log_b + beta * math.log(product)) / (alpha + beta)
    size = math.exp(log_size)
    columns = {"parameters": np.array([size]), "samples": np.array([product / size])}
    return Allocation(compute, size, product / size, float(law(columns)[0]))


def _sound(results: Sequence[Result]) -> tuple[list[Result], dict[str, str]]:
    sound, excluded = [], {}
    for run in results:
        if "failed" in run:
            excluded[run["run"]] = run["failed"]
        elif run["loss_best_scale"] > _LEARNT * run["chance"]:
            # With its own temperature a run that has learnt may still be worse than a coin.
            excluded[run["run"]] = (
                f"loss {run['loss_best_scale']:.3f} with the best temperature, chance"
                f" {run['chance']:.3f}: it learnt nothing"
            )
        else:
            sound.append(run)
    return sound, excluded


def _tuned(runs: Sequence[Result]) -> tuple[list[Result], dict[str, str]]:
    """Of runs that differ in learning rate or temperature alone, those of the best cell."""
    experiments: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    for run in runs:
        key = tuple(run[factor] for factor in FACTORS)
        experiments.setdefault(key, defaultdict(list))[run["cell"]].append(run)
    kept, excluded = [], {}
    for cells in experiments.values():
        means = {cell: np.mean([run["loss"] for run in own]) for cell, own in cells.items()}
        best = min((float(mean), cell) for cell, mean in means.items())[1]
        kept += cells[best]
        for cell in cells.keys() - {best}:
            for run in cells[cell]:
                excluded[run["run"]] = f"another learning rate or temperature is better: {best}"
    return kept, excluded


def _comparable(runs: Sequence[Result], form: Form) -> Points:
    """Most runs that agree on the factors that the form does not speak of."""
    own = set[str]().union(*(_MADE_OF.get(factor, {factor}) for factor in form.factors))
    others = [factor for factor in FACTORS if factor not in own]
    groups: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for run in runs:
        groups[tuple(run[factor] for factor in others)].append(run)
    problems = []
    for group in sorted(groups.values(), key=len, reverse=True):
        points = points_of(group)
        try:
            fitting.check(form, points)
        except DataError as error:
            problems.append(error)
            continue
        return points
    raise problems[0]


def _downstream(
    runs: Sequence[Result], resamples: int, seed: int
) -> tuple[float, float, float] | None:
    cells = sorted({run["cell"] for run in runs})
    if len(cells) < 4:
        return None
    means = np.array(
        [
            np.mean([(math.log(r["loss"]), r["mrr"]) for r in runs if r["cell"] == cell], axis=0)
            for cell in cells
        ]
    )
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        some = means[rng.integers(len(means), size=len(means))]
        if len(np.unique(some[:, 0])) > 2:
            drawn.append(np.corrcoef(some.T)[0, 1])
    low, high = percentile_interval(np.array(drawn))
    return float(np.corrcoef(means.T)[0, 1]), float(low), float(high)
