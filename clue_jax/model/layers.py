"""Norm, block-diagonal attention, MLP, and a stack of them run by one scan.

Rows hold several segments end to end. Attention sees its own segment only, and rotary positions
(Su et al., "RoFormer", arXiv 2104.09864) depend on differences alone, so a segment's output does
not depend on where in a row it lies.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from clue_jax.config import Activation, EncoderConfig, Precision, TransformerConfig

_MASKED = -1e30
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
        self.qkv = nnx.Param(init(rngs.params(), (3, width, heads, head), jnp.float32))
        self.out = nnx.Param(out(rngs.params(), (heads, head, width), jnp.float32))

    def __call__(self, x_RLD: jax.Array, segment_RL: jax.Array) -> jax.Array:
        dtype = x_RLD.dtype
        q, k, v = jnp.einsum("RLD,nDHK->nRLHK", x_RLD, self.qkv[...].astype(dtype))
        q, k = rotate(q), rotate(k)
        logits = jnp.einsum("RLHK,RMHK->RHLM", q, k, preferred_element_type=jnp.float32)
        same_RLM = segment_RL[:, :, None] == segment_RL[:, None, :]
        logits = jnp.where(same_RLM[:, None], logits * q.shape[-1] ** -0.5, _MASKED)
        weights = jax.nn.softmax(logits, axis=-1).astype(dtype)
        mixed = jnp.einsum("RHLM,RMHK->RLHK", weights, v)
        return jnp.einsum("RLHK,HKD->RLD", mixed, self.out[...].astype(dtype))


def rotate(x_RLHK: jax.Array) -> jax.Array:
    """Rotary positions along L, in float32."""
    length, half = x_RLHK.shape[1], x_RLHK.shape[-1] // 2
    frequency_K = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_LK = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency_K[None, :]
    cos, sin = jnp.cos(angle_LK)[None, :, None], jnp.sin(angle_LK)[None, :, None]
    first, second = jnp.split(x_RLHK.astype(jnp.float32), [half], axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return turned.astype(x_RLHK.dtype)


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
        self.up = nnx.Param(init(rngs.params(), (gates, width, hidden), jnp.float32))
        self.down = nnx.Param(out(rngs.params(), (hidden, width), jnp.float32))

    def __call__(self, x_RLD: jax.Array) -> jax.Array:
        up = jnp.einsum("RLD,gDF->gRLF", x_RLD, self.up[...].astype(x_RLD.dtype))
        if self.activation is Activation.SWIGLU:
            hidden_RLF = jax.nn.silu(up[0]) * up[1]
        else:
            hidden_RLF = jax.nn.gelu(up[0])
        return jnp.einsum("RLF,FD->RLD", hidden_RLF, self.down[...].astype(x_RLD.dtype))


class Block(nnx.Module):
    """Pre-norm Transformer block."""

    def __init__(self, config: EncoderConfig, stack: TransformerConfig, rngs: nnx.Rngs):
        # GPT-2's rule: the residual stream keeps its scale whatever the depth.
        residual_scale = 1.0 / math.sqrt(2 * stack.num_layers)
        self.attention_norm = Norm(config.width)
        self.attention = Attention(config.width, stack.num_heads, residual_scale, rngs)
        self.mlp_norm = Norm(config.width)
        self.mlp = Mlp(config.width, stack.mlp_width, config.activation, residual_scale, rngs)

    def __call__(self, x_RLD: jax.Array, segment_RL: jax.Array) -> jax.Array:
        x_RLD = x_RLD + self.attention(self.attention_norm(x_RLD), segment_RL)
        return x_RLD + self.mlp(self.mlp_norm(x_RLD))


class Stack(nnx.Module):
    """`num_layers` blocks with stacked parameters, run by one scan."""

    def __init__(self, config: EncoderConfig, stack: TransformerConfig, rngs: nnx.Rngs):
        self.num_layers = stack.num_layers
        self.remat = config.remat
        if stack.num_layers:
            make = nnx.vmap(lambda key: Block(config, stack, nnx.Rngs(params=key)))
            self.blocks = make(jax.random.split(rngs.params(), stack.num_layers))

    def __call__(self, x_RLD: jax.Array, segment_RL: jax.Array) -> jax.Array:
        if not self.num_layers:
            return x_RLD
        graph, stacked = nnx.split(self.blocks)

        def body(x_RLD: jax.Array, layer: nnx.State) -> tuple[jax.Array, None]:
            return nnx.merge(graph, layer)(x_RLD, segment_RL), None

        body = jax.checkpoint(body, prevent_cse=False) if self.remat else body
        return jax.lax.scan(body, x_RLD, stacked)[0]


def segment_mean(x_RLD: jax.Array, segment_RL: jax.Array, segments: int) -> jax.Array:
    """Mean of each segment in float32: [segments, D]; absent segments give zero.

    Args:
        x_RLD: packed rows.
        segment_RL: segment of each slot, `segments` where padding.
        segments: number of segments.
    """
    flat = x_RLD.astype(jnp.float32).reshape(-1, x_RLD.shape[-1])
    where = segment_RL.reshape(-1)
    total = jax.ops.segment_sum(flat, where, segments + 1)[:segments]
    count = jax.ops.segment_sum(jnp.ones(where.shape, jnp.float32), where, segments + 1)[:segments]
    return total / jnp.maximum(count, 1.0)[:, None]
