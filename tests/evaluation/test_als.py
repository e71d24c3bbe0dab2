"""Matrix factorisation of implicit feedback: the paper's equations, and groups it must find."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp

from clue_jax import files
from clue_jax.config import DownstreamConfig, EvaluateConfig, TaskConfig, TaskKind
from clue_jax.errors import ConfigError
from clue_jax.evaluation import suite
from clue_jax.evaluation.als import als_factors, require_als
from tests.evaluation import downstream_world as world


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(ConfigError, match=r"als needs implicit: pip install '\.\[probes\]'"):
        require_als()


def counts_of_groups():
    """Users who have some of the items of their group, often several times, and one other."""
    rng = np.random.default_rng(0)
    counts = np.zeros((60, 40))
    for user in range(60):
        counts[user, 20 * (user % 2) + rng.choice(20, 8, replace=False)] = rng.integers(1, 4, 8)
        counts[user, rng.integers(40)] += 1
    return counts


def test_factors_solve_the_equations_of_the_paper_and_find_the_groups():
    pytest.importorskip("implicit")
    require_als()
    counts, alpha, penalty = counts_of_groups(), 5.0, 2.0
    users, items = als_factors(sp.csr_array(counts), 3, alpha, penalty, seed=0)
    for item in range(len(items)):
        # Equation 5 of Hu et al.: (X'CX + penalty I) y = X'C p, where C is 1 + alpha r.
        weight = 1.0 + alpha * counts[:, item]
        left = users.T @ (weight[:, None] * users) + penalty * np.eye(3)
        expected = np.linalg.solve(left, users.T @ (weight * (counts[:, item] > 0)))
        np.testing.assert_allclose(items[item], expected, atol=0.01)
    unseen = np.where(counts > 0, np.nan, users @ items.T)
    means = np.stack([np.nanmean(unseen[:, :20], axis=1), np.nanmean(unseen[:, 20:], axis=1)])
    assert (means.argmax(axis=0) == np.arange(60) % 2).all()
    again = als_factors(sp.csr_array(counts), 3, alpha, penalty, seed=0)
    np.testing.assert_array_equal(users, again[0])


def test_its_factors_of_users_and_items_are_features_like_others(tmp_path):
    pytest.importorskip("implicit")
    data = world.write_data(tmp_path)
    world.write_users(data, tmp_path / "users")
    world.write_items(data, tmp_path / "items")
    rows = world.label_rows(lambda user: int(world.kind_of(user) < 2))
    world.write_labels(tmp_path / "labels", "two", rows)
    downstream = DownstreamConfig(
        labels=str(tmp_path / "labels"),
        items=str(tmp_path / "items"),
        tasks=(
            TaskConfig("two", TaskKind.BINARY, "two.parquet"),
            TaskConfig("next", TaskKind.RETRIEVAL, service="shop", at=(6,)),
        ),
        features=("clue", "als", "clue+best"),
        heads=("linear",),
        weight_decays=(1e-2,),
        rank=8,
        steps=50,
        folds=3,
        bootstrap=20,
    )
    config = EvaluateConfig(suites=("downstream",), downstream=downstream)
    suite.evaluate(config, str(tmp_path / "users"), str(tmp_path / "out"))
    rows = files.read_json(tmp_path / "out" / "results.json")
    found = {(r["task"].partition("/")[2], r["model"], r["metric"]): r["value"] for r in rows}
    assert found["two", "als", "auc"] > 0.9
    # A user's items are of a kind, a quarter of the catalogue.
    assert found["next", "als cosine", "hit_rate_at_6"] > 0.5
    assert ("two", "clue+als", "auc") in found
