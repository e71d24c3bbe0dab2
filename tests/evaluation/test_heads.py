"""Heads where the answer is known: against scikit-learn, from the user's own vector, and early."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clue_jax.config import DownstreamConfig, TaskKind
from clue_jax.evaluation.folds import deal_folds
from clue_jax.evaluation.heads import Features, Own, Problem, fit
from clue_jax.ranking import ranks_of

N = 240
IDS = np.array([f"u{n}" for n in range(N)], object)
ALL = np.arange(N)
NOTHING = Own(np.full((N, 1), N), np.zeros((N, 1)))  # nobody had anything


def folds(count=3, strata=None):
    return deal_folds(IDS, ALL, count, strata)


def test_users_are_in_one_part_of_each_fold_and_predicted_once():
    owner = np.repeat(ALL[:50], 3)
    dealt = deal_folds(IDS, owner, 4)
    seen = []
    for fold in dealt:
        parts = [set(owner[part]) for part in (fold.fit, fold.choose, fold.predict)]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        assert len(set.union(*parts)) == 50
        seen += fold.predict.tolist()
    assert sorted(seen) == list(range(150))
    rare = (ALL < 8).astype(int)
    assert [rare[fold.predict].sum() for fold in folds(4, rare)] == [2, 2, 2, 2]
    np.testing.assert_array_equal(folds().fold_n, folds().fold_n)


def test_a_linear_head_is_a_logistic_regression_with_that_penalty():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(N, 4)) * [1.0, 5.0, 0.1, 1.0] + [0.0, 30.0, 0.0, -2.0]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    label = (rng.random(N) < 1 / (1 + np.exp(-1.5 * z[:, 0] - z[:, 1]))).astype(int)
    problem = Problem(TaskKind.BINARY, ALL, label, folds())
    config = DownstreamConfig(weight_decays=(0.05,), steps=600, batch_rows=10_000)
    fitted = fit("linear", problem, Features(x.astype(np.float32)), config, 0)
    for number, fold in enumerate(problem.folds):
        mean, spread = x[fold.fit].mean(axis=0), x[fold.fit].std(axis=0)
        reference = LogisticRegression(C=1 / (0.05 * len(fold.fit)), tol=1e-8, max_iter=1_000)
        reference.fit((x[fold.fit] - mean) / spread, label[fold.fit])
        expected = reference.decision_function((x[fold.predict] - mean) / spread)
        found = fitted.outputs(number, fold.predict)[:, 0]
        # Early stopping leaves it near the optimum, not at it.
        assert np.corrcoef(found, expected)[0, 1] > 0.98
        assert np.abs(found - expected).mean() < 0.35 * np.abs(expected).mean()


def test_values_far_from_zero_are_learnt():
    x = np.random.default_rng(3).normal(size=(N, 3)).astype(np.float32)
    value = 1e4 + 3.0 * x[:, 0]
    problem = Problem(TaskKind.REGRESSION, ALL, value, folds())
    fitted = fit("linear", problem, Features(x), DownstreamConfig(weight_decays=(1e-3,)), 0)
    for number, fold in enumerate(problem.folds):
        error = fitted.outputs(number, fold.predict)[:, 0] - value[fold.predict]
        assert np.sqrt((error**2).mean()) < 0.3


def test_retrieval_starts_from_the_users_own_vector():
    # Every user has an item of their own: what others have teaches nothing.
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(N, 32)) / np.sqrt(32)
    x, items = (vectors + 0.02 * rng.normal(size=vectors.shape) for _ in range(2))
    features = Features(x.astype(np.float32), items.astype(np.float32))
    problem = Problem(TaskKind.RETRIEVAL, ALL, ALL, folds(), N, np.zeros(N), NOTHING)
    config = DownstreamConfig(weight_decays=(0.1,), steps=50)
    fitted = fit("linear", problem, features, config, 0)
    for number, fold in enumerate(problem.folds):
        assert ranks_of(fitted.outputs(number, fold.predict), fold.predict).mean() < 3.0


@pytest.mark.parametrize("loyal", [True, False])
def test_retrieval_learns_whether_people_come_back_to_what_they_had(loyal):
    rng = np.random.default_rng(5)
    had_UH = rng.integers(0, 40, (N, 2))
    own = Own(np.concatenate([had_UH, np.full((N, 1), 40)], axis=1), np.array([[3, 1, 0]] * N))
    target = had_UH[:, 0] if loyal else rng.integers(0, 40, N)
    features = Features(np.zeros((N, 8), np.float32), rng.normal(size=(40, 8)).astype(np.float32))
    problem = Problem(TaskKind.RETRIEVAL, ALL, target, folds(), 40, np.zeros(40), own)
    fitted = fit("linear", problem, features, DownstreamConfig(weight_decays=(0.1,), steps=50), 0)
    ranks = [
        ranks_of(fitted.outputs(number, fold.predict), target[fold.predict])
        for number, fold in enumerate(problem.folds)
    ]
    assert (np.concatenate(ranks).mean() < 3.0) == loyal


def test_an_mlp_learns_what_a_line_cannot():
    x = np.linspace(-2.0, 2.0, N, dtype=np.float32)[:, None]
    label = (np.abs(x[:, 0]) > 1.0).astype(int)
    problem = Problem(TaskKind.BINARY, ALL, label, folds())
    config = DownstreamConfig(weight_decays=(1e-4,), mlp_widths=(32,), steps=1_000)
    right = {}
    for head in ("linear", "mlp"):
        fitted = fit(head, problem, Features(x), config, 0)
        hits = [
            (fitted.outputs(number, fold.predict)[:, 0] > 0) == label[fold.predict]
            for number, fold in enumerate(problem.folds)
        ]
        right[head] = np.concatenate(hits).mean()
    assert right["linear"] < 0.65 and right["mlp"] > 0.8


def test_the_best_decay_is_chosen_on_users_that_are_not_predicted():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N, 100)).astype(np.float32)
    label = (x[:, 0] + 0.5 * rng.normal(size=N) > 0).astype(int)
    problem = Problem(TaskKind.BINARY, ALL, label, folds())
    losses = {}
    for decays in ((1e-6,), (0.1,), (1e-6, 0.1)):
        config = DownstreamConfig(weight_decays=decays)
        losses[decays] = fit("linear", problem, Features(x), config, 0).losses
    best = np.minimum(losses[1e-6,], losses[0.1,])
    np.testing.assert_allclose(losses[1e-6, 0.1], best, rtol=1e-4)
