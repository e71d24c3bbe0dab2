"""Which steps are not learnt from: not finite, out of the ordinary, or named by a person.

Decided on the device before the update, from the state alone, so that a resumed run decides alike.
"""

from __future__ import annotations

import enum
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clue_jax.config import TrainConfig, batch_ranges

WINDOW = 64  # updates that a step is compared with
_NORMAL = 1.4826  # standard deviations of a normal distribution in one median deviation


class Reason(enum.IntEnum):
    """Why a step was skipped; 0: it was not."""

    NONE = 0
    NOT_FINITE = 1
    SPIKE = 2
    ASKED = 3


class Recent(NamedTuple):
    """Loss and gradient norm of the last updates."""

    values_2W: jax.Array
    updates: jax.Array  # ever


def no_updates() -> Recent:
    return Recent(jnp.zeros((2, WINDOW), jnp.float32), jnp.zeros((), jnp.int32))


def noted(recent: Recent, loss: jax.Array, norm: jax.Array) -> Recent:
    """With one more update."""
    newest_2 = jnp.stack([loss, norm]).astype(jnp.float32)
    values_2W = recent.values_2W.at[:, recent.updates % WINDOW].set(newest_2)
    return Recent(values_2W, recent.updates + 1)


def skip_reason(
    config: TrainConfig, step: jax.Array, recent: Recent, loss: jax.Array, norm: jax.Array
) -> jax.Array:
    """A `Reason` as int32, for the batch of `step`.

    A spike is a loss or gradient norm more than `config.spike_deviations` robust standard
    deviations (from the median absolute deviation) above the median of the last `WINDOW` updates.
    """
    reason = jnp.where(jnp.isfinite(loss) & jnp.isfinite(norm), Reason.NONE, Reason.NOT_FINITE)
    if config.spike_deviations:
        median_2 = jnp.median(recent.values_2W, axis=1)
        away_2W = jnp.abs(recent.values_2W - median_2[:, None])
        limit_2 = median_2 + config.spike_deviations * _NORMAL * jnp.median(away_2W, axis=1)
        high = (jnp.stack([loss, norm]) > limit_2).any() & (recent.updates >= WINDOW)
        reason = jnp.where((reason == Reason.NONE) & high, Reason.SPIKE, reason)
    for first, last in batch_ranges(config.skip_batches):
        reason = jnp.where((first <= step) & (step < last), Reason.ASKED, reason)
    return reason.astype(jnp.int32)


def left_out_before(config: TrainConfig, step: int) -> str:
    """`config.skip_batches` as far as it concerns the batches before a step, in one form."""
    ranges = (range(first, min(last, step)) for first, last in batch_ranges(config.skip_batches))
    asked = set(itertools.chain.from_iterable(ranges))
    starts = sorted(k for k in asked if k - 1 not in asked)
    ends = sorted(k + 1 for k in asked if k + 1 not in asked)
    return ",".join(f"{first}:{last}" for first, last in zip(starts, ends, strict=True))
