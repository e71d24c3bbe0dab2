"""From results of runs to conclusions: who counts, which law, how a budget is spent."""

import itertools
import math

import numpy as np
import pytest

from clue_jax.errors import DataError
from clue_jax.scaling.analysis import allocation, analyse
from clue_jax.scaling.fit import Fit
from clue_jax.scaling.forms import SIZE_AND_SAMPLES, SIZE_AND_USERS
from clue_jax.scaling.measure import PF_DAY
from clue_jax.scaling.study import conclusions_of
from clue_jax.scaling.words import report_text

PARAMETERS = {"16x1": 4e3, "64x2": 6e4, "256x2": 1e6}


def result(size, steps, seed=0, loss=None, **changes):
    """As `measured` gives it, of runs that follow a law of size and samples."""
    samples = steps * 256
    law = 0.3 + 30 * PARAMETERS[size] ** -0.4 + 40 * samples**-0.35
    noise = np.random.default_rng([len(size), steps, seed]).normal() * 0.005
    run = {
        "cell": f"{size}-{steps}",
        "run": f"{size}-{steps}-{seed}",
        "size": size,
        "users": 5_000,
        "behaviours": 32,
        "batch": 256,
        "steps": steps,
        "learning_rate": 1e-3,
        "seed": seed,
        "parameters": PARAMETERS[size],
        "compute": 60 * PARAMETERS[size] * samples / PF_DAY,
        "loss": law * math.exp(noise) if loss is None else loss,
        "loss_own": law,
        "loss_best_scale": law if loss is None else loss,
        "chance": math.log(64),
        "mrr": math.exp(-law),
    }
    return run | changes


RUNS = [
    result(size, steps, seed)
    for size, steps, seed in itertools.product(PARAMETERS, (100, 400, 1_600, 6_400), (0, 1))
]


def test_conclusions_of_a_sound_study():
    found = analyse(RUNS, resamples=30, seed=0)
    assert len(found.kept) == 24 and not found.excluded
    assert found.per_sample == pytest.approx(60)
    law = found.fits[SIZE_AND_SAMPLES.name].coefficients()
    assert law["alpha"][0] == pytest.approx(0.4, abs=0.08)
    assert law["beta"][0] == pytest.approx(0.35, abs=0.08)
    # A factor that never varies.
    assert "users is 5000 in every run" in found.refused[SIZE_AND_USERS.name]
    assert found.downstream[0] < -0.95
    assert found.forecast.seen > 0 and min(found.forecast.errors.values()) < 0.1
    frontier = [run["run"] for run, on in zip(found.kept, found.on_frontier, strict=True) if on]
    assert "16x1-100-0" in frontier and "256x2-100-0" not in frontier
    told = conclusions_of(found)
    text = report_text(told, RUNS, 30)
    assert "24 of 30 runs have ended" in text and "below the paper's range" in text
    assert len(told["allocation"]) == 3


def test_who_does_not_count_is_named():
    diverged = result("16x1", 50, loss=9.0)
    failed = {k: v for k, v in result("16x1", 25).items() if k not in ("loss", "compute", "mrr")}
    failed |= {"failed": "exit code 6: too many"}
    worse = result("64x2", 400, loss=3.0, cell="64x2-400-fast", run="fast")
    found = analyse([*RUNS, diverged, failed, worse], resamples=0, seed=0)
    assert found.excluded == {
        "16x1-50-0": "loss 9.000 with the best temperature, chance 4.159: it learnt nothing",
        "16x1-25-0": "exit code 6: too many",
        "fast": "another learning rate or temperature is better: 64x2-400",
    }
    assert [run["run"] for run in found.kept] == [run["run"] for run in RUNS]
    with pytest.raises(DataError, match="no run of 2 can be used: loss 9"):
        analyse([diverged, failed], resamples=0, seed=0)


def test_an_allocation_is_the_best_of_all_that_cost_as_much():
    theta = np.array([math.log(0.3), math.log(30), 0.4, math.log(40), 0.35])
    law = Fit(SIZE_AND_SAMPLES, theta, np.zeros((0, 5)), 0.0, 1.0)
    best = allocation(law, 60.0, 1e-6)
    assert 60 * best.parameters * best.samples == pytest.approx(1e-6 * PF_DAY)
    sizes = best.parameters * np.geomspace(0.1, 10, 101)
    samples = 1e-6 * PF_DAY / 60 / sizes
    others = law({"parameters": sizes, "samples": samples})
    assert best.loss == pytest.approx(others.min()) and others.argmin() == 50
