"""How every device's rows meet every device's columns, and what they learn comes home.

gather  all columns at once: one all-gather of vectors on the way there, one reduce-scatter of
        float32 gradients on the way back
ring    a block of columns visits one device after the other, the next one in flight while this
        one is computed; memory does not grow with the number of devices
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from clue_jax.config import LossForm
from clue_jax.losses.tiles import Block, Gradients, Logit, Sums, add_block, add_block_gradients

# One mesh axis, or several: devices are then counted with the last axis fastest.
Axis = str | tuple[str, ...]
LogSums = tuple[jax.Array, jax.Array]  # [T, t] of rows and of columns


def gather(columns: Block, axis: Axis) -> Block:
    """The tiles of all devices, in order."""
    return Block(*(jax.lax.all_gather(part, axis, tiled=True) for part in columns))


def gather_sums(
    form: LossForm, logit: Logit, rows: Block, gathered: Block, axis: Axis
) -> tuple[Sums, Sums]:
    """The sums of this device's rows, and of its columns over all devices' rows."""
    none = Sums.none(rows), Sums.none(gathered)
    by_row, parts = add_block(form, logit, rows, gathered, none)
    largest = jax.lax.pmax(parts.largest_Tt, axis)
    total = parts.total_Tt
    if form is LossForm.SOFTMAX:
        total = total * jnp.exp(parts.largest_Tt - largest)
    tiles = len(largest) // jax.lax.axis_size(axis)
    own = jax.lax.dynamic_slice_in_dim(largest, jax.lax.axis_index(axis) * tiles, tiles)
    return by_row, Sums(own, jax.lax.psum_scatter(total, axis, tiled=True))


def gather_gradients(
    form: LossForm, logit: Logit, rows: Block, gathered: Block, log_sums: LogSums, axis: Axis
) -> Gradients:
    """Gradients of this device's rows and columns."""
    everyone = log_sums[0], jax.lax.all_gather(log_sums[1], axis, tiled=True)
    none = Gradients.none(rows, gathered)
    found = add_block_gradients(form, logit, rows, gathered, everyone, none)
    to_columns = jax.lax.psum_scatter(found.columns_TtE, axis, tiled=True)
    return found._replace(columns_TtE=to_columns)


def ring_sums(
    form: LossForm, logit: Logit, rows: Block, columns: Block, axis: Axis
) -> tuple[Sums, Sums]:
    """Likewise, each block of columns with its sums on the way."""
    send = _to_neighbour(axis)

    def visit(_: jax.Array, carry: Any) -> Any:
        block, by_row, by_column = carry
        following = send(block)  # under way while this block is computed
        by_row, by_column = add_block(form, logit, rows, block, (by_row, by_column))
        return following, by_row, send(by_column)

    start = columns, Sums.none(rows), Sums.none(columns)
    _, by_row, by_column = jax.lax.fori_loop(0, jax.lax.axis_size(axis), visit, start)
    return by_row, by_column


def ring_gradients(
    form: LossForm, logit: Logit, rows: Block, columns: Block, log_sums: LogSums, axis: Axis
) -> Gradients:
    """Likewise, each block of columns with its gradients on the way."""
    send = _to_neighbour(axis)

    def visit(_: jax.Array, carry: Any) -> Any:
        block, of_block, found = carry
        following = send((block, of_block))
        found = add_block_gradients(form, logit, rows, block, (log_sums[0], of_block), found)
        return *following, found._replace(columns_TtE=send(found.columns_TtE))

    start = columns, log_sums[1], Gradients.none(rows, columns)
    return jax.lax.fori_loop(0, jax.lax.axis_size(axis), visit, start)[2]


def _to_neighbour(axis: Axis) -> Callable[[Any], Any]:
    devices = jax.lax.axis_size(axis)
    pairs = [(device, (device - 1) % devices) for device in range(devices)]
    return lambda tree: jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, axis, pairs), tree)
