"""Embedding users: the same whatever the batch and the devices, never a NaN."""

import dataclasses

import jax
import numpy as np
import pytest

from clue_jax.config import (
    AttentionKernel,
    EncoderConfig,
    MeshConfig,
    PretrainConfig,
    SamplingConfig,
    TransformerConfig,
)
from clue_jax.errors import NonFiniteError
from clue_jax.inference import Embedder, embed_users
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh, replicated
from clue_jax.parallel.rules import shardings
from tests.samples import VOCABULARY, sample_users

LAYER = TransformerConfig(1, 2, 16)
CONFIG = PretrainConfig(
    encoder=EncoderConfig(width=16, embedding_width=8, item=LAYER, service=LAYER, max_history=5)
)
USERS = sample_users(30, seed=9)
PARAMS = clue.init(CONFIG.encoder, VOCABULARY, jax.random.key(1))


@pytest.fixture(scope="module")
def whole():
    return embed_users(PARAMS, CONFIG, USERS)


@pytest.mark.parametrize(("devices", "batch_users"), [(1, 7), (8, 8), (8, 30)])
def test_batches_and_devices_do_not_change_an_embedding(whole, devices, batch_users):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    params = jax.device_put(PARAMS, replicated(mesh))
    z_NSE, present_NS = embed_users(params, CONFIG, USERS, batch_users, mesh)
    np.testing.assert_allclose(z_NSE, whole[0], atol=1e-6)
    assert (present_NS == whole[1]).all()


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"fsdp": 2, "tensor": 2}])
def test_neither_do_shards_of_parameters(whole, axes):
    mesh = make_mesh(MeshConfig(**axes), jax.devices())
    params = jax.device_put(PARAMS, shardings(PARAMS, mesh))
    z_NSE, present_NS = embed_users(params, CONFIG, USERS, 16, mesh)
    np.testing.assert_allclose(z_NSE, whole[0], atol=1e-6)
    assert (present_NS == whole[1]).all()


def test_embeddings_are_unit_vectors_where_there_is_a_history(whole):
    z_NSE, present_NS = whole
    assert (present_NS == (USERS.counts() > 0)).all() and not present_NS.all()
    np.testing.assert_allclose(np.linalg.norm(z_NSE, axis=2), present_NS, atol=1e-6)


def test_only_the_newest_behaviours_count(whole):
    longer = np.flatnonzero(USERS.counts()[:, 0] > 5)
    config = PretrainConfig(encoder=dataclasses.replace(CONFIG.encoder, max_history=7))
    z_NSE, _ = embed_users(PARAMS, config, USERS)
    changed = np.abs(z_NSE[:, 0] - whole[0][:, 0]).max(axis=1) > 1e-4
    assert len(longer) and set(np.flatnonzero(changed)) == set(longer)


def test_some_users_are_embedded_in_the_order_asked_for(whole):
    told = []
    z_NSE, _ = Embedder(CONFIG.encoder, USERS, 4)(PARAMS, np.array([9, 2, 25]), told.append)
    np.testing.assert_allclose(z_NSE, whole[0][[9, 2, 25]], atol=1e-6)
    assert sum(told) == 3


def test_nothing_of_how_views_are_drawn_in_training_reaches_an_embedding(whole):
    drawn = SamplingConfig(layer_dropout=0.5, token_dropout=0.5, behaviours_kept=0.5)
    z_NSE, _ = embed_users(PARAMS, PretrainConfig(encoder=CONFIG.encoder, sampling=drawn), USERS)
    np.testing.assert_array_equal(z_NSE, whole[0])


def test_a_kernel_that_this_machine_lacks_does_not_keep_a_run_from_being_read(whole):
    elsewhere = dataclasses.replace(CONFIG.encoder, attention=AttentionKernel.SPLASH)
    z_NSE, _ = embed_users(PARAMS, PretrainConfig(encoder=elsewhere), USERS)
    np.testing.assert_allclose(z_NSE, whole[0], atol=1e-6)


def test_a_nan_is_refused_with_its_user():
    users = USERS.take(np.flatnonzero(USERS.counts()[:, 1] == 0)[:1])
    token = int(users.tokens[0])
    broken = {**PARAMS, "embedding": PARAMS["embedding"].at[token].set(np.nan)}
    with pytest.raises(NonFiniteError, match=rf"row 0 \({users.user_ids[0]}\)"):
        embed_users(broken, CONFIG, users)
    present = np.flatnonzero((USERS.counts() > 0).any(axis=1))
    nan = jax.tree.map(lambda leaf: leaf * np.nan, PARAMS)
    with pytest.raises(NonFiniteError, match=rf"row {present[7]} .* \(2 such rows\)"):
        Embedder(CONFIG.encoder, USERS, 4)(nan, present[[7, 3]])
