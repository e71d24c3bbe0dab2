"""The largest budget is held out, and which law to trust is settled without it."""

import numpy as np
import pytest

from clue_jax.errors import DataError
from clue_jax.scaling.forecasts import checked_forecast
from clue_jax.scaling.forms import (
    FROM_CHANCE,
    LOG_LINEAR,
    OF_COMPUTE,
    POWER_LAW,
    POWER_LAW_WITH_FLOOR,
)
from clue_jax.scaling.selection import sound_runs
from tests.scaling.planted import grid, result

LAWS = {
    POWER_LAW: (-1.0, 0.25),
    POWER_LAW_WITH_FLOOR: (-4.0, 0.35, np.log(0.4)),
    LOG_LINEAR: (-1.5, 1.4),
    FROM_CHANCE: (-2.0, 0.35, np.log(0.4)),
}
CHANCE = 40.0


def runs_of(form, noise=0.01):
    """One run for each of twelve budgets, and one for each that wastes it."""
    rng, runs = np.random.default_rng(0), []
    for number, compute in enumerate(np.geomspace(1e-7, 1e-4, 12)):
        loss = form.predict(
            np.array(LAWS[form]), {"compute": np.array([compute]), "chance": CHANCE}
        )[0]
        for name, times in (("best", 1.0), ("waste", 1.3)):
            one = result("64x2", 100 + number, loss=times * loss * np.exp(noise * rng.normal()))
            cell = f"{name}-{number}"
            runs.append(one | {"compute": compute, "chance": CHANCE, "cell": cell, "run": cell})
    return sound_runs(runs, calibrated=False)[0]


@pytest.mark.parametrize("form", OF_COMPUTE, ids=lambda form: form.name)
def test_the_law_that_was_planted_is_chosen_and_forecasts_another_shape_does_not(form):
    told = checked_forecast(runs_of(form))
    assert told.largest.errors[form.name] < 0.04
    # A power law is one with a floor of nothing; a line in the logarithm is neither.
    wrong = POWER_LAW if form is LOG_LINEAR else LOG_LINEAR
    assert told.largest.errors[wrong.name] > told.largest.errors[form.name]
    assert told.law != wrong.name
    # Only the best runs of the largest budget are told, and no run of it was seen.
    assert told.largest.compute == pytest.approx([1e-4])
    assert told.largest.seen == 22 and told.before.seen == 20


def test_runs_of_the_largest_budget_do_not_change_what_is_said_of_it():
    runs = runs_of(POWER_LAW)
    other = [{**run, "loss": 0.7 * run["loss"]} if run["compute"] > 9e-5 else run for run in runs]
    said, with_other = (checked_forecast(some).largest for some in (runs, other))
    for name, losses in said.said.items():
        assert with_other.said[name] == pytest.approx(losses)
    assert with_other.losses == pytest.approx(0.7 * said.losses)


def test_too_few_budgets_say_nothing():
    runs = sound_runs(grid(steps=(100,), seeds=(0,)), calibrated=False)[0]
    with pytest.raises(DataError, match="different runs, but|in every run"):
        checked_forecast(runs)
