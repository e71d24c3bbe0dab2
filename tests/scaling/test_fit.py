"""Laws that were planted are found again, within their intervals; what says nothing is refused."""

import numpy as np
import pytest

from clue_jax.errors import DataError
from clue_jax.scaling.fit import Points, fit, frontier
from clue_jax.scaling.forms import (
    CRITICAL_BATCH,
    EVERYTHING,
    FROM_CHANCE,
    INTERACTIONS,
    LOG_LINEAR,
    POWER_LAW,
    POWER_LAW_WITH_FLOOR,
    SIZE_AND_SAMPLES,
    SIZE_AND_SAMPLES_FROM_CHANCE,
    SIZE_AND_USERS,
)

NOISE = 0.01  # of log losses, between seeds


def planted(form, theta, seed=0, seeds=2, noise=NOISE):
    """Runs whose losses follow a law, over three orders of magnitude of compute."""
    rng = np.random.default_rng(seed)
    cells = [
        (size, users, samples, behaviours, batch)
        for size in (1e5, 4e5, 1.6e6, 6.4e6)
        for users in (1e3, 8e3, 6.4e4)
        for samples in (1e5, 8e5, 6.4e6)
        for behaviours in (4, 16, 64)
        for batch in (64, 256, 1024)
    ]
    rows = np.repeat(np.array(cells), seeds, axis=0)
    size, users, samples, behaviours, batch = rows.T
    columns = {
        "compute": 6 * size * samples * behaviours / (1e15 * 86_400),
        "parameters": size,
        "users": users,
        "samples": samples,
        "behaviours": behaviours,
        "batch": batch,
        "chance": np.full(len(rows), 30.0),
    }
    losses = form.predict(np.array(theta), columns)
    names = np.array(["-".join(f"{v:g}" for v in row) for row in rows])
    return Points(losses * np.exp(noise * rng.normal(size=len(losses))), columns, names)


LAWS = {
    POWER_LAW: (-1.0, 0.25),
    POWER_LAW_WITH_FLOOR: (-4.0, 0.35, np.log(0.4)),
    LOG_LINEAR: (-1.5, 1.4),
    SIZE_AND_USERS: (np.log(0.3), 3.0, 0.3, 2.5, 0.4),
    SIZE_AND_SAMPLES: (np.log(0.3), 3.0, 0.3, 3.5, 0.4),
    FROM_CHANCE: (-4.0, 0.35, np.log(0.4)),
    SIZE_AND_SAMPLES_FROM_CHANCE: (np.log(0.3), 3.0, 0.3, 3.5, 0.4),
    CRITICAL_BATCH: (np.log(0.3), 4.0, 0.4, np.log(200)),
    EVERYTHING: (np.log(0.3), 3.0, 0.3, 3.5, 0.4, np.log(200), 0.5, 2.0, 0.4),
    INTERACTIONS: (0.5, -0.1, -0.05, -0.02, -0.015, 0.004),
}


@pytest.mark.parametrize("form", LAWS, ids=lambda form: form.name)
def test_planted_coefficients_lie_in_their_intervals(form):
    found = fit(form, planted(form, LAWS[form]), resamples=40)
    truths = [
        np.exp(truth) if name.startswith("log_") else truth
        for name, truth in zip(form.coefficients, LAWS[form], strict=True)
    ]
    for (name, (value, low, high)), truth in zip(found.coefficients().items(), truths, strict=True):
        # A 95 % interval of 40 resamples, of several coefficients: a little wider.
        slack = 0.5 * (high - low)
        assert low - slack <= truth <= high + slack, name
        # Heights and exponents make up for each other: a height is known to its order alone.
        loose = 0.5 if truth > 5 else 0.12
        assert value == pytest.approx(truth, abs=loose * max(1.0, abs(truth))), name
        assert low < value < high
    assert found.error < 1.3 * NOISE and found.r2 > 0.98


def test_without_noise_the_law_is_found_exactly():
    for form, theta in LAWS.items():
        found = fit(form, planted(form, theta, noise=0.0, seeds=1))
        assert found.theta_P == pytest.approx(np.array(theta), rel=1e-3, abs=1e-3), form.name
        assert np.isnan(found.interval(found_columns(2))[0]).all()


def found_columns(runs):
    names = ("compute", "parameters", "users", "samples", "behaviours", "batch", "chance")
    return {name: np.full(runs, 10.0) for name in names}


def test_one_wild_run_does_not_bend_the_law():
    points = planted(POWER_LAW, LAWS[POWER_LAW])
    points.losses[5] *= 20
    assert fit(POWER_LAW, points).theta_P[1] == pytest.approx(0.25, abs=0.01)


def test_intervals_of_a_forecast_hold_it():
    points = planted(POWER_LAW, LAWS[POWER_LAW], noise=0.03)
    found = fit(POWER_LAW, points, resamples=100)
    ten_times = {"compute": np.array([10 * points.columns["compute"].max()])}
    truth = POWER_LAW.predict(np.array(LAWS[POWER_LAW]), ten_times)
    low, high = found.interval(ten_times)
    assert low < truth < high and high - low < 0.1 * truth


def test_the_frontier_is_what_nothing_cheaper_beats():
    points = Points(
        losses=np.array([5.0, 3.0, 4.0, 3.5, 1.0, 5.2, 4.5]),
        columns={"compute": np.array([1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 1.8])},
        cells=np.array(["a", "b", "c", "d", "e", "a", "f"]),
    )
    # The last one is cheaper than the second alone by a tenth.
    assert frontier(points).tolist() == [True, True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda p: p.losses.__setitem__(3, np.nan), "loss is nan, not a positive number"),
        (lambda p: p.losses.__setitem__(3, -1.0), "loss is -1.0, not a positive number"),
        (
            lambda p: p.columns["users"].__setitem__(p.columns["users"] > 5e3, 8e3),
            "users has 2 values, 1000 and 8000, and L = floor .* needs 3 of it: plan another",
        ),
        (lambda p: p.columns["batch"].__setitem__(3, 0), "batch is 0.0, not a positive number"),
        (lambda p: p.columns["users"].__setitem__(slice(None), 7), "users is 7 in every run"),
        (lambda p: p.cells.__setitem__(slice(None), "one"), "1 different runs, but .* plan 6"),
    ],
)
def test_what_says_nothing_is_refused_by_name(spoil, problem):
    points = planted(SIZE_AND_USERS, LAWS[SIZE_AND_USERS])
    fit(SIZE_AND_USERS, points)  # the control
    spoil(points)
    with pytest.raises(DataError, match=problem):
        fit(SIZE_AND_USERS, points)
