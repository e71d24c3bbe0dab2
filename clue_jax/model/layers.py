"""Norm, block-diagonal attention, MLP, and a stack of them run by one scan.

Rows hold several segments end to end. Attention sees its own segment only, and rotary positions
(Su et al., "RoFormer", arXiv 2104.09864) depend on differences alone, so a segment's output does
not depend on where in a row it lies.

With `tensor`, the name of a mesh axis, a device has some of the heads and hidden units, and a block
sums over the axis twice; what is between blocks is on all of its devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from clue_jax.config import (
    Activation,
    AttentionKernel,
    EncoderConfig,
    Precision,
    Remat,
    TransformerConfig,
)
from clue_jax.model.attention import attend
from clue_jax.model.matmul import LINEAR, linear
from clue_jax.parallel.collectives import copied

_NORM_EPSILON = 1e-6


def compute_dtype(precision: Precision) -> jnp.dtype:
    """Type of activations and matmul operands."""
    return jnp.dtype(precision.value)


def unit(x: jax.Array) -> jax.Array:
    """Scales vectors of the last axis to length one in float32; zero vectors stay zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), 1e-12))


class Norm(nnx.Module):
    """RMS normalisation with a learned scale (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        scale = jnp.expand_dims(self.scale[...], range(x.ndim - 1))
        return (x32 * jax.lax.rsqrt(mean_square + _NORM_EPSILON) * scale).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head self-attention inside segments; softmax in float32."""

    def __init__(self, width: int, heads: int, residual_scale: float, rngs: nnx.Rngs):
        head = width // heads
        init = jax.nn.initializers.normal(width**-0.5)
        out = jax.nn.initializers.normal(width**-0.5 * residual_scale)
        self.qkv = nnx.Param(init(rngs.params(), (width, 3, heads, head), jnp.float32))
        self.out = nnx.Param(out(rngs.params(), (heads, head, width), jnp.float32))

    def __call__(
        self, x_RLD: jax.Array, segment_RL: jax.Array, kernel: AttentionKernel, tensor: str = ""
    ) -> jax.Array:
        x_RLD = copied(x_RLD, tensor) if tensor else x_RLD
        q, k, v = jnp.moveaxis(linear(x_RLD, self.qkv[...]), (2, 3), (0, 2))  # [R, H, L, K]
        mixed_RHLK = attend(kernel, rotate(q), rotate(k), v, segment_RL)
        mixed_RLX = jnp.swapaxes(mixed_RHLK, 1, 2).reshape(*segment_RL.shape, -1)  # X = H K
        return linear(mixed_RLX, self.out[...].reshape(-1, x_RLD.shape[-1]), tensor)


def rotate(x_RHLK: jax.Array) -> jax.Array:
    """Rotary positions along L, in float32."""
    length, half = x_RHLK.shape[2], x_RHLK.shape[3] // 2
    frequency_K = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_LK = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency_K[None, :]
    cos, sin = jnp.cos(angle_LK)[None, None], jnp.sin(angle_LK)[None, None]
    first, second = jnp.split(x_RHLK.astype(jnp.float32), [half], axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return turned.astype(x_RHLK.dtype)


class Mlp(nnx.Module):
    """Position-wise feed-forward: GELU, or SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation,
        residual_scale: float,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        gates = 2 if activation is Activation.SWIGLU else 1
        init = jax.nn.initializers.normal(width**-0.5)
        out = jax.nn.initializers.normal(hidden**-0.5 * residual_scale)
        self.up = nnx.Param(init(rngs.params(), (width, gates, hidden), jnp.float32))
        self.down = nnx.Param(out(rngs.params(), (hidden, width), jnp.float32))

    def __call__(self, x_RLD: jax.Array, tensor: str = "") -> jax.Array:
        x_RLD = copied(x_RLD, tensor) if tensor else x_RLD
        up_RLgF = linear(x_RLD, self.up[...])
        if self.activation is Activation.SWIGLU:
            hidden_RLF = jax.nn.silu(up_RLgF[:, :, 0]) * up_RLgF[:, :, 1]
        else:
            hidden_RLF = jax.nn.gelu(up_RLgF[:, :, 0])
        return linear(hidden_RLF, self.down[...], tensor)


class Block(nnx.Module):
    """Pre-norm Transformer block."""

    def __init__(self, config: EncoderConfig, stack: TransformerConfig, rngs: nnx.Rngs):
        # GPT-2's rule: the residual stream keeps its scale whatever the depth.
        residual_scale = 1.0 / math.sqrt(2 * stack.num_layers)
        self.attention_norm = Norm(config.width)
        self.attention = Attention(config.width, stack.num_heads, residual_scale, rngs)
        self.mlp_norm = Norm(config.width)
        self.mlp = Mlp(config.width, stack.mlp_width, config.activation, residual_scale, rngs)

    def __call__(
        self,
        x_RLD: jax.Array,
        segment_RL: jax.Array,
        kernel: AttentionKernel,
        gain_RL: jax.Array | None,
        tensor: str,
    ) -> jax.Array:
        """Adds attention and MLP to the residual stream, each times the slot's gain."""

        def scaled(branch_RLD: jax.Array) -> jax.Array:
            return branch_RLD if gain_RL is None else branch_RLD * gain_RL[..., None]

        x_RLD += scaled(self.attention(self.attention_norm(x_RLD), segment_RL, kernel, tensor))
        return x_RLD + scaled(self.mlp(self.mlp_norm(x_RLD), tensor))


class Stack(nnx.Module):
    """`num_layers` blocks with stacked parameters, run by one scan."""

    def __init__(self, config: EncoderConfig, stack: TransformerConfig, rngs: nnx.Rngs):
        self.config, self.stack = config, stack
        if stack.num_layers:
            make = nnx.vmap(lambda key: Block(config, stack, nnx.Rngs(params=key)))
            self.blocks = make(jax.random.split(rngs.params(), stack.num_layers))

    def __call__(
        self,
        x_RLD: jax.Array,
        segment_RL: jax.Array,
        kernel: AttentionKernel = AttentionKernel.DENSE,
        skips: Skips | None = None,
        tensor: str = "",
    ) -> jax.Array:
        """Runs the blocks.

        Args:
            x_RLD: packed rows.
            segment_RL: segment of each slot.
            kernel: of attention.
            skips: blocks that segments leave out; None: none.
            tensor: mesh axis over which heads and hidden units are dealt; empty: none.
        """
        if not self.stack.num_layers:
            return x_RLD
        graph, stacked = nnx.split(self.blocks)

        def body(x_RLD: jax.Array, layer: tuple[nnx.State, jax.Array]) -> tuple[jax.Array, None]:
            block, number = layer
            gain_RL = skips and skips.gain(segment_RL, number).astype(x_RLD.dtype)
            return nnx.merge(graph, block)(x_RLD, segment_RL, kernel, gain_RL, tensor), None

        layers = stacked, jnp.arange(self.stack.num_layers, dtype=jnp.uint32)
        return jax.lax.scan(_recomputed(body, self.config.remat), x_RLD, layers)[0]


class Skips(NamedTuple):
    """Stochastic depth (Huang et al., arXiv 1603.09382), drawn on the host for each segment."""

    bits_U: jax.Array  # uint32: bit l is set where the segment skips block l
    rate: float  # chance of a skip; the blocks that stay make up for it

    def gain(self, segment_RL: jax.Array, layer: jax.Array) -> jax.Array:
        """What each slot multiplies the branches of a block by: 0, or 1 / (1 - rate)."""
        skipped_U = (self.bits_U >> layer) & 1
        # Padding names a segment beyond the last; what it computes is never looked at.
        slots_RL = jnp.minimum(segment_RL, len(self.bits_U) - 1)
        return jnp.where(skipped_U[slots_RL] == 0, 1.0 / (1.0 - self.rate), 0.0)


def _recomputed(body: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """A block that keeps for the way back what the setting says."""
    if remat is Remat.NONE:
        return body
    policy = None
    if remat is Remat.LINEAR:
        policy = jax.checkpoint_policies.save_only_these_names(LINEAR)
    return jax.checkpoint(body, prevent_cse=False, policy=policy)


def segment_mean(
    x_RLD: jax.Array, segment_RL: jax.Array, segments: int, weight_RL: jax.Array | None = None
) -> jax.Array:
    """Mean of each segment in float32: [segments, D]; absent segments give zero.

    Args:
        x_RLD: packed rows.
        segment_RL: segment of each slot, `segments` where padding.
        segments: number of segments.
        weight_RL: of slots, of which one at least in a segment is 1; None: all are.
    """
    flat = x_RLD.astype(jnp.float32).reshape(-1, x_RLD.shape[-1])
    where = segment_RL.reshape(-1)
    weight = jnp.ones(where.shape, jnp.float32)
    if weight_RL is not None:
        weight = weight_RL.reshape(-1)
        flat *= weight[:, None]
    total = jax.ops.segment_sum(flat, where, segments + 1)[:segments]
    count = jax.ops.segment_sum(weight, where, segments + 1)[:segments]
    return total / jnp.maximum(count, 1.0)[:, None]
