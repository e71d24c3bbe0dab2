"""Intervals against theory, and pairing."""

import numpy as np
import pytest

from clue_jax.evaluation import bootstrap as module
from clue_jax.evaluation.bootstrap import bootstrap


def test_the_interval_of_a_mean_is_that_of_theory():
    scores = (np.random.default_rng(0).random((900, 1)) < 0.1).astype(float)
    sample = bootstrap(scores, 4_000, seed=1)
    low, high = sample.interval()
    share = scores.mean()
    assert sample.value[0] == pytest.approx(share)
    assert (high - low)[0] / 2 == pytest.approx(1.96 * np.sqrt(share * (1 - share) / 900), rel=0.06)
    assert low[0] < share < high[0]


def test_it_equals_a_loop_over_the_same_draws():
    scores = np.random.default_rng(0).random((7, 2))
    sample = bootstrap(scores, 5, seed=3)
    drawn = np.random.default_rng(3).integers(7, size=(5, 7))
    for resample, users in zip(sample.resamples, drawn, strict=True):
        assert resample == pytest.approx(np.mean([scores[u] for u in users], axis=0))


def test_chunks_do_not_show(monkeypatch):
    scores = np.random.default_rng(0).random((11, 1))
    sample = bootstrap(scores, 200, seed=3)
    monkeypatch.setattr(module, "CELLS", 7 * 11)
    again = bootstrap(scores, 200, seed=3)
    assert sample.resamples.shape == (200, 1)
    np.testing.assert_allclose(sample.resamples, again.resamples, rtol=1e-12)
    assert len(np.unique(sample.resamples)) > 150
    other = bootstrap(scores, 200, seed=4)
    assert not np.array_equal(sample.resamples, other.resamples)


def test_pairing_cancels_what_users_share():
    rng = np.random.default_rng(0)
    easy = rng.random((300, 1))
    better = easy + 0.01
    difference = bootstrap(better, 500, seed=1).minus(bootstrap(easy, 500, seed=1))
    low, high = difference.interval()
    assert low[0] == pytest.approx(0.01) and high[0] == pytest.approx(0.01)
    unpaired = bootstrap(better, 500, seed=1).minus(bootstrap(easy, 500, seed=2))
    assert unpaired.interval()[0][0] < 0, "control: without pairing the difference is lost"
