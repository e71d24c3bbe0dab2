"""Stochastic depth: the blocks that were drawn are skipped, by whole items and whole views."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import SamplingConfig, TransformerConfig
from clue_jax.data.packing import Draws
from clue_jax.data.sampling import block_draws, full_views
from clue_jax.model import clue
from clue_jax.model.layers import Skips
from tests.model import padded
from tests.model.comparison import (
    AT_ONCE,
    FIRST,
    TOLERANCE,
    assert_same,
    capacity_of,
    config_of,
    packed_form,
    packed_of,
    random_parameters,
    random_weights,
    value_and_gradient,
)

RATE = 0.4
TWO_LAYERS = TransformerConfig(2, 2, 24)
CONFIG = config_of(item=TWO_LAYERS, service=TWO_LAYERS)
# Guides stay, so that the texts are those of the padded form.
SAMPLING = SamplingConfig(layer_dropout=RATE, generic_guide=0.0)
DRAWS = Draws(SAMPLING, seed=5, step=3, identities=7 * np.arange(AT_ONCE) + 1)
PARAMS = random_parameters(CONFIG)
WEIGHTS = random_weights(CONFIG, 2, AT_ONCE)
CAPACITY = capacity_of(FIRST, CONFIG)
FORM = packed_form(CONFIG, CAPACITY.items, RATE)


def gains(bits, layers):
    """What each of the blocks multiplies its branches by: [layers, *bits.shape]."""
    skipped = np.array([(bits & (1 << layer)) > 0 for layer in range(layers)])
    return np.where(skipped, 0, 1 / (1 - RATE)).astype(np.float32)


def padded_gains(users, views, draws):
    """Of each behaviour and of each view, from the draws of its item and of its user and view."""
    item_bits = np.zeros((len(users), views.num_views, CONFIG.max_history), np.int64)
    view_bits = np.zeros((len(users), views.num_views), np.int64)
    drawn = functools.partial(block_draws, draws.sampling, draws.seed, draws.step, 2)
    for n in range(len(users)):
        for v in range(views.num_views):
            row = n * views.num_views + v
            items = views.items[views.offsets[row] : views.offsets[row + 1]]
            item_bits[n, v, : len(items)] = drawn(users.item_ids[items])
            view_bits[n, v] = drawn(draws.identities[[n]], np.array([v]))[0]
    return gains(item_bits, 2), gains(view_bits, 2)


@pytest.fixture(scope="module")
def dropped():
    return FORM(PARAMS, WEIGHTS, packed_of(FIRST, CONFIG, capacity=CAPACITY, draws=DRAWS))


def test_value_and_gradient_equal_the_padded_form_with_the_same_gains(dropped):
    views = full_views(FIRST, CONFIG.max_history)
    gain_BNVT, gain_BNV = padded_gains(FIRST, views, DRAWS)
    for gain in (gain_BNVT, gain_BNV):  # every combination of two blocks occurs
        assert len(np.unique(gain.reshape(2, -1), axis=1).T) == 4
    form = value_and_gradient(
        lambda params, *arrays: jnp.swapaxes(padded.encode(params, CONFIG, *arrays), 0, 1)
    )
    arrays = padded.pad(FIRST, views, CONFIG)
    assert_same(dropped, form(PARAMS, WEIGHTS, *arrays, gain_BNVT, gain_BNV))
    # Control: with the draws of another step the two differ.
    other = padded_gains(FIRST, views, DRAWS._replace(step=4))
    z, _ = form(PARAMS, WEIGHTS, *arrays, *other)
    assert np.abs(z - dropped[0]).max() > 0.01


def test_it_does_not_depend_on_rows_and_chunks(dropped):
    sizes = dict(row_tokens=6, row_behaviours=5, item_rows=1, history_rows=3)
    narrow = dataclasses.replace(CONFIG, **sizes)
    capacity = capacity_of(FIRST, narrow)
    packed = packed_of(FIRST, narrow, capacity=capacity, draws=DRAWS)
    assert_same(packed_form(narrow, capacity.items, RATE)(PARAMS, WEIGHTS, packed), dropped)


def test_without_dropout_the_draws_are_left_out_and_never_looked_at():
    plain = packed_of(FIRST, CONFIG, capacity=CAPACITY)
    at_zero = DRAWS._replace(sampling=dataclasses.replace(SAMPLING, layer_dropout=0.0))
    never = packed_of(FIRST, CONFIG, capacity=CAPACITY, draws=at_zero)
    assert all(map(np.array_equal, plain, never))
    assert never.item_skips_CU.shape[1] == never.view_skips_CU.shape[1] == 1
    drawn = packed_of(FIRST, CONFIG, capacity=CAPACITY, draws=DRAWS)
    assert drawn.item_skips_CU.any() and drawn.view_skips_CU.any()
    encode = jax.jit(lambda packed: clue.encode(PARAMS, CONFIG, packed, CAPACITY.items)[0])
    np.testing.assert_array_equal(encode(drawn), encode(plain))


def test_segments_that_skip_every_block_leave_bags_and_no_gradient_of_blocks():
    packed = packed_of(FIRST, CONFIG, capacity=CAPACITY, draws=DRAWS)
    everything = packed._replace(
        item_skips_CU=np.full_like(packed.item_skips_CU, 3),
        view_skips_CU=np.full_like(packed.view_skips_CU, 3),
    )
    z, gradient = FORM(PARAMS, WEIGHTS, everything)
    bag = dataclasses.replace(CONFIG, item=TransformerConfig(0), service=TransformerConfig(0))
    without = {**PARAMS, "item": {**PARAMS["item"]}, "service": {**PARAMS["service"]}}
    del without["item"]["stack"], without["service"]["stack"]
    plain = packed_of(FIRST, CONFIG, capacity=CAPACITY)
    expected, _ = clue.encode(without, bag, plain, CAPACITY.items)
    np.testing.assert_allclose(z, expected, rtol=0, atol=TOLERANCE)
    for level in ("item", "service"):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient[level]["stack"]))


def test_gains_follow_bits_of_the_segment_and_padding_is_harmless():
    skips = Skips(jnp.array([0b00, 0b01, 0b10], jnp.uint32), 0.5)
    segment = jnp.array([[0, 0, 1, 2, 3]])
    first, second = (np.asarray(skips.gain(segment, jnp.uint32(layer)))[0] for layer in (0, 1))
    np.testing.assert_array_equal(first[:4], [2, 2, 0, 2])
    np.testing.assert_array_equal(second[:4], [2, 2, 2, 0])
    assert np.isfinite([first, second]).all()
