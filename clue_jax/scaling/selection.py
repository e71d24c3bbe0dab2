"""Which runs of a study count, and which of them may be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from clue_jax.errors import DataError
from clue_jax.scaling.fit import Points, check, frontier
from clue_jax.scaling.forms import Form
from clue_jax.scaling.results import Result

# What two runs must agree on, but for what is asked about, to be compared.
FACTORS = ("size", "users", "behaviours", "batch", "samples")
COLUMNS = ("compute", "parameters", "users", "samples", "behaviours", "batch", "chance")
# What a form's factors are made of.
_MADE_OF = {"parameters": {"size"}, "compute": set(FACTORS)}
_LEARNT = 0.99  # of the loss of chance; random vectors come as near


def sound_runs(results: Sequence[Result], calibrated: bool) -> tuple[list[Result], dict[str, str]]:
    """Runs that learnt something, and for the others why they do not count.

    Args:
        results: of runs, failed ones too.
        calibrated: whether the loss is that of the best temperature, not of the learned one.

    Returns:
        Runs with their `samples` and with the `loss` that laws are about; run -> reason.
    """
    sound: list[Result] = []
    excluded: dict[str, str] = {}
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
            loss = run["loss_best_scale" if calibrated else "loss"]
            sound.append({**run, "samples": run["steps"] * run["batch"], "loss": loss})
    return sound, excluded


def tuned_runs(runs: Sequence[Result]) -> tuple[list[Result], dict[str, str]]:
    """Of runs that differ in learning rate or temperature alone, those of the best cell."""
    kept: list[Result] = []
    excluded: dict[str, str] = {}
    for own in grouped(runs, FACTORS).values():
        cells = grouped(own, ("cell",))
        means = {cell: np.mean([run["loss"] for run in same]) for (cell,), same in cells.items()}
        best = min((float(mean), cell) for cell, mean in means.items())[1]
        kept += cells[(best,)]
        for run in own:
            if run["cell"] != best:
                excluded[run["run"]] = f"another learning rate or temperature is better: {best}"
    return kept, excluded


def grouped(runs: Iterable[Result], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Result]]:
    """Runs by their values of some keys."""
    groups: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for run in runs:
        groups[tuple(run[key] for key in keys)].append(run)
    return dict(groups)


def of_one_protocol(runs: Sequence[Result]) -> list[Result]:
    """Most runs that agree on users, behaviours and batch, so that compute alone tells them apart.

    Elsewhere a smaller batch may learn more for its compute, but nobody tried it with the largest
    budgets: a frontier over all of them would bend where the trying ends.
    """
    return max(grouped(runs, ("users", "behaviours", "batch")).values(), key=len)


def on_frontier(runs: Sequence[Result]) -> list[Result]:
    """Runs that nothing of about their compute or less beats."""
    on_R = frontier(points_of(runs))
    return [run for run, on in zip(runs, on_R, strict=True) if on]


def points_of(runs: Iterable[Mapping[str, Any]]) -> Points:
    """Runs as a law sees them."""
    rows = list(runs)
    columns = {name: np.array([row[name] for row in rows], float) for name in COLUMNS}
    losses = np.array([row["loss"] for row in rows], float)
    return Points(losses, columns, np.array([row["cell"] for row in rows]))


def comparable(runs: Sequence[Result], form: Form) -> list[Result]:
    """Most runs that agree on the factors that the form does not speak of, and that it fits.

    Raises:
        DataError: there are none; says what the largest group lacks.
    """
    own = set[str]().union(*(_MADE_OF.get(factor, {factor}) for factor in form.factors))
    groups = grouped(runs, [factor for factor in FACTORS if factor not in own])
    problems = []
    for group in sorted(groups.values(), key=len, reverse=True):
        try:
            check(form, points_of(group))
        except DataError as error:
            problems.append(error)
            continue
        return group
    raise problems[0]
