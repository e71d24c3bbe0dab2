"""Sums over all pairs of a block of rows and a block of columns, one square tile at a time.

What the contrastive losses share: similarities exist for one tile, one matrix product serves both
directions, and the way back computes each tile once more (Gao et al., "Scaling Deep Contrastive
Learning Batch Size", arXiv 2101.06983, is the same idea without tiles). Pairs that are not
negatives of each other are left out by comparing integer keys inside the tile, so nothing of size
[rows, columns] is ever made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from clue_jax.config import LossForm
from clue_jax.parallel.mesh import varying

_MASKED = -1e30
Carry = TypeVar("Carry")


class Logit(NamedTuple):
    """scale * similarity + bias."""

    scale: jax.Array
    bias: jax.Array


class Block(NamedTuple):
    """One side of the similarities in tiles of t, [T, t, ...]; padding is not valid."""

    z_TtE: jax.Array  # in the type of the products
    keys_TKt: jax.Array  # int32: pairs that agree in any of the keys are no negatives
    valid_Tt: jax.Array  # bool


def block_of(
    z_bE: jax.Array,
    keys_Kb: jax.Array,
    valid_b: jax.Array,
    tile: int,
    dtype: jnp.dtype,
    parts: int = 1,
) -> Block:
    """Cuts b vectors into equal tiles of at most `tile`, their number a multiple of `parts`."""
    count = len(z_bE)
    tiles = parts * -(-count // (parts * tile))
    size = -(-count // tiles)
    padding = tiles * size - count
    keys_Kb = jnp.pad(keys_Kb, ((0, 0), (0, padding)))
    return Block(
        jnp.pad(z_bE.astype(dtype), ((0, padding), (0, 0))).reshape(tiles, size, -1),
        jnp.swapaxes(keys_Kb.reshape(-1, tiles, size), 0, 1),
        jnp.pad(valid_b, (0, padding)).reshape(tiles, size),
    )


def tiled(values_b: jax.Array, like_Tt: jax.Array) -> jax.Array:
    """Scalars of b anchors in tiles, padding 0."""
    return jnp.pad(values_b, (0, like_Tt.size - len(values_b))).reshape(like_Tt.shape)


def zeros_like(block: Block) -> jax.Array:
    """[T, t, E] float32 that vary over the mesh as the block does, as a loop's carry must."""
    return varying(jnp.zeros_like(block.z_TtE, jnp.float32), block.keys_TKt[0, 0, 0])


class Sums(NamedTuple):
    """What rows, or columns, know of the negatives they have met: [T, t] float32.

    For softmax `total` is the sum of exp(logit - largest); for sigmoid that of log(1 + exp(logit)).
    """

    largest_Tt: jax.Array
    total_Tt: jax.Array

    @classmethod
    def none(cls, block: Block) -> Sums:
        zeros = zeros_like(block)[..., 0]
        return cls(zeros + _MASKED, zeros)

    def merge(self, form: LossForm, other: Sums) -> Sums:
        """With what the same anchors have met elsewhere."""
        largest = jnp.maximum(self.largest_Tt, other.largest_Tt)
        return Sums(largest, self.total_at(form, largest) + other.total_at(form, largest))

    def total_at(self, form: LossForm, largest_Tt: jax.Array) -> jax.Array:
        """The total, with a `largest` that is no smaller than this one."""
        if form is LossForm.SIGMOID:
            return self.total_Tt
        return self.total_Tt * jnp.exp(self.largest_Tt - largest_Tt)

    def add(self, form: LossForm, logits_tt: jax.Array, axis: int, at: jax.Array) -> Sums:
        """With the logits of tile `at` against others along `axis`."""
        before, total = self.largest_Tt[at], self.total_Tt[at]
        largest = jnp.maximum(before, logits_tt.max(axis))
        if form is LossForm.SOFTMAX:
            here = jnp.exp(logits_tt - jnp.expand_dims(largest, axis)).sum(axis)
            total = total * jnp.exp(before - largest) + here
        else:
            total += jax.nn.softplus(logits_tt).sum(axis)
        return Sums(self.largest_Tt.at[at].set(largest), self.total_Tt.at[at].set(total))

    def log_sum(self) -> jax.Array:
        """log(sum(exp(logit))); about -1e30 where there was no negative."""
        return self.largest_Tt + jnp.log(jnp.maximum(self.total_Tt, 1e-37))


def add_block(
    form: LossForm, logit: Logit, rows: Block, columns: Block, by_row: Sums
) -> tuple[Sums, Sums]:
    """The sums of rows with the pairs of these two blocks, and those of columns over these rows."""

    def tile(r: jax.Array, c: jax.Array, sums: tuple[Sums, Sums]) -> tuple[Sums, Sums]:
        logits_tt = _logits(logit, rows, columns, r, c)
        return sums[0].add(form, logits_tt, 1, r), sums[1].add(form, logits_tt, 0, c)

    return _for_each_tile(rows, columns, tile, (by_row, Sums.none(columns)))


class Gradients(NamedTuple):
    """Sums of d loss / d logit times what the logit is made of, float32; columns are apart."""

    rows_TtE: jax.Array
    scale: jax.Array
    bias: jax.Array

    @classmethod
    def none(cls, rows: Block) -> Gradients:
        zeros = zeros_like(rows)
        return cls(zeros, zeros[0, 0, 0], zeros[0, 0, 0])


def add_block_gradients(
    form: LossForm,
    logit: Logit,
    rows: Block,
    columns: Block,
    log_sums: tuple[jax.Array, jax.Array],
    total: Gradients,
) -> tuple[Gradients, jax.Array]:
    """Gradients with the pairs of these two blocks, and those of columns [T, t, E] by these rows.

    `log_sums` [T, t] are of both, for softmax.
    """

    def tile(
        r: jax.Array, c: jax.Array, carry: tuple[Gradients, jax.Array]
    ) -> tuple[Gradients, jax.Array]:
        total, columns_TtE = carry
        logits_tt = _logits(logit, rows, columns, r, c)
        if form is LossForm.SOFTMAX:
            by_row = jnp.exp(logits_tt - log_sums[0][r][:, None])
            weights_tt = (by_row + jnp.exp(logits_tt - log_sums[1][c][None, :])) / 2
        else:
            weights_tt = jax.nn.sigmoid(logits_tt)
        operand_tt = weights_tt.astype(rows.z_TtE.dtype)
        to_rows = _product("rc,cE->rE", operand_tt, columns.z_TtE[c])
        to_columns = _product("rc,rE->cE", operand_tt, rows.z_TtE[r])
        similarity = jnp.where(weights_tt > 0, weights_tt * (logits_tt - logit.bias), 0.0)
        total = Gradients(
            total.rows_TtE.at[r].add(to_rows),
            total.scale + similarity.sum() / logit.scale,
            total.bias + weights_tt.sum(),
        )
        return total, columns_TtE.at[c].add(to_columns)

    return _for_each_tile(rows, columns, tile, (total, zeros_like(columns)))


def _for_each_tile(
    rows: Block,
    columns: Block,
    tile: Callable[[jax.Array, jax.Array, Carry], Carry],
    carry: Carry,
) -> Carry:
    count = len(rows.z_TtE)

    def body(number: jax.Array, carry: Carry) -> Carry:
        return tile(number % count, number // count, carry)

    return jax.lax.fori_loop(0, count * len(columns.z_TtE), body, carry)


def _logits(logit: Logit, rows: Block, columns: Block, r: jax.Array, c: jax.Array) -> jax.Array:
    """Logits of one tile; those of pairs that are not negatives are masked."""
    similarity_tt = _product("rE,cE->rc", rows.z_TtE[r], columns.z_TtE[c])
    logits_tt = logit.scale * similarity_tt + logit.bias
    negative = rows.valid_Tt[r][:, None] & columns.valid_Tt[c][None, :]
    for mine, other in zip(rows.keys_TKt[r], columns.keys_TKt[c], strict=True):
        negative &= mine[:, None] != other[None, :]
    return jnp.where(negative, logits_tt, _MASKED)


def _product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)
