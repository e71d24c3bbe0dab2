"""Laws that did not see the largest budget, tried on it; and which of them to trust beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clue_jax.errors import DataError
from clue_jax.scaling.fit import fit
from clue_jax.scaling.forms import OF_COMPUTE, SIZE_AND_SAMPLES, SIZE_AND_SAMPLES_FROM_CHANCE
from clue_jax.scaling.results import Result
from clue_jax.scaling.selection import comparable, on_frontier, points_of

# Of one budget: steps are whole, and data of seeds differ a little.
_SAME_BUDGET = 0.8


@dataclass(frozen=True)
class Forecast:
    """What laws that saw all but the largest budget say of its best runs.

    Attributes:
        compute: PF-days of the best runs of the largest budget, [H].
        losses: measured, [H].
        said: law -> losses [H].
        seen: runs below the largest budget.
        refused: law -> why it says nothing.
    """

    compute: np.ndarray
    losses: np.ndarray
    said: dict[str, np.ndarray] = field(default_factory=dict)
    seen: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> dict[str, float]:
        """Law -> mean of |log(said / measured)|."""
        return {
            name: float(np.abs(np.log(losses / self.losses)).mean())
            for name, losses in self.said.items()
        }


@dataclass(frozen=True)
class Checked:
    """A forecast of the largest budget by the law that was best on the budget before it.

    Attributes:
        largest: what every law says of the largest budget.
        before: the same of the largest that is left without it; None: too few runs.
        law: the best one of `before`, of those that say something of the largest; without
            `before`, none.
    """

    largest: Forecast
    before: Forecast | None
    law: str | None


def checked_forecast(runs: Sequence[Result]) -> Checked:
    """Forecasts the largest budget, with a law that is chosen without looking at it.

    Raises:
        DataError: no law can be fitted to the smaller budgets.
    """
    largest = _forecast(runs)
    smaller = _below(runs)
    try:
        before = _forecast(smaller)
    except DataError:
        return Checked(largest, None, None)
    errors = {name: error for name, error in before.errors.items() if name in largest.said}
    return Checked(largest, before, min(errors, key=errors.__getitem__, default=None))


def _forecast(runs: Sequence[Result]) -> Forecast:
    seen = _below(runs)
    if not seen:
        raise DataError("all runs are of one budget: nothing smaller forecasts it")
    best = on_frontier(runs)
    limit = _SAME_BUDGET * max(run["compute"] for run in runs)
    held = points_of(run for run in best if run["compute"] >= limit)
    if not len(held):
        raise DataError("no run of the largest budget is better than all cheaper ones")
    told = Forecast(held.columns["compute"], held.losses, seen=len(seen))
    for form in (*OF_COMPUTE, SIZE_AND_SAMPLES, SIZE_AND_SAMPLES_FROM_CHANCE):
        try:
            own = on_frontier(seen) if form in OF_COMPUTE else comparable(seen, form)
            told.said[form.name] = fit(form, points_of(own))(held.columns)
        except DataError as error:
            told.refused[form.name] = str(error)
    if not told.said:
        raise DataError(next(iter(told.refused.values())))
    return told


def _below(runs: Sequence[Result]) -> list[Result]:
    limit = _SAME_BUDGET * max(run["compute"] for run in runs)
    return [run for run in runs if run["compute"] < limit]
