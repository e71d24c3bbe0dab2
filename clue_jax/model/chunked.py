"""A loop whose trip count is data, differentiable, with memory for one chunk at a time.

`lax.while_loop` has no reverse mode and `lax.scan` always runs to its full length. The custom
derivative here saves only the inputs, computes each chunk in use once more on the way back, and
adds up the gradients of what all chunks share. Calls nest: a chunk may itself be such a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def table_of_chunks(
    compute: Callable[[Tree, Tree, jax.Array], jax.Array],
    shared: Tree,
    fixed: Tree,
    spans_C2: jax.Array,
    chunks_2: jax.Array,
    rows: int,
) -> jax.Array:
    """Computes a range of chunks and lays their rows into one table.

    Args:
        compute: (shared, fixed, c) -> [W, D]; its first `count` rows are meaningful.
        shared: float arrays every chunk uses; gradients flow into it.
        fixed: integer arrays; no gradient.
        spans_C2: int32, where in the table the rows of each chunk start, and how many there are.
            Chunks in use lie end to end in increasing order.
        chunks_2: int32, the first chunk and one past the last: values, so nothing recompiles when
            they change.
        rows: N, rows of the table at most.

    Returns:
        [N, D] table; rows that no chunk holds are zero.
    """
    return _table(compute, rows, shared, fixed, spans_C2, chunks_2[0], chunks_2[1])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _table(compute, rows, shared, fixed, spans_C2, first, last):
    shape = jax.eval_shape(compute, shared, fixed, first)
    width = shape.shape[0]
    # A chunk writes all its W rows; the next one overwrites those beyond its count.
    table = jnp.zeros((rows + width, *shape.shape[1:]), shape.dtype)

    def body(c: jax.Array, table: jax.Array) -> jax.Array:
        start, count = spans_C2[c]
        out = _only(count, compute(shared, fixed, c))
        return jax.lax.dynamic_update_slice_in_dim(table, out, start, axis=0)

    return jax.lax.fori_loop(first, last, body, _varying(table, last))[:rows]


def _forward(compute, rows, shared, fixed, spans_C2, first, last):
    table = _table(compute, rows, shared, fixed, spans_C2, first, last)
    return table, (shared, fixed, spans_C2, first, last)


def _backward(compute, rows, saved, table_bar):
    shared, fixed, spans_C2, first, last = saved
    width = jax.eval_shape(compute, shared, fixed, first).shape[0]
    padded = jnp.pad(table_bar, ((0, width),) + ((0, 0),) * (table_bar.ndim - 1))

    def body(c: jax.Array, total: Tree) -> Tree:
        start, count = spans_C2[c]
        out_bar = jax.lax.dynamic_slice_in_dim(padded, start, width, axis=0)
        _, pull = jax.vjp(lambda shared: compute(shared, fixed, c), shared)
        return jax.tree.map(jnp.add, total, pull(_only(count, out_bar))[0])

    zeros = _varying(jax.tree.map(jnp.zeros_like, shared), last)
    return jax.lax.fori_loop(first, last, body, zeros), None, None, None, None


_table.defvjp(_forward, _backward)


def _only(count: jax.Array, rows_WD: jax.Array) -> jax.Array:
    return jnp.where(jnp.arange(rows_WD.shape[0])[:, None] < count, rows_WD, 0)


def _varying(init: Tree, last: jax.Array) -> Tree:
    """Lets loop-carried zeros vary over the mesh axes that the trip count varies over.

    Inside `shard_map` a carry must keep its type, and a constant is the same on all devices. Adding
    an integer zero computed from the trip count says otherwise in every version of JAX.
    """
    zero = last - last
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), init)
