"""Evaluation during training: matching within the held-out split."""

import jax
import numpy as np
import pytest

from clue_jax.config import EncoderConfig, MeshConfig, PretrainConfig, TransformerConfig
from clue_jax.inference import embed_users
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh
from clue_jax.ranking import matching_ranks
from clue_jax.training.validation import Validation
from tests.samples import VOCABULARY, sample_users

BAG = TransformerConfig(num_layers=0)
CONFIG = PretrainConfig(encoder=EncoderConfig(width=8, embedding_width=8, item=BAG, service=BAG))
USERS = sample_users(50, seed=6)
PARAMS = clue.init(CONFIG.encoder, VOCABULARY, jax.random.key(0))


def mesh_of(devices):
    return make_mesh(MeshConfig(), jax.devices()[:devices])


@pytest.mark.parametrize("devices", [1, 8])
def test_metrics_are_those_of_the_embeddings(devices):
    (row,) = Validation({"users": USERS}, CONFIG, mesh_of(devices))(PARAMS)
    both = USERS.take(np.flatnonzero((USERS.counts() > 0).all(axis=1)))
    z_NSE, _ = embed_users(PARAMS, CONFIG, both)
    ranks = np.concatenate([matching_ranks(z_NSE[:, a], z_NSE[:, b]) for a, b in ((0, 1), (1, 0))])
    assert row["split"] == "validation" and row["users"] == len(both)
    assert row["recall_at_10"] == pytest.approx((ranks <= 10).mean(), abs=0.03)
    assert row["mrr"] == pytest.approx((1 / ranks).mean(), abs=0.03)
    assert row["chance"] == pytest.approx(10 / len(both))


def test_users_with_few_behaviours_are_left_out():
    CONFIG.train.eval_min_behaviours = 3
    try:
        (row,) = Validation({"users": USERS}, CONFIG, mesh_of(1))(PARAMS)
    finally:
        CONFIG.train.eval_min_behaviours = 1
    assert row["users"] == (USERS.counts() >= 3).all(axis=1).sum()


def test_a_split_too_small_to_rank_gives_nothing():
    one = USERS.take(np.flatnonzero((USERS.counts() > 0).all(axis=1))[:1])
    assert Validation({"one": one}, CONFIG, mesh_of(1))(PARAMS) == []


def test_datasets_are_ranked_each_among_its_own_and_averaged():
    other = sample_users(30, ("shop", "news"), seed=7)
    one = USERS.take(np.flatnonzero((USERS.counts() > 0).all(axis=1))[:1])
    mesh = mesh_of(8)
    *each, mean = Validation({"a": USERS, "b": other, "none": one}, CONFIG, mesh)(PARAMS)
    assert [row["dataset"] for row in each] == ["a", "b"] and "dataset" not in mean
    for users, row in zip((USERS, other), each, strict=True):
        (alone,) = Validation({"alone": users}, CONFIG, mesh)(PARAMS)
        assert row == {**alone, "dataset": row["dataset"]}
    for name in ("recall_at_1", "recall_at_10", "mrr", "chance"):
        assert mean[name] == pytest.approx((each[0][name] + each[1][name]) / 2)
    assert mean["users"] == each[0]["users"] + each[1]["users"]
    assert each[0]["mrr"] != each[1]["mrr"]
