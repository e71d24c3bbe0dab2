"""Packed, de-duplicated, chunked encoding against the padded mathematics, value and gradient."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import (
    Activation,
    EncoderConfig,
    LossConfig,
    Precision,
    PretrainConfig,
    SamplingConfig,
    TransformerConfig,
)
from clue_jax.data.packing import capacity_for, pack_views
from clue_jax.data.sampling import full_views, num_views, training_views
from clue_jax.model import clue
from tests.model import padded
from tests.samples import VOCABULARY, sample_users

# Float32 sums in another order; gradients are compared relative to the largest of their array.
TOLERANCE = 1e-5

LAYER, BAG = TransformerConfig(1, 2, 24), TransformerConfig(0, 2, 24)
TINY = EncoderConfig(
    width=16,
    embedding_width=8,
    item=LAYER,
    service=LAYER,
    max_item_tokens=6,
    max_history=5,
    max_items=10,
    row_tokens=8,
    item_rows=3,
    row_behaviours=7,
    history_rows=1,
)
# 40 users over 15 items a service: much is shared. Texts and histories exceed the caps.
USERS = sample_users(40, seed=3, catalogue=15, empty=0.25)
AT_ONCE = 6
FIRST = USERS.take(range(AT_ONCE))


def config_of(**changes):
    return dataclasses.replace(TINY, **changes)


def packed_of(users, config, views=None, capacity=None):
    views = views or full_views(users, config.max_history)
    capacity = capacity or capacity_for(users, config, len(users), views.num_views, parts=True)
    return pack_views(users, views, capacity, config)[0]


def random_parameters(config):
    """Random parameters, norm scales included (at one, a missing scale could not be seen)."""
    leaves, tree = jax.tree.flatten(clue.init(config, VOCABULARY, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return tree.unflatten(
        [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    )


@functools.cache
def parameters():
    return random_parameters(TINY)


def value_and_gradient(encode):
    """jit of (params, weights_VbE, *arrays) -> z, and the gradient of sum(weights * z)."""

    def run(params, weights, *arrays):
        z, pull = jax.vjp(lambda params: encode(params, *arrays), params)
        return z, pull(weights)[0]

    return jax.jit(run)


def packed_form(config):
    return value_and_gradient(lambda params, packed: clue.encode(params, config, packed)[0])


def padded_form(config):
    return value_and_gradient(
        lambda params, *arrays: jnp.swapaxes(padded.encode(params, config, *arrays), 0, 1)
    )


def random_weights(config, views, users):
    shape = views, users, config.embedding_width
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def assert_same(given, expected):
    (z, gradient), (expected_z, expected_gradient) = given, expected
    np.testing.assert_allclose(z, expected_z, rtol=0, atol=TOLERANCE)
    ours, theirs = (jax.tree_util.tree_leaves_with_path(g) for g in (gradient, expected_gradient))
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        largest = np.abs(b).max()
        assert largest > 1e-3, f"{path}: no gradient, so nothing was compared"
        np.testing.assert_allclose(a / largest, b / largest, 0, TOLERANCE, err_msg=str(path))


def compare(config, users, views):
    params = random_parameters(config)
    weights = random_weights(config, views.num_views, len(users))
    given = packed_form(config)(params, weights, packed_of(users, config, views))
    expected = padded_form(config)(params, weights, *padded.pad(users, views, config))
    assert_same(given, expected)


def test_the_sample_holds_every_case_that_matters():
    views = full_views(FIRST, TINY.max_history)
    sizes = np.diff(views.offsets).reshape(AT_ONCE, 2)
    lengths = np.diff(FIRST.token_offsets)[views.items]
    identities = [set(FIRST.item_ids[i]) for i in np.split(views.items, views.offsets[1:-1])]
    assert (sizes == 0).any(), "nobody lacks a service"
    assert (FIRST.counts() > TINY.max_history).any(), "no history beyond the cap"
    assert (lengths == 1).any() and (lengths > TINY.max_item_tokens).any()
    assert any(len(ids) < n for ids, n in zip(identities, sizes.ravel(), strict=True))
    assert sum(map(len, identities)) > len(set().union(*identities)), "users share no item"
    packed = packed_of(FIRST, TINY)
    assert packed.num_groups >= 3
    assert np.diff(packed.group_item_chunks_G2).max() >= 2
    assert np.diff(packed.group_history_chunks_G2).max() >= 2


PACKED, PADDED = packed_form(TINY), padded_form(TINY)
CAPACITY = capacity_for(USERS, TINY, AT_ONCE, 2)


def compare_with_one_compilation(users, views):
    weights = random_weights(TINY, 2, AT_ONCE)
    given = PACKED(parameters(), weights, packed_of(users, TINY, views, CAPACITY))
    expected = PADDED(parameters(), weights, *padded.pad(users, views, TINY, count=AT_ONCE))
    if (np.diff(views.offsets) > 1).sum() >= 2:
        assert_same(given, expected)
    else:  # too little for every parameter to have a gradient
        np.testing.assert_allclose(given[0], expected[0], rtol=0, atol=TOLERANCE)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(given[1]))


@hypothesis.given(st.lists(st.integers(0, 39), max_size=AT_ONCE, unique=True))
@hypothesis.example([])
@hypothesis.settings(max_examples=25, deadline=None)
def test_any_users_are_encoded_as_in_the_padded_form(chosen):
    users = USERS.take(chosen)
    compare_with_one_compilation(users, full_views(users, TINY.max_history))


@pytest.mark.parametrize(
    "changes",
    [
        dict(activation=Activation.SWIGLU, item=TransformerConfig(2, 4, 12)),
        dict(item=BAG, normalize_items=True, service=TransformerConfig(2, 1, 24)),
        dict(service=BAG, project=False, embedding_width=16, remat=True),
        dict(item=BAG, service=BAG, normalize_items=True, project=False, embedding_width=16),
    ],
    ids=["swiglu", "bag of tokens", "bag of items, no projection", "bag of bags"],
)
def test_every_form_of_the_encoder_equals_the_padded_form(changes):
    config = config_of(**changes)
    compare(config, FIRST, full_views(FIRST, config.max_history))


def test_an_item_in_several_services_equals_the_padded_form():
    # Services of a log share no identities, so here the second service repeats the first.
    counts = np.repeat(FIRST.counts()[:, :1], 2, axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts.ravel())])
    starts = np.repeat(FIRST.behaviour_offsets[:-1:2], 2)
    entries = np.concatenate(
        [s + np.arange(n) for s, n in zip(starts, counts.ravel(), strict=True)]
    )
    users = dataclasses.replace(
        FIRST,
        behaviour_items=FIRST.behaviour_items[entries],
        behaviour_times=FIRST.behaviour_times[entries],
        behaviour_offsets=offsets,
    )
    views = full_views(users, TINY.max_history)
    assert (views.items[slice(*views.offsets[:2])] == views.items[slice(*views.offsets[1:3])]).all()
    compare_with_one_compilation(users, views)


def test_two_parts_of_each_history_equal_the_padded_form():
    sampling = SamplingConfig(within_service_weight=0.5, behaviours_kept=0.8)
    views = training_views(FIRST, np.arange(AT_ONCE), sampling, TINY.max_history, seed=0, step=0)
    assert views.num_views == num_views(2, sampling) == 6
    compare(TINY, FIRST, views)


SIZES = dict(
    one_row=dict(item_rows=1),
    narrow_rows=dict(row_tokens=6, row_behaviours=5, item_rows=2, history_rows=3),
    one_group=dict(max_items=4096, row_tokens=64, item_rows=8, row_behaviours=32, history_rows=8),
)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_result_does_not_depend_on_rows_chunks_and_groups(sizes):
    def encoded(config):
        return jax.jit(lambda params, packed: clue.encode(params, config, packed))(
            parameters(), packed_of(FIRST, config)
        )

    (z, present), (expected_z, expected_present) = encoded(config_of(**sizes)), encoded(TINY)
    np.testing.assert_allclose(z, expected_z, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(present, expected_present)


def test_present_views_have_unit_length_and_absent_ones_are_zero():
    z_VbE, present_Vb = clue.encode(parameters(), TINY, packed_of(FIRST, TINY))
    np.testing.assert_array_equal(present_Vb, FIRST.counts().T > 0)
    lengths = np.linalg.norm(z_VbE, axis=-1)
    np.testing.assert_allclose(lengths[present_Vb], 1.0, rtol=TOLERANCE)
    assert (np.asarray(z_VbE)[~present_Vb] == 0).all() and not present_Vb.all()


def test_bfloat16_is_close_to_float32_and_not_equal():
    half = config_of(precision=Precision.BFLOAT16)
    packed = packed_of(FIRST, TINY)
    z, present = clue.encode(parameters(), TINY, packed)
    z_half, _ = clue.encode(parameters(), half, packed)
    assert z_half.dtype == jnp.float32
    similarity = np.einsum("VbE,VbE->Vb", z, z_half)[present]
    assert similarity.min() > 0.999
    assert np.abs(z - z_half).max() > TOLERANCE


def test_parameters_are_float32_and_a_function_of_the_seed():
    def drawn(seed):
        config = PretrainConfig(seed, TINY, loss=LossConfig(temperature=0.05))
        return clue.init_run(config, VOCABULARY)

    leaves, again, other = (jax.tree.leaves(drawn(seed)) for seed in (0, 0, 1))
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    assert all((a == b).all() for a, b in zip(leaves, again, strict=True))
    assert sum((a != b).any() for a, b in zip(leaves, other, strict=True)) >= 10
    np.testing.assert_allclose(np.exp(drawn(0)["log_scale"]), 20.0, rtol=1e-6)


def test_a_bag_without_projection_has_the_embedding_alone():
    bag = config_of(item=BAG, service=BAG, normalize_items=True, project=False, embedding_width=16)
    params = clue.init(bag, VOCABULARY, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == {
        "item": {"embedding": (VOCABULARY, 16)},
        "service": {},
    }
