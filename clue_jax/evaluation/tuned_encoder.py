"""The encoder as gradients see it: some hundred users at a time, packed, on one device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clue_jax.config import AttentionKernel, EncoderConfig
from clue_jax.data.capacity import capacity_for
from clue_jax.data.packing import PackedViews, pack_views
from clue_jax.data.recency import service_weights
from clue_jax.data.records import Users
from clue_jax.data.sampling import full_views
from clue_jax.evaluation.head_training import Params, Spec, row_losses
from clue_jax.model import clue

ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())
Packed = tuple[PackedViews, Any]  # and the weight of each view in the mean of its user, [V, b]
# (trained, optimizer state, learning rate, fixed, batch, rows, arrays) -> (trained, state)
Step = Callable[..., tuple[Params, Any]]


class TunedEncoder:
    """Encodes batches of users in buffers of one size, and learns from them.

    What is trained is {"encoder": its parameters, "head": those of a linear head}.

    Args:
        config: of the encoder.
        users: every user that will be encoded.
        batch_users: of them at a time, at most.
        half_life_days: of behaviours' weights in means, as of an export; 0: all weigh alike.
    """

    def __init__(
        self, config: EncoderConfig, users: Users, batch_users: int, half_life_days: float = 0.0
    ):
        # A run may have asked for a kernel that this machine lacks; all compute the same.
        self.config = dataclasses.replace(config, attention=AttentionKernel.AUTO)
        self.users, self.half_life_days = users, half_life_days
        self.batch_users = min(batch_users, len(users))
        self.capacity = capacity_for(users, self.config, self.batch_users, len(users.services))
        self._encode = jax.jit(self.encode)
        self.step = functools.cache(self._step)  # tasks of one kind and size share a compilation

    def packed(self, places: np.ndarray) -> Packed:
        """What a device needs of at most `batch_users` users, none of them twice."""
        users, half_life = self.users.take(places), self.half_life_days
        views = full_views(users, self.config.max_history)
        packed, _ = pack_views(users, views, self.capacity, self.config, None, half_life)
        weight_Vb = np.ones(packed.view_slot_Vb.shape, np.float32)
        if half_life:
            weight_Vb[:, : len(users)] = service_weights(users, half_life).T
        return packed, weight_Vb

    def encode(self, params: clue.Params, batch: Packed) -> jax.Array:
        """x_bE: a vector of length one of each user, as `composition.combine` makes it."""
        packed, weight_Vb = batch
        z_VbE, _ = clue.encode(params, self.config, packed, self.capacity.items)
        total_bE = jnp.einsum("VbE,Vb->bE", z_VbE, weight_Vb)
        # Buffers have room for users who are not there, and a norm has no gradient at zero.
        square_b1 = (total_bE**2).sum(axis=1, keepdims=True)
        return total_bE * jax.lax.rsqrt(jnp.maximum(square_b1, 1e-24))

    def vectors(self, params: clue.Params, places: np.ndarray) -> np.ndarray:
        """Vectors [n, E] float32 of any number of users."""
        parts = [np.zeros((0, self.config.embedding_width), np.float32)]
        for first in range(0, len(places), self.batch_users):
            some = places[first : first + self.batch_users]
            parts.append(np.asarray(self._encode(params, self.packed(some)))[: len(some)])
        return np.concatenate(parts)

    def _step(self, spec: Spec) -> Step:
        """One update of encoder and head by Adam.

        Its `rows` are columns of at most R rows: what a head needs, `seat`, the place of their user
        in the batch, and `weight`, zero where there is no row.
        """

        def loss(
            trained: Params, fixed: Params, batch: Packed, rows: Params, arrays: Params
        ) -> jax.Array:
            x_RE = self.encode(trained["encoder"], batch)[rows["seat"]]
            loss_R = row_losses(spec, trained["head"] | fixed, x_RE, rows, arrays)
            return (loss_R * rows["weight"]).sum() / rows["weight"].sum()

        @jax.jit
        def step(trained: Params, state: Any, rate: float, *given: Any) -> tuple[Params, Any]:
            updates, state = ADAM.update(jax.grad(loss)(trained, *given), state)
            return jax.tree.map(lambda p, u: p - rate * u, trained, updates), state

        return step
