"""A loop whose trip count is data, differentiable, with memory for one chunk at a time.

`lax.while_loop` has no reverse mode and `lax.scan` always runs to its full length. The custom
derivative here saves only the inputs, computes each chunk in use once more on the way back, and
adds up the gradients of what all chunks share. Rows that a chunk looks up in a table get theirs
added in place, so a chunk costs the same however large the table is.

Inputs may lie in shards over devices: they are gathered once, before the first chunk, and the sums
of their gradients go back to the shards once, after the last.
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
    count: jax.Array  # scalar: chunks to compute; a value, so nothing recompiles when it changes


@dataclass(frozen=True)
class Transfer:
    """How what all chunks share comes to a device, and its gradients go back; both are linear."""

    gather: Callable[[Tree], Tree] = lambda inputs: inputs
    scatter: Callable[[Tree], Tree] = lambda gradients: gradients  # float32


def table_of_chunks(
    compute: Compute,
    shared: Tree,
    lookup_XD: jax.Array,
    chunks: Chunks,
    rows: int,
    transfer: Transfer = Transfer(),
) -> jax.Array:
    """Computes the chunks in use and lays their rows into one table.

    Args:
        compute: of one chunk.
        shared: float32 arrays every chunk uses.
        lookup_XD: float32 table; a chunk gets `lookup_XD[index[c]]`.
        chunks: their results lie end to end in increasing order.
        rows: N, rows of the result at most.
        transfer: of (shared, lookup).

    Returns:
        [N, D'] table; rows that no chunk holds are zero.
    """
    return _table(compute, rows, transfer, (shared, lookup_XD), chunks)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _table(
    compute: Compute, rows: int, transfer: Transfer, inputs: Tree, chunks: Chunks
) -> jax.Array:
    return _forward(compute, rows, transfer, inputs, chunks)[0]


def _forward(
    compute: Compute, rows: int, transfer: Transfer, inputs: Tree, chunks: Chunks
) -> tuple[jax.Array, Tree]:
    whole = transfer.gather(inputs)
    one = jax.eval_shape(lambda: _chunk(compute, whole, chunks, 0))
    # A chunk writes all its W rows; the next one overwrites those beyond its count.
    table = jnp.zeros((rows + one.shape[0], *one.shape[1:]), one.dtype)

    def body(c: jax.Array, table: jax.Array) -> jax.Array:
        start, count = chunks.span_C2[c]
        out = _only(count, _chunk(compute, whole, chunks, c))
        return jax.lax.dynamic_update_slice_in_dim(table, out, start, axis=0)

    table = jax.lax.fori_loop(0, chunks.count, body, varying(table, chunks.span_C2[0, 0]))
    return table[:rows], (whole, chunks)


def _backward(
    compute: Compute, rows: int, transfer: Transfer, saved: Tree, table_bar: jax.Array
) -> Tree:
    (shared, lookup_XD), chunks = saved
    width = jax.eval_shape(lambda: _chunk(compute, (shared, lookup_XD), chunks, 0)).shape[0]
    padded = jnp.pad(table_bar, ((0, width),) + ((0, 0),) * (table_bar.ndim - 1))

    def body(c: jax.Array, totals: tuple[Tree, jax.Array]) -> tuple[Tree, jax.Array]:
        start, count = chunks.span_C2[c]
        index, fixed = _of_chunk(chunks, c)
        out_bar = jax.lax.dynamic_slice_in_dim(padded, start, width, axis=0)
        _, pull = jax.vjp(
            lambda shared, looked_up: compute(shared, looked_up, fixed), shared, lookup_XD[index]
        )
        shared_bar, looked_up_bar = pull(_only(count, out_bar))
        return (
            jax.tree.map(lambda total, bar: total + bar, totals[0], shared_bar),
            totals[1].at[index].add(looked_up_bar.astype(jnp.float32)),
        )

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), (shared, lookup_XD))
    totals = jax.lax.fori_loop(0, chunks.count, body, varying(zeros, chunks.span_C2[0, 0]))
    return transfer.scatter(totals), None


_table.defvjp(_forward, _backward)


def _chunk(compute: Compute, whole: Tree, chunks: Chunks, c: jax.Array | int) -> jax.Array:
    shared, lookup_XD = whole
    index, fixed = _of_chunk(chunks, c)
    return compute(shared, lookup_XD[index], fixed)


def _of_chunk(chunks: Chunks, c: jax.Array | int) -> tuple[jax.Array, Tree]:
    return chunks.index[c], jax.tree.map(lambda a: a[c], chunks.fixed)


def _only(count: jax.Array, rows_WD: jax.Array) -> jax.Array:
    return jnp.where(jnp.arange(rows_WD.shape[0])[:, None] < count, rows_WD, 0)
