"""How a budget is spent: the least loss of all that cost as much, by either law."""

import math

import numpy as np
import pytest

from clue_jax.scaling.fit import Fit
from clue_jax.scaling.forms import EVERYTHING, SIZE_AND_SAMPLES
from clue_jax.scaling.results import PF_DAY
from clue_jax.scaling.spending import allocation, tried
from tests.scaling.planted import grid

THETA = (math.log(0.3), math.log(30), 0.4, math.log(40), 0.35)
RUNS = [{**run, "samples": run["steps"] * run["batch"]} for run in grid()]


def law_of(form, theta, resampled=()):
    resampled_KP = np.array(resampled).reshape(len(resampled), len(theta))
    return Fit(form, np.array(theta), resampled_KP, 0.0, 1.0)


def test_size_and_samples_are_those_of_the_closed_form():
    # arXiv 2203.15556, equation 4, where alpha a N^-alpha = beta b D^-beta.
    law, study, compute = law_of(SIZE_AND_SAMPLES, THETA), tried(RUNS), 1e-6
    best = allocation(law, study, compute)
    product = compute * PF_DAY / 60
    assert best.parameters * best.samples == pytest.approx(product)
    size = math.exp(
        (math.log(0.4 / 0.35) + math.log(30) - math.log(40) + 0.35 * math.log(product)) / 0.75
    )
    assert best.parameters == pytest.approx(size, rel=0.1)  # a grid of sizes
    assert best.loss == pytest.approx(
        0.3 + 30 * size**-0.4 + 40 * (product / size) ** -0.35, rel=1e-3
    )
    assert (best.behaviours, best.batch, best.users) == (32, 256, 5_000)
    assert np.isnan(best.parameters_low)


def test_an_interval_is_that_of_the_resamples_and_what_was_not_tried_is_said():
    around = [(*THETA[:2], alpha, *THETA[3:]) for alpha in (0.3, 0.4, 0.5)]
    law = law_of(SIZE_AND_SAMPLES, THETA, resampled=around)
    best = allocation(law, tried(RUNS), 1e-7)
    assert best.parameters_low <= best.parameters <= best.parameters_high
    assert best.parameters_low < best.parameters_high
    assert best.within
    assert not allocation(law, tried(RUNS), 1.0).within


@pytest.mark.parametrize(("delta", "length"), [(0.5, 8), (1.5, 64)])
def test_length_pays_where_it_is_worth_more_than_it_costs(delta, length):
    theta = (*THETA, math.log(100.0), delta, math.log(2.0), 0.4)
    runs = [
        {**run, "behaviours": t, "batch": b} for run in RUNS for t in (8, 64) for b in (32, 512)
    ]
    best = allocation(law_of(EVERYTHING, theta), tried(runs), 1e-6, users=1e4)
    assert best.behaviours == length and best.users == 1e4
    # A tenth more than the 1 + 32 / 100 of the smallest batch.
    assert 1 + best.batch / 100 == pytest.approx(1.1 * (1 + 32 / 100))
