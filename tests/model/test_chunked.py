"""The loop over chunks against the same chunks stacked, value and gradient."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clue_jax.config import MeshConfig
from clue_jax.model.chunked import Chunks, table_of_chunks
from clue_jax.parallel.mesh import DEVICES, make_mesh
from tests.model.jaxprs import equations

TOLERANCE = dict(rtol=1e-5, atol=1e-5)

CHUNKS, WIDTH, D = 8, 3, 4
ROWS = CHUNKS * WIDTH
LOOKUP = 10


def compute(shared, looked_up_WND, fixed_W):
    """Rows that depend on the chunk's integers and, not linearly, on everything shared."""
    return jnp.tanh(looked_up_WND.sum(axis=1) @ shared["matrix"] * fixed_W[:, None])


def looped(shared, lookup, chunks):
    return table_of_chunks(compute, shared, lookup, chunks, ROWS)


def stacked(shared, lookup, chunks):
    """Chunk by chunk in Python; traced values appear nowhere, so it needs a concrete count."""
    table = jnp.zeros((ROWS, D))
    for c in range(chunks.count):
        start, count = chunks.span_C2[c]
        rows = compute(shared, lookup[chunks.index[c]], jnp.asarray(chunks.fixed[c]))
        table = table.at[start : start + count].set(rows[:count])
    return table


def inputs(counts, seed=0):
    """Random arrays, and chunks with those counts of rows; rows look up two places each."""
    rng = np.random.default_rng(seed)
    shared = {"matrix": rng.normal(size=(D, D)).astype(np.float32)}
    lookup = rng.normal(size=(LOOKUP, D)).astype(np.float32)
    index = rng.integers(0, LOOKUP, (CHUNKS, WIDTH, 2)).astype(np.int32)
    fixed = rng.integers(1, 4, (CHUNKS, WIDTH)).astype(np.int32)
    # Chunks that are not in use say nonsense; nobody may look at it.
    spans = np.full((CHUNKS, 2), -7, np.int32)
    spans[: len(counts)] = np.stack([np.cumsum(counts) - counts, counts], axis=1)
    weights = rng.normal(size=(ROWS, D)).astype(np.float32)
    return shared, lookup, Chunks(index, fixed, spans, np.int32(len(counts))), weights


def value_and_gradient(form, shared, lookup, chunks, weights):
    table, pull = jax.vjp(lambda shared, lookup: form(shared, lookup, chunks), shared, lookup)
    return table, pull(weights)


looped_value_and_gradient = jax.jit(functools.partial(value_and_gradient, looped))
stacked_value_and_gradient = functools.partial(value_and_gradient, stacked)


def assert_same(given, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), given, expected)


@pytest.mark.parametrize("counts", [[], [2], [3, 1, 3, 2]], ids=len)
def test_value_and_gradient_equal_stacked_chunks(counts):
    arguments = inputs(np.array(counts, int))
    table, gradient = looped_value_and_gradient(*arguments)
    assert_same((table, gradient), stacked_value_and_gradient(*arguments))
    assert (np.asarray(table)[sum(counts) :] == 0).all()
    assert all(leaf.any() == bool(counts) for leaf in jax.tree.leaves(gradient))


@hypothesis.given(st.lists(st.integers(1, WIDTH), max_size=CHUNKS), st.integers(0, 99))
@hypothesis.settings(max_examples=15, deadline=None)
def test_any_number_of_uneven_chunks_equals_stacked_chunks(counts, seed):
    arguments = inputs(np.array(counts, int), seed)
    assert_same(looped_value_and_gradient(*arguments), stacked_value_and_gradient(*arguments))


def test_a_row_looked_up_often_collects_all_its_gradients():
    shared, lookup, chunks, weights = inputs(np.array([3, 3]))
    chunks = Chunks(np.full_like(chunks.index, 7), chunks.fixed, chunks.span_C2, chunks.count)
    arguments = shared, lookup, chunks, weights
    given = looped_value_and_gradient(*arguments)
    assert_same(given, stacked_value_and_gradient(*arguments))
    assert np.flatnonzero(np.asarray(given[1][1]).any(axis=1)).tolist() == [7]


def test_a_partial_last_chunk_may_end_the_table():
    shared, lookup, chunks, weights = inputs(np.array([3, 2, 1]))

    def full(shared, lookup, chunks):
        return table_of_chunks(compute, shared, lookup, chunks, rows=6)

    def cut(shared, lookup, chunks):
        return stacked(shared, lookup, chunks)[:6]

    jitted = jax.jit(functools.partial(value_and_gradient, full))
    given = jitted(shared, lookup, chunks, weights[:6])
    assert_same(given, value_and_gradient(cut, shared, lookup, chunks, weights[:6]))


def test_a_new_number_of_chunks_does_not_recompile():
    run = jax.jit(looped_value_and_gradient.__wrapped__)
    traces = []
    for counts in ([], [1], [2, 3], [3] * CHUNKS):
        table, _ = run(*inputs(np.array(counts, int)))
        traces.append(run._cache_size())
        assert np.asarray(table).any(axis=1).sum() == sum(counts)
    assert traces == [1, 1, 1, 1]


def test_chunks_out_of_use_are_computed_on_neither_way():
    ran = []

    def noting(shared, looked_up, fixed):
        jax.debug.callback(lambda fixed: ran.append(fixed.tolist()), fixed)
        return compute(shared, looked_up, fixed)

    def form(shared, lookup, chunks):
        return table_of_chunks(noting, shared, lookup, chunks, ROWS)

    arguments = inputs(np.array([2, 3]))
    used = sorted(arguments[2].fixed[:2].tolist())
    jax.block_until_ready(jax.jit(form)(*arguments[:3]))
    jax.effects_barrier()
    assert sorted(ran) == used
    jax.block_until_ready(jax.jit(functools.partial(value_and_gradient, form))(*arguments))
    jax.effects_barrier()
    assert sorted(ran) == sorted(3 * used)  # there, and once more on the way back


def test_the_way_back_keeps_nothing_of_the_chunks():
    shared, lookup, chunks, _ = jax.tree.map(jnp.asarray, inputs(np.array([2, 3])))
    _, pull = jax.vjp(lambda shared, lookup: looped(shared, lookup, chunks), shared, lookup)
    given = {leaf.shape for leaf in jax.tree.leaves((shared, lookup, chunks))}
    kept = {leaf.shape for leaf in jax.tree.leaves(pull)}
    assert kept and kept <= given


def test_the_gradient_of_the_lookup_table_is_added_in_place():
    """A dense gradient of its own for each chunk would cost chunks x table."""
    jaxpr = jax.make_jaxpr(looped_value_and_gradient)(*inputs(np.array([2, 3]))).jaxpr
    whiles = [eqn for eqn in equations(jaxpr) if eqn.primitive.name == "while"]
    loops = [eqn.params["body_jaxpr"].jaxpr for eqn in whiles]
    assert len(loops) == 2
    table_shaped = [
        eqn.primitive.name
        for loop in loops
        for eqn in equations(loop)
        if any(getattr(v.aval, "shape", None) == (LOOKUP, D) for v in eqn.outvars)
    ]
    assert table_shaped == ["scatter-add"]


def test_devices_of_a_mesh_run_different_numbers_of_chunks():
    mesh = make_mesh(MeshConfig())
    assert mesh.size == 8
    counts = [np.array([2, 3, 1, 3, 3, 1, 2][:device], int) for device in range(8)]
    each = [inputs(counts[device], seed=device) for device in range(8)]
    shared, lookup, _, _ = each[0]
    chunks, weights = (
        jax.tree.map(lambda *arrays: np.stack(arrays), *(one[at] for one in each)) for at in (2, 3)
    )

    def device(shared, lookup, chunks, weights):
        own = jax.tree.map(lambda a: jax.lax.pcast(a, DEVICES, to="varying"), (shared, lookup))
        chunks, weights = jax.tree.map(lambda a: a[0], (chunks, weights))
        table, gradient = value_and_gradient(looped, *own, chunks, weights)
        return table[None], jax.lax.psum(gradient, DEVICES)

    specs = P(), P(), P(DEVICES), P(DEVICES)
    run = jax.jit(jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=(P(DEVICES), P())))
    tables, gradient = run(shared, lookup, chunks, weights)
    expected = [stacked_value_and_gradient(shared, lookup, *one[2:]) for one in each]
    total = jax.tree.map(lambda *parts: sum(parts), *(gradient for _, gradient in expected))
    assert_same((tables, gradient), (np.stack([table for table, _ in expected]), total))
