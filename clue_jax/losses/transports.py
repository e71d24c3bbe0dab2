"""How every device's rows meet every device's columns, and what they learn comes home.

gather  all columns at once: one all-gather of vectors on the way there; on the way back float32
        gradients of one tile of every device at a time, each with its reduce-scatter
ring    half of each device's columns visits one device after the other to the left, half to the
        right, so that links carry both ways at once; memory does not grow with the devices
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from clue_jax.config import LossForm
from clue_jax.losses.tiles import (
    Block,
    Gradients,
    Logit,
    Sums,
    add_block,
    add_block_gradients,
    zeros_like,
)

# One mesh axis, or several: devices are then counted with the last axis fastest.
Axis = str | tuple[str, ...]
LogSums = tuple[jax.Array, jax.Array]  # [T, t] of rows and of columns
Pair = tuple[Any, Any]  # of a device: the half that travels to the left, and the other
Tree = TypeVar("Tree")
Rows = TypeVar("Rows")
Columns = TypeVar("Columns")


def gather(tree: Tree, axis: Axis) -> Tree:
    """The leaves of all devices, in order, along their first dimension."""

    def at_once(part: jax.Array) -> jax.Array:
        return jax.lax.all_gather(part, axis, tiled=True)

    def by_groups(part: jax.Array) -> jax.Array:
        for names, groups in reversed(_in_groups(axis)):
            part = jax.lax.all_gather(part, names, tiled=True, axis_index_groups=groups)
        return part

    return jax.tree.map(
        lambda part: jax.lax.platform_dependent(part, tpu=by_groups, default=at_once), tree
    )


def gather_sums(
    form: LossForm, logit: Logit, rows: Block, gathered: Block, axis: Axis
) -> tuple[Sums, Sums]:
    """The sums of this device's rows, and of its columns over all devices' rows."""
    by_row, parts = add_block(form, logit, rows, gathered, Sums.none(rows))
    largest = jax.lax.pmax(parts.largest_Tt, axis)
    total = scatter(parts.total_at(form, largest), axis)
    own = jax.lax.dynamic_slice_in_dim(largest, jax.lax.axis_index(axis) * len(total), len(total))
    return by_row, Sums(own, total)


def gather_gradients(
    form: LossForm, logit: Logit, rows: Block, gathered: Block, log_sums: LogSums, axis: Axis
) -> tuple[Gradients, jax.Array]:
    """Gradients of this device's rows, and [T, t, E] of its columns."""
    devices = jax.lax.axis_size(axis)
    all_log_sums = gather(log_sums[1], axis)

    def meet(tile: jax.Array, carry: Any) -> Any:
        found, own_TtE = carry
        block, of_block = jax.tree.map(
            lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:])[:, tile],
            (gathered, all_log_sums),
        )
        both = log_sums[0], of_block
        found, to_columns = add_block_gradients(form, logit, rows, block, both, found)
        return found, own_TtE.at[tile].set(scatter(to_columns, axis)[0])

    tiles = len(gathered.z_TtE) // devices
    start = Gradients.none(rows), zeros_like(Block(*(part[:tiles] for part in gathered)))
    return jax.lax.fori_loop(0, tiles, meet, start)


def scatter(parts: jax.Array, axis: Axis) -> jax.Array:
    """Sums over P devices of their [P n, ...]; each keeps its own [n, ...]."""
    return jax.lax.platform_dependent(
        parts,
        tpu=lambda parts: scatter_by_groups(parts, axis),
        default=lambda parts: jax.lax.psum_scatter(parts, axis, tiled=True),
    )


def scatter_by_groups(parts: jax.Array, axis: Axis) -> jax.Array:
    """The same in steps of as many bytes together: between groups of devices, then inside each.

    XLA for TPUs makes an all-reduce, of twice the bytes, of a reduce-scatter among all devices, and
    often of an all-gather too, but keeps those among groups of them.
    """
    for names, groups in _in_groups(axis):
        parts = jax.lax.psum_scatter(parts, names, tiled=True, axis_index_groups=groups)
    return parts


def _in_groups(axis: Axis) -> list[tuple[Axis, list[list[int]] | None]]:
    """Exchanges between groups, then inside: along mesh axes; of one axis, across and along lines.

    Mesh axes are laid along the sides of the torus. Whoever orders them (parallel/mesh.py) decides
    what is sent over which: the first step of a scatter sends most, as the last of a gather does.
    """
    names = (axis,) if isinstance(axis, str) else axis
    sizes = {name: jax.lax.axis_size(name) for name in names}
    several = [name for name, size in sizes.items() if size > 1]
    if len(several) > 1:
        return [(name, None) for name in several]
    devices = jax.lax.axis_size(axis)
    line = max(size for size in range(1, devices + 1) if not devices % size and size**2 <= devices)
    lines = [list(range(first, first + line)) for first in range(0, devices, line)]
    across = [list(column) for column in zip(*lines, strict=True)]
    return [(axis, across), (axis, lines)]


def ring_sums(
    form: LossForm, logit: Logit, rows: Block, columns: Block, axis: Axis
) -> tuple[Sums, Sums]:
    """Likewise, each half of columns on its way round."""

    def meet(block: Block, by_row: Sums) -> tuple[Sums, Sums]:
        return add_block(form, logit, rows, block, by_row)

    def merge(a: Sums, b: Sums) -> Sums:
        return a.merge(form, b)

    return _around(columns, Sums.none(rows), meet, merge, axis)


def ring_gradients(
    form: LossForm, logit: Logit, rows: Block, columns: Block, log_sums: LogSums, axis: Axis
) -> tuple[Gradients, jax.Array]:
    """Likewise, each half of columns on its way round with its log-sums."""

    def meet(visitor: tuple[Block, jax.Array], found: Gradients) -> tuple[Gradients, jax.Array]:
        block, of_block = visitor
        return add_block_gradients(form, logit, rows, block, (log_sums[0], of_block), found)

    return _around((columns, log_sums[1]), Gradients.none(rows), meet, jnp.add, axis)


def _around(
    columns: Any,
    by_row: Rows,
    meet: Callable[[Any, Rows], tuple[Rows, Columns]],
    merge: Callable[[Columns, Columns], Columns],
    axis: Axis,
) -> tuple[Rows, Columns]:
    """What rows learn from all columns, and this device's columns from all rows.

    What columns learn follows them one step behind: it is merged once the step is computed, so
    that it too is under way meanwhile.
    """

    def meet_both(visitors: Pair, by_row: Rows) -> tuple[Rows, Pair]:
        by_row, left = meet(visitors[0], by_row)
        by_row, right = meet(visitors[1], by_row)
        return by_row, (left, right)

    def visit(_: jax.Array, carry: tuple[Pair, Rows, Pair]) -> tuple[Pair, Rows, Pair]:
        visitors, by_row, behind = carry
        following, arrived = _pass_on(visitors, axis), _pass_on(behind, axis)
        by_row, met = meet_both(visitors, by_row)
        return following, by_row, (merge(arrived[0], met[0]), merge(arrived[1], met[1]))

    half = len(jax.tree.leaves(columns)[0]) // 2
    own = tuple(
        jax.tree.map(lambda leaf, part=part: leaf[part], columns)
        for part in (slice(half), slice(half, None))
    )
    start = _pass_on(own, axis), *meet_both(own, by_row)
    _, by_row, behind = jax.lax.fori_loop(1, jax.lax.axis_size(axis), visit, start)
    return by_row, jax.tree.map(lambda *halves: jnp.concatenate(halves), *_pass_on(behind, axis))


def _pass_on(halves: Pair, axis: Axis) -> Pair:
    """The first half from the right neighbour, the second from the left one."""
    devices = jax.lax.axis_size(axis)

    def send(tree: Any, step: int) -> Any:
        pairs = [(device, (device + step) % devices) for device in range(devices)]
        return jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, axis, pairs), tree)

    return send(halves[0], -1), send(halves[1], 1)
