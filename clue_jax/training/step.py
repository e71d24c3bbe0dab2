"""The train step: one `shard_map` around encoder and loss, every collective written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from clue_jax.config import LossConfig, PretrainConfig
from clue_jax.data.packing import PackedViews
from clue_jax.data.pairs import ViewPair
from clue_jax.losses.contrastive import Sharding, sharded_pair_loss
from clue_jax.model import clue
from clue_jax.model.attention import choose_kernels
from clue_jax.parallel.collectives import copied, own_copies, sum_over_users
from clue_jax.parallel.mesh import INNER_FIRST, TENSOR, USERS, over_all, replicated, sharded
from clue_jax.training.optim import make_optimizer
from clue_jax.training.spikes import Reason, noted, skip_reason
from clue_jax.training.state import TrainState, state_shardings

Metrics = dict[str, jax.Array]
Encode = Callable[[clue.Params, PackedViews], tuple[jax.Array, jax.Array]]


def make_step(
    config: PretrainConfig, pairs: tuple[ViewPair, ...], mesh: Mesh, max_items: int
) -> jax.stages.Wrapped:
    """The jitted (state, packed batch) -> (state, metrics) for a mesh; the state is donated.

    `max_items` is U, the distinct items of one group's users at most. State lies as
    `state_shardings` says; the batch has a leading dimension of groups of users. Metrics are
    float32 scalars: `loss` (weighted mean over the pairs of views), `retrieval_at_1`,
    `logit_scale`, `gradient_norm`, `skipped`.

    Where `skipped` is not 0 it is the `Reason`, and parameters and optimizer stay as they were:
    clipping, for one, would spread a single NaN to all parameters.

    Raises:
        ConfigError: parameters do not divide over the mesh.
    """
    optimizer = make_optimizer(config)
    lies = state_shardings(config, mesh)
    specs = jax.tree.map(lambda sharding: sharding.spec, lies.params)

    def encode(params: clue.Params, packed: PackedViews) -> tuple[jax.Array, jax.Array]:
        dropout = config.sampling.layer_dropout
        return clue.encode(params, config.encoder, packed, max_items, dropout, mesh)

    gradients = jax.shard_map(
        partial(_gradients, encode, config.loss, pairs, mesh),
        mesh=mesh,
        in_specs=(specs, P(USERS)),
        out_specs=(specs, P()),
        check_vma=choose_kernels(config.encoder, clue.backend_of(mesh)).typed,
    )

    def step(state: TrainState, packed: PackedViews) -> tuple[TrainState, Metrics]:
        grads, metrics = gradients(state.params, packed)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if config.loss.learn_temperature:
            # After the update, so the gradient stays alive at the limit (CLIP, section 2.5).
            limit = math.log(config.loss.max_logit_scale)
            params["log_scale"] = jnp.minimum(params["log_scale"], limit)
        else:
            params["log_scale"] = state.params["log_scale"]
        loss, norm = metrics["loss"], optax.tree.norm(grads)
        reason = skip_reason(config.train, state.step, state.recent, loss, norm)
        new = TrainState(state.step, params, opt_state, noted(state.recent, loss, norm))
        kept = jax.tree.map(partial(jnp.where, reason == Reason.NONE), new, state)
        metrics |= {"gradient_norm": norm, "skipped": reason.astype(jnp.float32)}
        return replace(kept, step=state.step + 1), metrics

    return jax.jit(
        step,
        in_shardings=(lies, sharded(mesh)),
        out_shardings=(lies, replicated(mesh)),
        donate_argnums=(0,),
    )


def _gradients(
    encode: Encode,
    config: LossConfig,
    pairs: tuple[ViewPair, ...],
    mesh: Mesh,
    params: Any,
    packed: PackedViews,
) -> tuple[Any, Metrics]:
    """One device's part of the gradients of the whole loss, then their sum over devices."""
    packed = jax.tree.map(lambda a: over_all(a[0], USERS), packed)

    def total(params: Any) -> tuple[jax.Array, jax.Array]:
        z_VbE, present_Vb = encode(params["encoder"], packed)
        # The devices of a group have the same vectors, and each takes its share to the loss.
        z_VbE = _share(copied(z_VbE, TENSOR), mesh)
        present_Vb, keys_Kb = (_share(a, mesh) for a in (present_Vb, packed.keys_Kb))
        scale = jnp.exp(copied(params["log_scale"], TENSOR))
        bias = copied(params["bias"], TENSOR) if "bias" in params else 0.0
        rest = present_Vb, keys_Kb, scale, bias
        of_widths = [
            _loss_of_pairs(config, pairs, _prefix(z_VbE, width), *rest)
            for width in config.matryoshka or (z_VbE.shape[-1],)
        ]
        # Hits are those of the whole vectors, which come last.
        return jnp.stack([loss for loss, _ in of_widths]).mean(), of_widths[-1][1]

    # Each device differentiates its own copy; gradients are summed where it is written.
    (loss, hits), grads = jax.value_and_grad(total, has_aux=True)(own_copies(params, mesh))
    scale = jnp.exp(params["log_scale"])
    metrics = {"loss": loss, "retrieval_at_1": hits, "logit_scale": scale}
    return sum_over_users(grads, mesh), metrics


def _loss_of_pairs(
    config: LossConfig,
    pairs: tuple[ViewPair, ...],
    z_VbE: jax.Array,
    present_Vb: jax.Array,
    keys_Kb: jax.Array,
    scale: jax.Array,
    bias: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Means over users, weighted over the pairs of views: the loss, and hits."""
    sharding = Sharding(INNER_FIRST, config.tile, config.transport, config.precision)
    loss, hits = jnp.zeros(()), jnp.zeros(())
    for pair in pairs:
        x_bE, y_bE = z_VbE[pair.first], z_VbE[pair.second]
        valid_b = present_Vb[pair.first] & present_Vb[pair.second]
        # y_j is no negative of x_i where it has the items of y_i, and is the very positive; nor
        # where x_j has those of x_i, since the pair (x_j, y_j) then says that they belong together.
        rows = [pair.first, pair.second] if config.mask_duplicates else []
        rows += range(len(present_Vb), len(keys_Kb))  # nor is anybody a negative of the very user
        of_pair = sharded_pair_loss(
            x_bE,
            y_bE,
            valid_b,
            scale,
            sharding,
            form=config.form,
            bias=bias,
            keys_Kb=jnp.stack([keys_Kb[row] for row in rows]) if rows else None,
        )
        loss += pair.weight * of_pair.loss / jnp.maximum(of_pair.users, 1)
        hits += pair.weight * of_pair.hits / jnp.maximum(of_pair.users, 1)
    return loss, hits


def _prefix(z_VbE: jax.Array, width: int) -> jax.Array:
    """The first dimensions, scaled to length one again (Kusupati et al., arXiv 2205.13147)."""
    if width == z_VbE.shape[-1]:
        return z_VbE
    first_VbW = z_VbE[..., :width]
    square_Vb1 = jnp.square(first_VbW).sum(-1, keepdims=True)
    return first_VbW * jax.lax.rsqrt(jnp.maximum(square_Vb1, 1e-12))


def _share(values_Vb: jax.Array, mesh: Mesh) -> jax.Array:
    """This device's users among those of its group."""
    users = values_Vb.shape[1] // mesh.shape[TENSOR]
    return jax.lax.dynamic_slice_in_dim(values_Vb, jax.lax.axis_index(TENSOR) * users, users, 1)
