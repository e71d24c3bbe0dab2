"""Packed, de-duplicated, chunked encoding against the padded mathematics, value and gradient."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import (
    Activation,
    LossConfig,
    Precision,
    PretrainConfig,
    Remat,
    SamplingConfig,
    TransformerConfig,
)
from clue_jax.data.capacity import capacity_for
from clue_jax.data.pairs import num_views
from clue_jax.data.ragged import offsets_of, ranges
from clue_jax.data.sampling import full_views, training_views
from clue_jax.model import clue
from tests.model import padded
from tests.model.comparison import (
    AT_ONCE,
    FIRST,
    TINY,
    TOLERANCE,
    USERS,
    assert_same,
    capacity_of,
    config_of,
    packed_form,
    packed_of,
    padded_form,
    random_parameters,
    random_weights,
)
from tests.samples import VOCABULARY

BAG = TransformerConfig(0, 2, 24)
PARAMS = random_parameters(TINY)
CAPACITY = capacity_for(USERS, TINY, AT_ONCE, 2)
PACKED, PADDED = packed_form(TINY, CAPACITY.items), padded_form(TINY)


def compare(config, users, views):
    params = random_parameters(config)
    weights = random_weights(config, views.num_views, len(users))
    capacity = capacity_of(users, config, views.num_views)
    packed = packed_of(users, config, views, capacity)
    given = packed_form(config, capacity.items)(params, weights, packed)
    expected = padded_form(config)(params, weights, *padded.pad(users, views, config))
    assert_same(given, expected)


def test_the_sample_holds_every_case_that_matters():
    views = full_views(FIRST, TINY.max_history)
    sizes = np.diff(views.offsets).reshape(AT_ONCE, 2)
    lengths = np.diff(FIRST.token_offsets)[views.items]
    identities = [set(FIRST.item_ids[i]) for i in np.split(views.items, views.offsets[1:-1])]
    assert (sizes == 0).any(), "nobody lacks a service"
    assert (FIRST.counts() > TINY.max_history).any(), "no history beyond the cap"
    assert (FIRST.counts() == TINY.max_history).any(), "no history at the cap"
    assert (lengths == 1).any() and (lengths > TINY.max_item_tokens).any()
    assert any(len(ids) < n for ids, n in zip(identities, sizes.ravel(), strict=True))
    assert sum(map(len, identities)) > len(set().union(*identities)), "users share no item"
    packed = packed_of(FIRST, TINY)
    assert packed.num_item_chunks >= 3 and packed.num_view_chunks >= 3


def compare_with_one_compilation(users, views):
    weights = random_weights(TINY, 2, AT_ONCE)
    given = PACKED(PARAMS, weights, packed_of(users, TINY, views, CAPACITY))
    expected = PADDED(PARAMS, weights, *padded.pad(users, views, TINY, count=AT_ONCE))
    if (np.diff(views.offsets) > 1).sum() >= 2:
        assert_same(given, expected)
    else:  # too little for every parameter to have a gradient
        np.testing.assert_allclose(given[0], expected[0], rtol=0, atol=TOLERANCE)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(given[1]))


def with_shared_items(users):
    """The same users with their first history in both services (in logs these share no item)."""
    counts = np.repeat(users.counts()[:, :1], 2, axis=1).ravel()
    entries = ranges(np.repeat(users.behaviour_offsets[:-1:2], 2), counts)
    return dataclasses.replace(
        users,
        behaviour_items=users.behaviour_items[entries],
        behaviour_times=users.behaviour_times[entries],
        behaviour_offsets=offsets_of(counts),
    )


@hypothesis.given(
    st.lists(st.integers(0, len(USERS) - 1), max_size=AT_ONCE, unique=True), st.booleans()
)
@hypothesis.example([], False)
@hypothesis.example(list(range(AT_ONCE)), False)  # several chunks of both kinds
@hypothesis.example(list(range(AT_ONCE)), True)
@hypothesis.settings(max_examples=30, deadline=None)
def test_any_users_are_encoded_as_in_the_padded_form(chosen, shared):
    users = with_shared_items(USERS.take(chosen)) if shared else USERS.take(chosen)
    views = full_views(users, TINY.max_history)
    if shared:
        cut = np.split(views.items, views.offsets[1:-1])
        assert all((a == b).all() for a, b in zip(cut[::2], cut[1::2], strict=False))
    compare_with_one_compilation(users, views)


@pytest.mark.parametrize(
    "changes",
    [
        dict(activation=Activation.SWIGLU, item=TransformerConfig(2, 4, 12)),
        dict(item=BAG, normalize_items=True, service=TransformerConfig(2, 1, 24)),
        dict(service=BAG, project=False, embedding_width=16, remat=Remat.FULL),
        dict(item=BAG, service=BAG, normalize_items=True, project=False, embedding_width=16),
    ],
    ids=["swiglu", "bag of tokens", "bag of items, no projection", "bag of bags"],
)
def test_every_form_of_the_encoder_equals_the_padded_form(changes):
    config = config_of(**changes)
    compare(config, FIRST, full_views(FIRST, config.max_history))


def test_two_parts_of_each_history_equal_the_padded_form():
    sampling = SamplingConfig(within_service_weight=0.5, behaviours_kept=0.8)
    views = training_views(FIRST, np.arange(AT_ONCE), sampling, TINY.max_history, seed=0, step=0)
    assert views.num_views == num_views(2, sampling) == 6
    compare(TINY, FIRST, views)


# Slots in rows, rows in chunks -> chunks of items and of views.
SIZES = {
    "one chunk": (dict(item_rows=64, history_rows=64), 1, 1),
    "two chunks": (dict(item_rows=8, history_rows=4), 2, 2),
    "eight chunks": (dict(item_rows=2, history_rows=1), 8, 8),
    "narrow rows": (dict(row_tokens=6, row_behaviours=5, item_rows=1, history_rows=3), 20, 5),
}


@pytest.mark.parametrize(("sizes", "item_chunks", "view_chunks"), SIZES.values(), ids=SIZES)
def test_neither_value_nor_gradient_depends_on_rows_and_chunks(sizes, item_chunks, view_chunks):
    config = config_of(**sizes)
    capacity = capacity_of(FIRST, config)
    packed = packed_of(FIRST, config, capacity=capacity)
    assert (packed.num_item_chunks, packed.num_view_chunks) == (item_chunks, view_chunks)
    weights = random_weights(TINY, 2, AT_ONCE)
    given = packed_form(config, capacity.items)(PARAMS, weights, packed)
    assert_same(given, PACKED(PARAMS, weights, packed_of(FIRST, TINY, capacity=CAPACITY)))


def encode(config, packed):
    return jax.jit(lambda packed: clue.encode(PARAMS, config, packed, CAPACITY.items))(packed)


def test_present_views_have_unit_length_and_absent_ones_are_zero():
    z_VbE, present_Vb = encode(TINY, packed_of(FIRST, TINY))
    np.testing.assert_array_equal(present_Vb, FIRST.counts().T > 0)
    lengths = np.linalg.norm(z_VbE, axis=-1)
    np.testing.assert_allclose(lengths[present_Vb], 1.0, rtol=TOLERANCE)
    assert (np.asarray(z_VbE)[~present_Vb] == 0).all() and not present_Vb.all()


def test_bfloat16_is_close_to_float32_and_not_equal():
    half = config_of(precision=Precision.BFLOAT16)
    packed = packed_of(FIRST, TINY)
    (z, present), (z_half, _) = encode(TINY, packed), encode(half, packed)
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
        "embedding": (VOCABULARY, 16),
        "item": {},
        "service": {},
    }
