"""From results of runs to conclusions: who counts, which law, what is said of it."""

import pytest

from clue_jax.errors import DataError
from clue_jax.scaling.analysis import analyse
from clue_jax.scaling.forms import SIZE_AND_SAMPLES, SIZE_AND_USERS
from clue_jax.scaling.study import conclusions_of
from clue_jax.scaling.words import markdown, sections
from tests.scaling.planted import LAW, grid, result

RUNS = grid()


def test_conclusions_of_a_sound_study():
    found = analyse(RUNS, resamples=30, seed=0)
    assert len(found.kept) == 24 and not found.excluded
    # Compute is 60 N D, and the runs read 32 behaviours a service.
    assert found.fitted_to[SIZE_AND_SAMPLES.name].per_unit == pytest.approx(60 / 32)
    for name, (value, low, high) in found.fits[SIZE_AND_SAMPLES.name].coefficients().items():
        slack = 0.5 * (high - low)
        assert low - slack <= LAW[name] <= high + slack, (name, value)
    # A factor that never varies.
    assert "users is 5000 in every run" in found.refused[SIZE_AND_USERS.name]
    frontier = [run["run"] for run in found.best]
    assert "16x1-100-0" in frontier and "256x2-100-0" not in frontier


def test_the_report_names_what_is_missing():
    found = analyse(RUNS, resamples=5, seed=0)
    told = conclusions_of(found)
    told["missing"] = ["one-more"]
    text = markdown(sections(told, RUNS))
    assert "24 of 25 runs have ended" in text and "below the paper's range" in text
    assert text.endswith("## Not yet run\n\n- one-more\n")
    assert len(told["allocation"][SIZE_AND_SAMPLES.name]) == 3
    assert "Not fitted: size and users: users is 5000 in every run" in text
    assert "Chosen by the budget before" in text
    assert "Nowhere were three learning rates tried." in text


def test_who_does_not_count_is_named():
    diverged = result("16x1", 50, loss=9.0)
    failed = {k: v for k, v in result("16x1", 25).items() if k not in ("loss", "compute", "mrr")}
    failed |= {"failed": "exit code 6: too many"}
    worse = result("64x2", 400, loss=3.0, cell="64x2-400-fast") | {"run": "fast"}
    found = analyse([*RUNS, diverged, failed, worse], resamples=0, seed=0)
    assert found.excluded == {
        "16x1-50-0": "loss 9.000 with the best temperature, chance 4.159: it learnt nothing",
        "16x1-25-0": "exit code 6: too many",
        "fast": "another learning rate or temperature is better: 64x2-400",
    }
    assert [run["run"] for run in found.kept] == [run["run"] for run in RUNS]
    with pytest.raises(DataError, match="no run of 2 can be used: loss 9"):
        analyse([diverged, failed], resamples=0, seed=0)


def test_laws_are_about_the_calibrated_loss_where_that_is_asked_for():
    runs = [{**run, "loss": 2.0 + run["loss"]} for run in RUNS]
    assert min(run["loss"] for run in analyse(runs, 0, 0).kept) > 2.0
    calibrated = analyse(runs, 0, 0, calibrated=True)
    assert [run["loss"] for run in calibrated.kept] == [run["loss"] for run in RUNS]


def test_laws_of_compute_are_of_runs_that_differ_in_size_and_samples_alone():
    other = [result(*of, effect=0.5) | {"batch": 16} for of in (("16x1", 100), ("16x1", 400))]
    named = [{**run, "cell": f"b16-{n}", "run": f"b16-{n}"} for n, run in enumerate(other)]
    alone, beside = analyse(RUNS, 0, 0), analyse([*RUNS, *named], 0, 0)
    assert len(beside.kept) == 26 and beside.best == alone.best
    assert beside.fits["power law"].theta_P == pytest.approx(alone.fits["power law"].theta_P)
