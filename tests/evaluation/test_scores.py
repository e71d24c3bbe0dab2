"""Metrics against scikit-learn, weighted as resamples weigh them, and what ties do."""

import numpy as np
import pytest
from sklearn import metrics

from clue_jax.errors import DataError
from clue_jax.evaluation import scores
from clue_jax.evaluation.bootstrap import resample
from clue_jax.ranking import ranks_of

RNG = np.random.default_rng(0)
N = 60
WEIGHTS = RNG.integers(0, 4, (5, N)).astype(float)


def of(scored, weights=WEIGHTS):
    return dict(zip(scored.metrics, scored.statistic(weights).T, strict=True))


@pytest.mark.parametrize("digits", [1, 6])  # 1: many ties
def test_binary_metrics_are_those_of_scikit_learn(digits):
    label, p = (RNG.random(N) < 0.4).astype(int), np.round(RNG.random(N), digits)
    found = of(scores.score_binary(label, p))
    for r, w in enumerate(WEIGHTS):
        loss = metrics.log_loss(label, np.clip(p, 1e-7, 1 - 1e-7), sample_weight=w)
        share = np.average(label, weights=w)
        base = metrics.log_loss(label, np.full(N, share), sample_weight=w)
        assert found["auc"][r] == pytest.approx(metrics.roc_auc_score(label, p, sample_weight=w))
        assert found["log_loss"][r] == pytest.approx(loss)
        assert found["normalised_entropy"][r] == pytest.approx(loss / base)
        halves = p == 0.5
        right = np.where(halves, 0.5, (p > 0.5) == label)
        assert found["accuracy"][r] == pytest.approx(np.average(right, weights=w))


def test_rows_of_one_user_are_weighed_together():
    label, p, owner = RNG.integers(0, 2, 90), RNG.random(90), RNG.integers(0, N, 90)
    found = of(scores.score_binary(label, p, owner))
    for r, w in enumerate(WEIGHTS):
        expected = metrics.roc_auc_score(label, p, sample_weight=w[owner])
        assert found["auc"][r] == pytest.approx(expected)
        expected = metrics.brier_score_loss(label, p, sample_weight=w[owner])
        assert found["log_loss"][r] > expected  # control: they differ


def test_multiclass_metrics_are_those_of_scikit_learn():
    label, p = RNG.integers(0, 4, N), RNG.dirichlet(np.ones(4), N)
    found = of(scores.score_multiclass(label, p))
    for r, w in enumerate(WEIGHTS):
        share = np.bincount(label, weights=w, minlength=4) / w.sum()
        loss = metrics.log_loss(label, p, sample_weight=w, labels=range(4))
        base = metrics.log_loss(label, np.tile(share, (N, 1)), sample_weight=w, labels=range(4))
        accuracy = metrics.accuracy_score(label, p.argmax(1), sample_weight=w)
        assert found["accuracy"][r] == pytest.approx(accuracy)
        assert found["log_loss"][r] == pytest.approx(loss, rel=1e-5)
        assert found["normalised_entropy"][r] == pytest.approx(loss / base, rel=1e-5)


def test_regression_metrics_are_those_of_scikit_learn():
    label, guess = RNG.normal(50.0, 2.0, N), RNG.normal(50.0, 2.0, N)
    found = of(scores.score_regression(label, guess))
    for r, w in enumerate(WEIGHTS):
        kept = {"y_true": label, "y_pred": guess, "sample_weight": w}
        assert found["r2"][r] == pytest.approx(metrics.r2_score(**kept))
        assert found["rmse"][r] == pytest.approx(metrics.root_mean_squared_error(**kept))
        assert found["mae"][r] == pytest.approx(metrics.mean_absolute_error(**kept))


def test_ranking_metrics_are_those_of_scikit_learn():
    score, target = RNG.random((N, 12)), RNG.integers(0, 12, N)
    found = of(scores.score_ranks(ranks_of(score, target), (3,)), np.ones((1, N)))
    relevant = np.zeros((N, 12))
    relevant[np.arange(N), target] = 1
    assert found["ndcg_at_3"][0] == pytest.approx(metrics.ndcg_score(relevant, score, k=3))
    hits = metrics.top_k_accuracy_score(target, score, k=3, labels=range(12))
    assert found["hit_rate_at_3"][0] == pytest.approx(hits)
    mrr = metrics.label_ranking_average_precision_score(relevant, score)
    assert found["mrr"][0] == pytest.approx(mrr)


def test_calibration_error_by_hand():
    label, p = np.array([1, 0, 1, 1]), np.array([0.25, 0.25, 0.9, 1.0])
    found = of(scores.score_binary(label, p), np.array([[1.0, 1, 1, 1], [1, 3, 0, 0]]))
    # Bins: two at .25 with half positive, one at .9 and one at 1 in the last.
    assert found["calibration_error"] == pytest.approx(
        [(0.5 + 0.1) / 4, abs(1 - 1.0) / 4], abs=1e-6
    )


def test_places_at_k_are_shared_among_ties():
    label, score = np.array([1, 0, 1, 0, 0]), np.array([3.0, 2.0, 2.0, 2.0, 1.0])
    found = of(scores.score_audience(label, score, (1, 2, 5)), np.ones((1, 5)))
    assert found["precision_at_1"][0] == 1.0
    assert found["precision_at_2"][0] == pytest.approx((1 + 1 / 3) / 2)
    assert found["precision_at_5"][0] == pytest.approx(0.4)
    # A resample: the second user three times, the first never.
    found = of(scores.score_audience(label, score, (2,)), np.array([[0.0, 3, 1, 0, 1]]))
    assert found["precision_at_2"][0] == pytest.approx(0.25)


def test_certain_and_wrong_is_finite_and_constant_is_a_coin():
    label = np.array([0, 1, 0, 1])
    wrong = of(scores.score_binary(label, 1.0 - label), np.ones((1, 4)))
    assert np.isfinite(wrong["log_loss"][0]) and wrong["auc"][0] == 0.0
    coin = of(scores.score_binary(label, np.full(4, 0.5)), np.ones((1, 4)))
    assert coin["auc"][0] == 0.5 and coin["accuracy"][0] == 0.5
    assert coin["normalised_entropy"][0] == pytest.approx(1.0)
    same = of(scores.score_multiclass(label, np.full((4, 2), 0.5)), np.ones((1, 4)))
    assert same["accuracy"][0] == 0.5
    sure = of(scores.score_multiclass(label, np.eye(2)[1 - label]), np.ones((1, 4)))
    assert np.isfinite(sure["log_loss"][0]) and sure["accuracy"][0] == 0.0


def test_resamples_of_one_class_are_left_out_and_never_nan():
    label = np.array([0, 0, 0, 1])
    p = np.array([0.1, 0.2, 0.4, 0.3])
    sample = resample(scores.score_binary(label, p).statistic, 4, 300, seed=0)
    assert 150 < len(sample.resamples) < 300 and np.isfinite(sample.resamples).all()
    other = resample(scores.score_binary(label, 1 - p).statistic, 4, 300, seed=0)
    assert np.isfinite(sample.minus(other).interval()).all()
    with pytest.raises(DataError, match="not defined on these 4 users"):
        resample(scores.score_binary(np.zeros(4), p).statistic, 4, 50, seed=0)
    with pytest.raises(DataError, match="not defined"):
        resample(scores.score_regression(np.full(4, 7.1), p).statistic, 4, 50, seed=0)
