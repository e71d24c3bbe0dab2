"""Contrastive losses between two views of the users of a global batch, exact and sharded.

For users i who have both views, unit vectors x_i and y_i, a logit scale s (1 / temperature) and,
for the second, a bias b:

    softmax:  L = 1 / (2 n) sum_i [ log sum_j exp(l_ij) + log sum_j exp(l_ji) - 2 l_ii ]
    sigmoid:  L = 1 / n sum_i [ log(1 + exp(-l_ii)) + sum_{j != i} log(1 + exp(l_ij)) ]
    with      l_ij = s x_i.y_j + b

(CLIP, Radford et al., arXiv 2103.00020, figure 3; SigLIP, Zhai et al., arXiv 2303.15343, eq. 1.)
Users who lack a view are neither anchors nor negatives; users who share a key (the same content,
say) are not negatives of each other.

The sharded form costs four matrix products of all similarities' size in place of the six of plain
differentiation: one on the way there, one again and two for the gradients on the way back. A device
holds its own rows and one tile of logits (tiles.py); the other side comes to it (transports.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from clue_jax.config import LossForm, Precision, Transport
from clue_jax.losses.tiles import Block, Logit, Sums, block_of, tiled
from clue_jax.losses.transports import (
    Axis,
    gather,
    gather_gradients,
    gather_sums,
    ring_gradients,
    ring_sums,
)
from clue_jax.parallel.mesh import varying


class PairLoss(NamedTuple):
    """Sums over the global batch; divide by the number of users."""

    loss: jax.Array
    hits: jax.Array  # both directions, halved; the positive is the single best
    users: jax.Array  # users who have both views


@dataclass(frozen=True)
class Sharding:
    """How the sharded loss is computed; none of it changes the result beyond rounding."""

    axis: Axis  # mesh axes over which users are sharded, as in a PartitionSpec
    tile: int = 1_024  # rows and columns of the logits that exist at a time
    transport: Transport = Transport.GATHER
    precision: Precision = Precision.FLOAT32  # of the operands of products; sums are float32


class _Anchors(NamedTuple):
    """One device's share: what is differentiated, and what is not."""

    x_bE: jax.Array
    y_bE: jax.Array
    scale: jax.Array
    bias: jax.Array
    valid_b: jax.Array
    keys_Kb: jax.Array


def dense_pair_loss(
    x_BE: jax.Array,
    y_BE: jax.Array,
    valid_B: jax.Array,
    scale: jax.Array,
    *,
    form: LossForm = LossForm.SOFTMAX,
    bias: jax.Array | float = 0.0,
    keys_KB: jax.Array | None = None,
) -> PairLoss:
    """The definition, with all logits at once: the reference that tests compare with.

    Examples:
        >>> x_BE = jnp.eye(4)  # each user's two views are the same, and nothing like the others'
        >>> found = dense_pair_loss(x_BE, x_BE, jnp.ones(4, bool), jnp.float32(10.0))
        >>> f"{found.loss / found.users:.6f}"  # log(1 + 3 exp(-10))
        '0.000136'
    """
    logits_BB = scale * jnp.einsum("BE,CE->BC", x_BE, y_BE) + bias
    same_BB = jnp.eye(len(x_BE), dtype=bool)
    negative_BB = valid_B[:, None] & valid_B[None, :] & ~same_BB
    for key_B in keys_KB if keys_KB is not None else ():
        negative_BB &= key_B[:, None] != key_B[None, :]
    positive_B = jnp.diagonal(logits_BB)
    masked_BB = jnp.where(negative_BB, logits_BB, -jnp.inf)
    if form is LossForm.SOFTMAX:
        kept_BB = jnp.where(negative_BB | same_BB, logits_BB, -jnp.inf)
        both = jax.nn.logsumexp(kept_BB, 0) + jax.nn.logsumexp(kept_BB, 1)
        losses_B = both / 2 - positive_B
    else:
        others = jnp.where(negative_BB, jax.nn.softplus(logits_BB), 0.0).sum(1)
        losses_B = jax.nn.softplus(-positive_B) + others
    hits_B = sum((positive_B > masked_BB.max(axis)).astype(jnp.float32) for axis in (0, 1)) / 2
    return PairLoss(
        jnp.where(valid_B, losses_B, 0.0).sum(),
        jnp.where(valid_B, hits_B, 0.0).sum(),
        valid_B.sum().astype(jnp.float32),
    )


def sharded_pair_loss(
    x_bE: jax.Array,
    y_bE: jax.Array,
    valid_b: jax.Array,
    scale: jax.Array,
    sharding: Sharding,
    *,
    form: LossForm = LossForm.SOFTMAX,
    bias: jax.Array | float = 0.0,
    keys_Kb: jax.Array | None = None,
) -> PairLoss:
    """The same loss inside `shard_map`, the same value on every device.

    Each device's gradient is that of the whole loss by its own rows, and by its own copies of scale
    and bias, so parameters that devices hold copies of need the sum over devices.

    Args:
        x_bE: first views of this device's users, float32 unit vectors.
        y_bE: second views.
        valid_b: whether a user has both.
        scale: scalar.
        sharding: how it is computed.
        form: of the loss.
        bias: scalar, for the sigmoid form.
        keys_Kb: int32, K > 0; users who agree in one of the K keys are not negatives of each other.
    """
    device = jax.lax.axis_index(sharding.axis)
    if keys_Kb is None:
        # Nobody is their own negative; any other key says so too, and each costs time in a tile.
        keys_Kb = (device * len(x_bE) + jnp.arange(len(x_bE)))[None]
    scale, bias = (jnp.asarray(value, jnp.float32) for value in (scale, bias))
    anchors = _Anchors(x_bE, y_bE, scale, bias, valid_b, keys_Kb.astype(jnp.int32))
    return _pair_loss(form, sharding, varying(anchors, device))


def mean_pair_loss(
    mesh: Mesh, sharding: Sharding, form: LossForm = LossForm.SOFTMAX
) -> Callable[..., jax.Array]:
    """(x_BE, y_BE, scale, bias) -> the loss per user of global arrays, all of whom have both views.

    Args:
        mesh: over whose axes `sharding.axis` users are sharded.
        sharding: how it is computed.
        form: of the loss.

    Examples:
        >>> from clue_jax.config import MeshConfig
        >>> from clue_jax.parallel.mesh import make_mesh
        >>> mesh = make_mesh(MeshConfig())  # all devices there are
        >>> loss = mean_pair_loss(mesh, Sharding(axis=("data", "fsdp"), tile=2))
        >>> x_BE = jnp.eye(8)
        >>> f"{jax.jit(loss)(x_BE, x_BE, 10.0, 0.0):.6f}"  # log(1 + 7 exp(-10))
        '0.000318'
    """

    def device(x_bE: jax.Array, y_bE: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        valid_b = jnp.ones(len(x_bE), bool)
        found = sharded_pair_loss(x_bE, y_bE, valid_b, scale, sharding, form=form, bias=bias)
        return found.loss / found.users

    rows = P(sharding.axis)
    return jax.shard_map(device, mesh=mesh, in_specs=(rows, rows, P(), P()), out_specs=P())


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pair_loss(form: LossForm, sharding: Sharding, anchors: _Anchors) -> PairLoss:
    return _forward(form, sharding, anchors)[0]


def _forward(form: LossForm, sharding: Sharding, anchors: _Anchors) -> tuple[PairLoss, Any]:
    rows, columns = _blocks(sharding, anchors)
    logit, axis, gathered = Logit(anchors.scale, anchors.bias), sharding.axis, None
    if sharding.transport is Transport.GATHER:
        gathered = gather(columns, axis)
        by_row, by_column = gather_sums(form, logit, rows, gathered, axis)
    else:
        by_row, by_column = ring_sums(form, logit, rows, columns, axis)
    positive_b = anchors.scale * jnp.sum(anchors.x_bE * anchors.y_bE, -1) + anchors.bias
    losses_b, above = _losses(form, positive_b, by_row, by_column)
    largest = (_untiled(side.largest_Tt, len(positive_b)) for side in (by_row, by_column))
    hits_b = sum((positive_b > most_b).astype(jnp.float32) for most_b in largest) / 2
    shares = (
        jnp.where(anchors.valid_b, losses_b, 0.0).sum(),
        jnp.where(anchors.valid_b, hits_b, 0.0).sum(),
        anchors.valid_b.sum().astype(jnp.float32),
    )
    loss = PairLoss(*jax.lax.psum(shares, sharding.axis))
    return loss, (anchors, positive_b, above, gathered)


def _losses(
    form: LossForm, positive_b: jax.Array, by_row: Sums, by_column: Sums
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Loss of each anchor, and how far log(sum(exp)) of its negatives lies above its positive.

    From that difference d the loss is softplus(d) and its slope sigmoid(d), without the
    cancellation that log(sum(exp)) - positive suffers once an anchor is told apart.
    """
    count = len(positive_b)
    if form is LossForm.SIGMOID:
        return jax.nn.softplus(-positive_b) + _untiled(by_row.total_Tt, count), (-positive_b,) * 2
    row_b, column_b = (_untiled(side.log_sum(), count) - positive_b for side in (by_row, by_column))
    return (jax.nn.softplus(row_b) + jax.nn.softplus(column_b)) / 2, (row_b, column_b)


def _backward(form: LossForm, sharding: Sharding, saved: Any, bars: PairLoss) -> tuple[_Anchors]:
    anchors, positive_b, above, gathered = saved
    rows, columns = _blocks(sharding, anchors)
    log_row_b, log_column_b = (positive_b + jax.nn.softplus(above_b) for above_b in above)
    log_sums = tiled(log_row_b, rows.valid_Tt), tiled(log_column_b, columns.valid_Tt)
    logit, axis = Logit(anchors.scale, anchors.bias), sharding.axis
    if gathered is not None:
        total, columns_TtE = gather_gradients(form, logit, rows, gathered, log_sums, axis)
    else:
        total, columns_TtE = ring_gradients(form, logit, rows, columns, log_sums, axis)

    own_b = -(jax.nn.sigmoid(above[0]) + jax.nn.sigmoid(above[1])) / 2
    own_b = jnp.where(anchors.valid_b, own_b, 0.0)
    similarity_b = (positive_b - anchors.bias) / anchors.scale
    bar = bars.loss
    x_bar, y_bar = (
        bar * anchors.scale * (_untiled(to, len(own_b)) + own_b[:, None] * other)
        for to, other in (
            (total.rows_TtE, anchors.y_bE),
            (columns_TtE, anchors.x_bE),
        )
    )
    scale_bar = bar * (total.scale + (own_b * similarity_b).sum())
    # Softmax does not change with a shift of all logits; its sum would be rounding alone.
    bias_bar = bar * (total.bias + own_b.sum()) * (form is LossForm.SIGMOID)
    no_gradient: Any = None  # integers
    return (_Anchors(x_bar, y_bar, scale_bar, bias_bar, no_gradient, no_gradient),)


_pair_loss.defvjp(_forward, _backward)


def _blocks(sharding: Sharding, anchors: _Anchors) -> tuple[Block, Block]:
    dtype = jnp.dtype(sharding.precision.value)
    shared = anchors.keys_Kb, anchors.valid_b, sharding.tile, dtype
    halves = 2 if sharding.transport is Transport.RING else 1
    return block_of(anchors.x_bE, *shared), block_of(anchors.y_bE, *shared, halves)


def _untiled(values_Tt: jax.Array, count: int) -> jax.Array:
    return values_Tt.reshape(-1, *values_Tt.shape[2:])[:count]
