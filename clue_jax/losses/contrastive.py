"""Softmax contrastive loss (InfoNCE) between two views of the users of a global batch.

For users i with both views, unit vectors x_i and y_i and a logit scale s (1 / temperature):

    L = 1 / (2 n) sum_i [ log sum_j exp(s x_i.y_j) + log sum_j exp(s y_i.x_j) - 2 s x_i.y_i ]

the symmetric form of CLIP (Radford et al., arXiv 2103.00020, figure 3) over in-batch negatives.
Users who lack a view are neither anchors nor negatives of that pair.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

_MASKED = -1e30


class PairLoss(NamedTuple):
    """Sums over this device's anchors; divide by the global number of users with the pair."""

    loss: jax.Array  # scalar: both directions, halved
    hits: jax.Array  # scalar: both directions, halved; the positive is the single best
    users: jax.Array  # scalar: users of this device that have both views


def dense_pair_loss(
    x_BE: jax.Array, y_BE: jax.Array, valid_B: jax.Array, scale: jax.Array
) -> PairLoss:
    """The definition, with all logits at once: the reference that tests compare with."""
    logits_BB = scale * jnp.einsum("BE,CE->BC", x_BE, y_BE)
    both = logits_BB, logits_BB.T
    losses, hits = zip(*(_anchors(rows, valid_B, valid_B, 0) for rows in both), strict=True)
    return PairLoss(sum(losses) / 2, sum(hits) / 2, valid_B.sum().astype(jnp.float32))


def sharded_pair_loss(
    x_bE: jax.Array, y_bE: jax.Array, valid_b: jax.Array, scale: jax.Array, axis: str
) -> PairLoss:
    """The same loss inside `shard_map`: each device holds the logits of its own anchors only.

    Gradients reach the other devices' rows through the transpose of the gather, so the sum over
    devices of the gradients of each device's share is the exact gradient.

    Args:
        x_bE: first views of this device's users, float32 unit vectors.
        y_bE: second views.
        valid_b: whether a user has both.
        scale: scalar.
        axis: mesh axis over which users are sharded.
    """
    x_BE, y_BE, valid_B = (jax.lax.all_gather(a, axis, tiled=True) for a in (x_bE, y_bE, valid_b))
    first = jax.lax.axis_index(axis) * x_bE.shape[0]
    directions = (x_bE, y_BE), (y_bE, x_BE)
    losses, hits = zip(
        *(
            _anchors(scale * jnp.einsum("bE,BE->bB", own, others), valid_b, valid_B, first)
            for own, others in directions
        ),
        strict=True,
    )
    return PairLoss(sum(losses) / 2, sum(hits) / 2, valid_b.sum().astype(jnp.float32))


def _anchors(
    logits_bB: jax.Array, valid_b: jax.Array, valid_B: jax.Array, first: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Cross entropy and hits of the anchors whose positives start at column `first`."""
    logits_bB = jnp.where(valid_B[None, :], logits_bB.astype(jnp.float32), _MASKED)
    columns_b = first + jnp.arange(logits_bB.shape[0])
    positive_b = jnp.take_along_axis(logits_bB, columns_b[:, None], axis=1)[:, 0]
    losses_b = jax.nn.logsumexp(logits_bB, axis=1) - positive_b
    others_bB = jnp.where(
        jnp.arange(logits_bB.shape[1])[None, :] == columns_b[:, None], -jnp.inf, logits_bB
    )
    hits_b = positive_b > others_bB.max(axis=1)
    return (
        jnp.where(valid_b, losses_b, 0.0).sum(),
        jnp.where(valid_b, hits_b, False).sum().astype(jnp.float32),
    )
