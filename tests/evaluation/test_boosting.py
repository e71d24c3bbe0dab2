"""Boosted trees against scikit-learn itself, and what they may and may not know."""

import dataclasses
import sys

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from clue_jax import files
from clue_jax.config import DownstreamConfig, EvaluateConfig, TaskConfig, TaskKind
from clue_jax.errors import ConfigError
from clue_jax.evaluation import suite
from clue_jax.evaluation.boosting import check_boosting, fit_boosting
from clue_jax.evaluation.folds import Folds
from clue_jax.evaluation.heads import Features, Problem
from tests.evaluation import downstream_world as world

N = 300
OWNER = np.arange(N)
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
CONFIG = DownstreamConfig(boosting_leaves=(3, 4))


def problem(kind, target, **keys):
    return Problem(kind, OWNER, target, Folds(OWNER % 3, 3), **keys)


def outside(x):
    """What a line cannot tell."""
    return (np.abs(x[:, 0]) > 0.7).astype(int)


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1, user_api="openmp"):
        yield


def test_trees_are_those_of_scikit_learn_on_the_same_rows():
    task = problem(TaskKind.BINARY, outside(X))
    fitted = fit_boosting(task, Features(X), CONFIG, 0)
    fold = next(iter(task.folds))
    leaves, trees = fitted.models[0].max_leaf_nodes, fitted.trees[0]
    direct = HistGradientBoostingClassifier(
        max_leaf_nodes=leaves, max_iter=trees, early_stopping=False, random_state=0
    ).fit(X[fold.fit], task.target_n[fold.fit])
    chance = 1 / (1 + np.exp(-fitted.outputs(0, fold.predict)[:, 0]))
    np.testing.assert_allclose(chance, direct.predict_proba(X[fold.predict])[:, 1], atol=1e-6)
    of_choose = log_loss(task.target_n[fold.choose], direct.predict_proba(X[fold.choose]))
    assert fitted.losses[0] == pytest.approx(of_choose, abs=1e-6)
    assert ((chance > 0.5) == task.target_n[fold.predict]).mean() > 0.7


def test_size_and_number_of_trees_are_the_best_there_are_until_it_gets_worse():
    value = 5e3 + X[:, 0] + np.random.default_rng(1).normal(size=N)
    task = problem(TaskKind.REGRESSION, value)
    fitted = fit_boosting(task, Features(X), CONFIG, 0)
    fold, losses = next(iter(task.folds)), {}
    for leaves in CONFIG.boosting_leaves:
        model = HistGradientBoostingRegressor(max_leaf_nodes=leaves, early_stopping=False)
        stages = model.fit(X[fold.fit], value[fold.fit]).staged_predict(X[fold.choose])
        for trees, found in enumerate(stages, start=1):
            losses[leaves, trees] = ((found - value[fold.choose]) ** 2).mean()
    best = min(losses, key=losses.__getitem__)
    assert (fitted.models[0].max_leaf_nodes, fitted.trees[0]) == best
    assert 1 < best[1] < 100
    assert fitted.losses[0] == pytest.approx(losses[best] / value[fold.fit].var())
    assert np.abs(fitted.outputs(0, fold.predict)[:, 0] - 5e3).max() < 10


def test_a_class_that_was_not_fitted_is_possible_but_improbable():
    target = outside(X)
    target[0] = 2  # in one fold alone, which is predicted first
    task = problem(TaskKind.MULTICLASS, target, outputs=3)
    fitted = fit_boosting(task, Features(X), CONFIG, 0)
    out_BK = fitted.outputs(0, OWNER[:5])
    assert np.isfinite(out_BK).all() and (out_BK[:, 2] < np.log(1e-6)).all()
    assert all(np.isfinite(fitted.losses))


def test_a_fold_is_predicted_without_its_labels():
    task = problem(TaskKind.BINARY, outside(X))
    fitted = fit_boosting(task, Features(X), CONFIG, 0)
    first = next(iter(task.folds))
    for part, same in ((first.predict, True), (first.fit, False)):
        target = task.target_n.copy()
        target[part[::2]] = 1 - target[part[::2]]
        changed = dataclasses.replace(task, target_n=target)
        other = fit_boosting(changed, Features(X), CONFIG, 0).outputs(0, first.predict)
        assert np.array_equal(other, fitted.outputs(0, first.predict)) == same


def test_clicks_know_what_was_shown_and_where():
    rng = np.random.default_rng(2)
    owner = np.repeat(OWNER, 5)
    action, position = rng.integers(3, size=len(owner)), rng.integers(2, size=len(owner))
    # Everybody wants another thing, and looks at the first position alone.
    wanted = (X[owner, 0] > 0).astype(int) + (X[owner, 0] > 1)
    click = ((action == wanted) & (position == 0)).astype(int)
    folds = Folds(owner % 3, 3)
    shown = {"action_n": action, "position_n": position}
    task = Problem(TaskKind.CLICKS, owner, click, folds, outputs=3, **shown)
    fitted = fit_boosting(task, Features(X), CONFIG, 0)
    fold = next(iter(folds))
    logits = fitted.shown_logits(0, fold.predict)
    assert ((logits > 0) == click[fold.predict]).mean() > 0.95
    every = fitted.all_logits(0, owner[fold.predict])
    assert every.shape == (len(fold.predict), 2, 3)
    rows = np.arange(len(fold.predict))
    here = every[rows, position[fold.predict], action[fold.predict]]
    np.testing.assert_array_equal(here, logits)


def test_trees_stand_in_the_table_with_other_heads(tmp_path):
    data = world.write_data(tmp_path)
    world.write_users(data, tmp_path / "users")
    world.write_items(data, tmp_path / "items")
    rows = world.label_rows(lambda user: int(world.kind_of(user) < 2))
    world.write_labels(tmp_path / "labels", "two", rows)
    two = TaskConfig("two", TaskKind.AUDIENCE, "two.parquet", at=(10,))
    following = TaskConfig("next", TaskKind.RETRIEVAL, service="shop", at=(5,))
    downstream = DownstreamConfig(
        labels=str(tmp_path / "labels"),
        items=str(tmp_path / "items"),
        tasks=(two, following),
        features=("clue",),
        heads=("boosting",),
        boosting_leaves=(3,),
        folds=3,
        bootstrap=20,
    )
    config = EvaluateConfig(suites=("downstream",), downstream=downstream)
    suite.evaluate(config, str(tmp_path / "users"), str(tmp_path / "out"))
    rows = files.read_json(tmp_path / "out" / "results.json")
    auc = {
        r["model"]: r["value"]
        for r in rows
        if (r["task"], r["metric"]) == ("downstream/two", "auc")
    }
    assert auc["clue boosting"] > 0.8
    models = {row["model"] for row in rows if row["task"] == "downstream/next"}
    assert "clue boosting" not in models and "clue cosine" in models


def test_what_trees_cannot_do_is_said_before_they_grow(monkeypatch):
    many = problem(TaskKind.CLICKS, outside(X), outputs=300, position_n=np.zeros(N, int))
    with pytest.raises(ConfigError, match="255 things .* task ads has 300 and 1"):
        check_boosting("ads", many)
    check_boosting("fine", problem(TaskKind.MULTICLASS, outside(X), outputs=300))
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ConfigError, match=r"needs scikit-learn: pip install '\.\[probes\]'"):
        check_boosting("fine", many)
