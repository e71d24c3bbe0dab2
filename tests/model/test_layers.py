"""Packed rows: what a segment may and may not depend on."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clue_jax.config import Activation, EncoderConfig, Remat, TransformerConfig
from clue_jax.model.layers import Norm, Stack, rotate, segment_mean, unit
from tests.model.jaxprs import equations

TOLERANCE = dict(rtol=0, atol=2e-5)

ROW, D = 12, 16
TWO_LAYERS = TransformerConfig(num_layers=2, num_heads=2, mlp_width=24)
CONFIG = EncoderConfig(width=D, item=TWO_LAYERS)


def stack_of(**changes):
    """A stack's parameters, and its call as a jitted function."""
    config = dataclasses.replace(CONFIG, **changes)
    graph, state = nnx.split(Stack(config, config.item, nnx.Rngs(params=0)))
    return state, jax.jit(lambda state, x, segments: nnx.merge(graph, state)(x, segments, None))


STATE, CALL = stack_of()


def rows_with(segment, row, offset, seed):
    """Two rows of random neighbours, with `segment` as number 5 at a place."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, ROW, D)).astype(np.float32)
    numbers = np.sort(rng.integers(0, 4, (2, ROW)), axis=1)
    numbers[row, offset + len(segment) :] += 6
    x[row, offset : offset + len(segment)] = segment
    numbers[row, offset : offset + len(segment)] = 5
    return x, numbers


@hypothesis.given(st.data(), st.integers(1, ROW), st.integers(0, 99))
@hypothesis.settings(max_examples=25, deadline=None)
def test_a_segment_depends_neither_on_its_place_nor_on_its_neighbours(data, length, seed):
    segment = np.random.default_rng(seed).normal(size=(length, D)).astype(np.float32)
    outputs = []
    for _ in range(2):
        row, offset = data.draw(st.integers(0, 1)), data.draw(st.integers(0, ROW - length))
        x, numbers = rows_with(segment, row, offset, seed=data.draw(st.integers(0, 99)))
        outputs.append(CALL(STATE, x, numbers)[row, offset : offset + length])
    np.testing.assert_allclose(*outputs, **TOLERANCE)


def test_every_slot_of_a_segment_sees_every_other():
    x = np.random.default_rng(0).normal(size=(1, ROW, D)).astype(np.float32)
    numbers = np.array([[0] * 5 + [1] * 7])
    before = np.asarray(CALL(STATE, x, numbers))
    for changed in range(ROW):
        other = x.copy()
        other[0, changed] += 1
        moved = np.abs(CALL(STATE, other, numbers) - before)[0].max(axis=-1) > 1e-3
        assert moved.tolist() == (numbers[0] == numbers[0, changed]).tolist()


def test_the_order_of_tokens_matters():
    x = np.random.default_rng(0).normal(size=(1, ROW, D)).astype(np.float32)
    turned = np.roll(x, 1, axis=1)
    one = np.zeros((1, ROW), int)
    ordered, moved = CALL(STATE, x, one), CALL(STATE, turned, one)
    assert np.abs(ordered.mean(axis=1) - moved.mean(axis=1)).max() > 0.01
    # Control: without queries attention is uniform, and a set has no order.
    no_queries = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[:, :, 0].set(0) if "qkv" in str(path) else leaf, STATE
    )
    ordered, moved = CALL(no_queries, x, one), CALL(no_queries, turned, one)
    np.testing.assert_allclose(ordered.mean(axis=1), moved.mean(axis=1), **TOLERANCE)


def test_rotation_keeps_lengths_and_depends_on_distance():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 2, 1, 8)).astype(np.float32)
    rows = (1, 2, ROW, 8)
    q, k = rotate(jnp.broadcast_to(q, rows)), rotate(jnp.broadcast_to(k, rows))
    lengths = jnp.linalg.norm(q, axis=-1)
    np.testing.assert_allclose(lengths, jnp.broadcast_to(lengths[:, :, :1], lengths.shape), 1e-5)
    logits = np.einsum("RHLK,RHMK->HLM", q, k)
    for distance in range(-ROW + 1, ROW):
        same = np.diagonal(logits, distance, axis1=1, axis2=2)
        assert np.ptp(same, axis=1).max() < 1e-4
    assert np.ptp(logits, axis=(1, 2)).min() > 0.5


@pytest.mark.parametrize("activation", Activation)
def test_recomputing_blocks_keeps_less_and_leaves_output_and_gradients_alone(activation):
    x = np.random.default_rng(0).normal(size=(2, ROW, D)).astype(np.float32)
    numbers = np.sort(np.random.default_rng(1).integers(0, 3, (2, ROW)), axis=1)

    def run(remat):
        """Output and gradients, numbers kept for the way back, and matrix products in all."""
        state, call = stack_of(remat=remat, activation=activation)

        @jax.jit
        def both(state, x):
            return jax.value_and_grad(lambda *given: jnp.sum(call(*given, numbers) ** 2), (0, 1))(
                state, x
            )

        kept = jax.tree.leaves(jax.eval_shape(lambda: jax.vjp(call, state, x, numbers)[1]))
        products = [
            eqn
            for eqn in equations(jax.make_jaxpr(both)(state, x).jaxpr)
            if eqn.primitive.name == "dot_general"
        ]
        return both(state, x), sum(leaf.size for leaf in kept), len(products)

    runs = [run(remat) for remat in (Remat.NONE, Remat.LINEAR, Remat.FULL)]
    values, kept, products = zip(*runs, strict=True)
    assert kept[0] > kept[1] > kept[2]
    assert products[0] < products[1] < products[2]
    for other in values[1:]:
        for a, b in zip(*map(jax.tree.leaves, (values[0], other)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_a_stack_without_layers_changes_nothing_and_has_no_parameters():
    stack = Stack(CONFIG, TransformerConfig(num_layers=0), nnx.Rngs(params=0))
    x = np.ones((1, 3, D), np.float32)
    assert stack(x, np.zeros((1, 3), int), None) is x
    assert not jax.tree.leaves(nnx.state(stack, nnx.Param))


def test_norm_divides_by_the_root_mean_square_and_keeps_the_type():
    norm = Norm(4)
    norm.scale[...] = jnp.array([1.0, 2.0, 3.0, 4.0])
    x = np.array([[3.0, -3.0, 3.0, -3.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(norm(x), [[1, -2, 3, -4], [0, 0, 0, 0]], rtol=1e-5)
    assert norm(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


def test_unit_vectors_have_length_one_and_zero_stays_zero_with_a_finite_gradient():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [3e-4, 4e-4]], np.float32)
    np.testing.assert_allclose(unit(x), [[0.6, 0.8], [0, 0], [0.6, 0.8]], rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(x)).all()
    assert unit(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32


def test_segment_mean_leaves_padding_out_and_absent_segments_zero():
    x = jnp.arange(12, dtype=jnp.bfloat16).reshape(2, 3, 2)
    mean = segment_mean(x, jnp.array([[0, 0, 3], [2, 3, 3]]), 3)
    np.testing.assert_array_equal(mean, [[1, 2], [0, 0], [6, 7]])
    assert mean.dtype == jnp.float32
