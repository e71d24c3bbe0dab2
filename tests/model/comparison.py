"""A small encoder, users with every case that matters, and what compares two forms of encoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from clue_jax.config import EncoderConfig, TransformerConfig
from clue_jax.data.capacity import capacity_for
from clue_jax.data.packing import pack_views
from clue_jax.data.sampling import full_views
from clue_jax.model import clue
from tests.model import padded
from tests.samples import VOCABULARY, sample_users

# Float32 sums in another order; gradients are compared relative to the largest of their array.
TOLERANCE = 1e-5

LAYER = TransformerConfig(1, 2, 24)
# Rows of few slots and chunks of few rows: a handful of users needs several chunks of each kind.
TINY = EncoderConfig(
    width=16,
    embedding_width=8,
    item=LAYER,
    service=LAYER,
    max_item_tokens=6,
    max_history=5,
    row_tokens=8,
    item_rows=3,
    row_behaviours=8,
    history_rows=2,
)
# 40 users over 15 items a service: much is shared. Texts and histories exceed the caps.
USERS = sample_users(40, seed=3, catalogue=15, empty=0.25)
AT_ONCE = 10
FIRST = USERS.take(range(AT_ONCE))


def config_of(**changes):
    return dataclasses.replace(TINY, **changes)


def packed_of(users, config, views=None, capacity=None, draws=None):
    views = views or full_views(users, config.max_history)
    capacity = capacity or capacity_of(users, config, views.num_views)
    return pack_views(users, views, capacity, config, draws)[0]


def capacity_of(users, config, views=2):
    return capacity_for(users, config, len(users), views, parts=views > 2)


def random_parameters(config):
    """Random parameters, norm scales included (at one, a missing scale could not be seen)."""
    shapes = jax.eval_shape(lambda: clue.init(config, VOCABULARY, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        normal = rng.normal(size=leaf.shape).astype(np.float32)
        return jnp.asarray(1 + 0.1 * normal if "scale" in str(path[-1]) else 0.25 * normal)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def random_weights(config, views, users):
    shape = views, users, config.embedding_width
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def value_and_gradient(encode):
    """jit of (params, weights_VbE, *arrays) -> z, and the gradient of sum(weights * z)."""

    def run(params, weights, *arrays):
        z, pull = jax.vjp(lambda params: encode(params, *arrays), params)
        return z, pull(weights)[0]

    return jax.jit(run)


def packed_form(config, max_items, layer_dropout=0.0):
    return value_and_gradient(
        lambda params, packed: clue.encode(params, config, packed, max_items, layer_dropout)[0]
    )


def padded_form(config):
    return value_and_gradient(
        lambda params, *arrays: jnp.swapaxes(padded.encode(params, config, *arrays), 0, 1)
    )


def assert_same(given, expected):
    (z, gradient), (expected_z, expected_gradient) = given, expected
    np.testing.assert_allclose(z, expected_z, rtol=0, atol=TOLERANCE)
    ours, theirs = (jax.tree_util.tree_leaves_with_path(g) for g in (gradient, expected_gradient))
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        largest = np.abs(b).max()
        assert largest > 1e-3, f"{path}: no gradient, so nothing was compared"
        np.testing.assert_allclose(a / largest, b / largest, 0, TOLERANCE, err_msg=str(path))
