"""The train step: one `shard_map` around encoder and loss, every collective written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from clue_jax.config import LossConfig, PretrainConfig
from clue_jax.data.packing import PackedViews
from clue_jax.data.sampling import ViewPair
from clue_jax.losses.contrastive import Sharding, sharded_pair_loss
from clue_jax.model import clue
from clue_jax.model.attention import choose_kernels
from clue_jax.parallel.mesh import DATA, replicated, sharded
from clue_jax.training.optim import make_optimizer
from clue_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
Encode = Callable[[clue.Params, PackedViews], tuple[jax.Array, jax.Array]]


def make_step(
    config: PretrainConfig, pairs: tuple[ViewPair, ...], mesh: Mesh, max_items: int
) -> jax.stages.Wrapped:
    """The jitted (state, packed batch) -> (state, metrics) for a mesh; the state is donated.

    `max_items` is U, the distinct items of one device at most.

    The batch has a leading device dimension. Metrics are float32 scalars: `loss` (weighted mean
    over the pairs of views), `retrieval_at_1`, `logit_scale`, `gradient_norm`.
    """
    optimizer = make_optimizer(config)
    backend = mesh.devices.flat[0].platform  # compiling for another machine, not where we are

    def encode(params: clue.Params, packed: PackedViews) -> tuple[jax.Array, jax.Array]:
        dropout = config.sampling.layer_dropout
        return clue.encode(params, config.encoder, packed, max_items, dropout, backend)

    gradients = jax.shard_map(
        partial(_gradients, encode, config.loss, pairs),
        mesh=mesh,
        in_specs=(P(), P(DATA)),
        out_specs=(P(), P()),
        check_vma=choose_kernels(config.encoder, backend).typed,
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
        metrics["gradient_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, opt_state), metrics

    whole, dealt = replicated(mesh), sharded(mesh)
    return jax.jit(
        step, in_shardings=(whole, dealt), out_shardings=(whole, whole), donate_argnums=(0,)
    )


def _gradients(
    encode: Encode,
    config: LossConfig,
    pairs: tuple[ViewPair, ...],
    params: Any,
    packed: PackedViews,
) -> tuple[Any, Metrics]:
    """One device's part of the gradients of the whole loss, then their sum over devices."""
    packed = jax.tree.map(lambda a: a[0], packed)
    # Each device differentiates its own copy; the sum below is the only all-reduce of gradients.
    own = jax.tree.map(lambda a: jax.lax.pcast(a, (DATA,), to="varying"), params)
    present_Vb = packed.view_slot_Vb >= 0
    sharding = Sharding(DATA, config.tile, config.transport, config.precision)

    def total(params: Any) -> tuple[jax.Array, jax.Array]:
        z_VbE, _ = encode(params["encoder"], packed)
        scale, bias = jnp.exp(params["log_scale"]), params.get("bias", 0.0)
        loss, hits = jnp.zeros(()), jnp.zeros(())
        for pair in pairs:
            valid_b = present_Vb[pair.first] & present_Vb[pair.second]
            x_bE, y_bE = z_VbE[pair.first], z_VbE[pair.second]
            of_pair = sharded_pair_loss(
                x_bE, y_bE, valid_b, scale, sharding, form=config.form, bias=bias
            )
            loss += pair.weight * of_pair.loss / jnp.maximum(of_pair.users, 1)
            hits += pair.weight * of_pair.hits / jnp.maximum(of_pair.users, 1)
        return loss, hits

    (loss, hits), grads = jax.value_and_grad(total, has_aux=True)(own)
    scale = jnp.exp(params["log_scale"])
    metrics = {"loss": loss, "retrieval_at_1": hits, "logit_scale": scale}
    return jax.lax.psum(grads, DATA), metrics
