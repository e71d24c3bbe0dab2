"""A loop whose trip count is data, differentiable, with memory for one chunk at a time.

`lax.while_loop` has no reverse mode and `lax.scan` always runs to its full length. The custom
derivative here saves only the inputs, computes each chunk in use once more on the way back, and
adds up the gradients of what all chunks share. Rows that a chunk looks up in a table get theirs
added in place, so a chunk costs the same however large the table is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from clue_jax.parallel.mesh import varying

Tree = Any
# (shared, looked_up [..., D], fixed) of one chunk -> [W, D']; its first `count` rows are meaningful
Compute = Callable[[Tree, jax.Array, Tree], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chunks:
    """What differs between chunks: integers, leading dimension C; no gradient flows into them."""

    index: jax.Array  # [C, ...] rows of the table that a chunk looks up
    fixed: Tree  # what else a chunk computes with
    span_C2: jax.Array  # first row of the result that a chunk fills, and how many it fills
    count: jax.Array  # scalar: chunks in use; a value, so nothing recompiles when it changes


def table_of_chunks(
    compute: Compute, shared: Tree, lookup_XD: jax.Array, chunks: Chunks, rows: int
) -> jax.Array:
    """Computes the chunks in use and lays their rows into one table.

    Args:
        compute: of one chunk.
        shared: float arrays every chunk uses.
        lookup_XD: float table; a chunk gets `lookup_XD[index[c]]`.
        chunks: their results lie end to end in increasing order.
        rows: N, rows of the result at most.

    Returns:
        [N, D'] table; rows that no chunk holds are zero.
    """
    return _table(compute, rows, shared, lookup_XD, chunks)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _table(
    compute: Compute, rows: int, shared: Tree, lookup_XD: jax.Array, chunks: Chunks
) -> jax.Array:
    one = jax.eval_shape(lambda: _chunk(compute, shared, lookup_XD, chunks, 0))
    # A chunk writes all its W rows; the next one overwrites those beyond its count.
    table = jnp.zeros((rows + one.shape[0], *one.shape[1:]), one.dtype)

    def body(c: jax.Array, table: jax.Array) -> jax.Array:
        start, count = chunks.span_C2[c]
        out = _only(count, _chunk(compute, shared, lookup_XD, chunks, c))
        return jax.lax.dynamic_update_slice_in_dim(table, out, start, axis=0)

    return jax.lax.fori_loop(0, chunks.count, body, varying(table, chunks.count))[:rows]


def _forward(
    compute: Compute, rows: int, shared: Tree, lookup_XD: jax.Array, chunks: Chunks
) -> tuple[jax.Array, Tree]:
    return _table(compute, rows, shared, lookup_XD, chunks), (shared, lookup_XD, chunks)


def _backward(compute: Compute, rows: int, saved: Tree, table_bar: jax.Array) -> Tree:
    shared, lookup_XD, chunks = saved
    width = jax.eval_shape(lambda: _chunk(compute, shared, lookup_XD, chunks, 0)).shape[0]
    padded = jnp.pad(table_bar, ((0, width),) + ((0, 0),) * (table_bar.ndim - 1))

    def body(c: jax.Array, totals: tuple[Tree, jax.Array]) -> tuple[Tree, jax.Array]:
        start, count = chunks.span_C2[c]
        index, fixed = _of_chunk(chunks, c)
        out_bar = jax.lax.dynamic_slice_in_dim(padded, start, width, axis=0)
        _, pull = jax.vjp(
            lambda shared, looked_up: compute(shared, looked_up, fixed), shared, lookup_XD[index]
        )
        shared_bar, looked_up_bar = pull(_only(count, out_bar))
        return jax.tree.map(jnp.add, totals[0], shared_bar), totals[1].at[index].add(looked_up_bar)

    zeros = varying(jax.tree.map(jnp.zeros_like, (shared, lookup_XD)), chunks.count)
    return *jax.lax.fori_loop(0, chunks.count, body, zeros), None


_table.defvjp(_forward, _backward)


def _chunk(
    compute: Compute, shared: Tree, lookup_XD: jax.Array, chunks: Chunks, c: jax.Array | int
) -> jax.Array:
    index, fixed = _of_chunk(chunks, c)
    return compute(shared, lookup_XD[index], fixed)


def _of_chunk(chunks: Chunks, c: jax.Array | int) -> tuple[jax.Array, Tree]:
    return chunks.index[c], jax.tree.map(lambda a: a[c], chunks.fixed)


def _only(count: jax.Array, rows_WD: jax.Array) -> jax.Array:
    return jnp.where(jnp.arange(rows_WD.shape[0])[:, None] < count, rows_WD, 0)
