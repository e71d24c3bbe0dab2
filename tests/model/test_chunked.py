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
from clue_jax.model.chunked import table_of_chunks
from clue_jax.parallel.mesh import DATA, make_mesh

TOLERANCE = dict(rtol=1e-5, atol=1e-5)

CHUNKS, WIDTH, D = 8, 3, 4
ROWS = CHUNKS * WIDTH


def compute(shared, fixed, c):
    """Rows that depend on the chunk's integers and, not linearly, on everything shared."""
    return jnp.tanh(shared["table"][fixed[c]] @ shared["matrix"])


def looped(shared, fixed, spans, chunks):
    return table_of_chunks(compute, shared, fixed, spans, chunks, ROWS)


def stacked(shared, fixed, spans, chunks):
    """Chunk by chunk in Python; traced values appear nowhere, so it needs concrete spans."""
    table = jnp.zeros((ROWS, D))
    for c in range(*chunks):
        start, count = spans[c]
        table = table.at[start : start + count].set(compute(shared, fixed, c)[:count])
    return table


def inputs(counts, first=0, seed=0):
    """Random arrays, and spans of chunks with those counts of rows from chunk `first` on."""
    rng = np.random.default_rng(seed)
    shared = {
        "table": rng.normal(size=(10, D)).astype(np.float32),
        "matrix": rng.normal(size=(D, D)).astype(np.float32),
    }
    fixed = jnp.asarray(rng.integers(0, 10, (CHUNKS, WIDTH)))
    # Chunks that are not in use say nonsense; nobody may look at it.
    spans = np.full((CHUNKS, 2), -7, np.int32)
    spans[first : first + len(counts)] = np.stack([np.cumsum(counts) - counts, counts], axis=1)
    weights = rng.normal(size=(ROWS, D)).astype(np.float32)
    return shared, fixed, spans, np.array([first, first + len(counts)], np.int32), weights


@jax.jit
def looped_value_and_gradient(shared, fixed, spans, chunks, weights):
    table, pull = jax.vjp(lambda shared: looped(shared, fixed, spans, chunks), shared)
    return table, pull(weights)[0]


def stacked_value_and_gradient(shared, fixed, spans, chunks, weights):
    table, pull = jax.vjp(lambda shared: stacked(shared, fixed, spans, chunks), shared)
    return table, pull(weights)[0]


def assert_same(given, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), given, expected)


@pytest.mark.parametrize("counts", [[], [2], [3, 1, 3, 2]], ids=len)
def test_value_and_gradient_equal_stacked_chunks(counts):
    arguments = inputs(np.array(counts, int), first=1)
    table, gradient = looped_value_and_gradient(*arguments)
    assert_same((table, gradient), stacked_value_and_gradient(*arguments))
    assert (np.asarray(table)[sum(counts) :] == 0).all()
    assert all(leaf.any() == bool(counts) for leaf in jax.tree.leaves(gradient))


@hypothesis.given(
    st.lists(st.integers(1, WIDTH), max_size=CHUNKS), st.integers(0, CHUNKS), st.integers(0, 99)
)
@hypothesis.settings(max_examples=15, deadline=None)
def test_any_range_of_uneven_chunks_equals_stacked_chunks(counts, first, seed):
    first = min(first, CHUNKS - len(counts))
    arguments = inputs(np.array(counts, int), first, seed)
    assert_same(looped_value_and_gradient(*arguments), stacked_value_and_gradient(*arguments))


def test_a_partial_last_chunk_may_end_the_table():
    shared, fixed, spans, chunks, weights = inputs(np.array([3, 2, 1]))

    def full(shared):
        return table_of_chunks(compute, shared, fixed, jnp.asarray(spans), chunks, rows=6)

    table, pull = jax.vjp(jax.jit(full), shared)
    expected, expected_pull = jax.vjp(lambda s: stacked(s, fixed, spans, chunks)[:6], shared)
    assert_same((table, pull(weights[:6])), (expected, expected_pull(weights[:6])))


def test_a_new_number_of_chunks_does_not_recompile():
    run = jax.jit(looped_value_and_gradient.__wrapped__)
    traces = []
    for counts in ([], [1], [2, 3], [3] * CHUNKS):
        table, _ = run(*inputs(np.array(counts, int)))
        traces.append(run._cache_size())
        assert np.asarray(table).any(axis=1).sum() == sum(counts)
    assert traces == [1, 1, 1, 1]


def test_chunks_out_of_use_are_not_computed():
    ran = []

    def noting(shared, fixed, c):
        jax.debug.callback(lambda c: ran.append(int(c)), c)
        return compute(shared, fixed, c)

    shared, fixed, spans, chunks, _ = inputs(np.array([2, 3]), first=3)
    table = jax.jit(functools.partial(table_of_chunks, noting, rows=ROWS))
    jax.block_until_ready(table(shared, fixed, spans, chunks_2=chunks))
    jax.effects_barrier()
    assert sorted(ran) == [3, 4]


def test_loops_nest():
    """Groups of chunks of rows, whose outer chunk is the squared table of an inner loop."""
    rng = np.random.default_rng(0)
    shared, fixed, *_ = inputs(np.array([], int))
    # Each group numbers its rows from 0: two groups of two chunks and one of one.
    spans = np.array([[0, 3], [3, 2], [0, 1], [1, 3], [0, 2], *[[0, 0]] * 3], np.int32)
    groups = np.array([[0, 2], [2, 4], [4, 5]], np.int32)
    group_spans = np.array([[0, 5], [5, 4], [9, 2]], np.int32)
    weights = rng.normal(size=(ROWS, D)).astype(np.float32)

    def group(shared, fixed, g):
        rows = 2 * WIDTH
        inner = table_of_chunks(compute, shared, fixed, jnp.asarray(spans), groups_G2[g], rows)
        return inner**2 @ shared["matrix"]

    groups_G2 = jnp.asarray(groups)

    @jax.jit
    def nested(shared):
        all_groups = jnp.array([0, 3], jnp.int32)
        return table_of_chunks(group, shared, fixed, jnp.asarray(group_spans), all_groups, ROWS)

    def plain(shared):
        parts = [
            compute(shared, fixed, c)[: spans[c, 1]] ** 2 @ shared["matrix"]
            for g in groups
            for c in range(*g)
        ]
        return jnp.concatenate([*parts, jnp.zeros((ROWS - 11, D))])

    for function in (nested, plain):
        assert function(shared).shape == (ROWS, D)
    (table, pull), (expected, expected_pull) = jax.vjp(nested, shared), jax.vjp(plain, shared)
    assert_same((table, pull(weights)), (expected, expected_pull(weights)))


def test_devices_of_a_mesh_run_different_numbers_of_chunks():
    mesh = make_mesh(MeshConfig())
    assert mesh.size == 8
    counts = [np.array([2, 3, 1, 3, 3, 1, 2][:device], int) for device in range(8)]
    each = [inputs(counts[device], seed=device) for device in range(8)]
    shared = each[0][0]
    fixed, spans, chunks, weights = (np.stack(a) for a in list(zip(*each, strict=True))[1:])

    def device(shared, fixed, spans, chunks, weights):
        shared = jax.tree.map(lambda a: jax.lax.pcast(a, (DATA,), to="varying"), shared)
        arguments = fixed[0], spans[0], chunks[0]
        table, pull = jax.vjp(lambda shared: looped(shared, *arguments), shared)
        return table[None], jax.lax.psum(pull(weights[0])[0], DATA)

    run = jax.jit(
        jax.shard_map(device, mesh=mesh, in_specs=(P(), *[P(DATA)] * 4), out_specs=(P(DATA), P()))
    )
    tables, gradient = run(shared, fixed, spans, chunks, weights)
    expected = [stacked_value_and_gradient(shared, *rest) for _, *rest in each]
    total = jax.tree.map(lambda *parts: sum(parts), *(gradient for _, gradient in expected))
    assert_same((tables, gradient), (np.stack([table for table, _ in expected]), total))
