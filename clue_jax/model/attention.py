"""Attention inside packed rows, and the one place that decides how it is computed.

A row holds several segments end to end; a slot sees the slots of its own segment. Every kernel
computes the same function, so a run may change it; rows of the length an item has are too short for
a fused kernel to win anything (docs/results/encoder.md).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from clue_jax.config import AttentionKernel, EncoderConfig, Precision, TransformerConfig
from clue_jax.errors import ConfigError
from clue_jax.model.matmul import contract

_MASKED = -1e30
# The TPU compiler moves as many bytes for dense logits of 256 slots as splash attention does, and
# twice as many for 512.
_DENSE_ROW = 256


class Kernels(NamedTuple):
    """How each level attends; never AUTO."""

    items: AttentionKernel
    histories: AttentionKernel

    @property
    def typed(self) -> bool:
        """Whether `shard_map` can follow through them what varies over devices.

        The fused kernels' libraries do not say that of their results, so its check must be off.
        """
        return self == (AttentionKernel.DENSE, AttentionKernel.DENSE)


def choose_kernels(config: EncoderConfig, backend: str) -> Kernels:
    """The kernels of both levels on a backend.

    Args:
        config: its `attention`, `precision` and lengths of rows.
        backend: `cpu`, `gpu` or `tpu`.

    Raises:
        ConfigError: the kernel asked for cannot run there; says what it needs.
    """
    return Kernels(
        _choose(config, config.item, config.row_tokens, backend),
        _choose(config, config.service, config.row_behaviours, backend),
    )


def _choose(
    config: EncoderConfig, stack: TransformerConfig, row: int, backend: str
) -> AttentionKernel:
    if not stack.num_layers:
        return AttentionKernel.DENSE  # nothing attends
    lacks = {
        AttentionKernel.CUDNN: _cudnn_lacks(config, stack.num_heads, backend),
        AttentionKernel.SPLASH: _splash_lacks(row, backend),
    }
    if config.attention is AttentionKernel.AUTO:
        fused = (kernel for kernel, lack in lacks.items() if row > _DENSE_ROW and not lack)
        return next(fused, AttentionKernel.DENSE)
    if lack := lacks.get(config.attention):
        raise ConfigError(
            f"config.encoder.attention: {config.attention.value} needs {lack}; auto and dense run"
            " anywhere"
        )
    return config.attention


def _cudnn_lacks(config: EncoderConfig, heads: int, backend: str) -> str:
    if backend != "gpu":
        return f"an NVIDIA GPU, not {backend}"
    if config.precision is not Precision.BFLOAT16:
        return "config.encoder.precision=bfloat16"
    return "" if config.width // heads % 8 == 0 else "a head width that is a multiple of 8"


def _splash_lacks(row: int, backend: str) -> str:
    if backend != "tpu":
        return f"a TPU, not {backend}"
    return "" if row % 128 == 0 else f"rows of a multiple of 128 slots, not {row}"


def attend(
    kernel: AttentionKernel,
    q_RHLK: jax.Array,
    k_RHLK: jax.Array,
    v_RHLK: jax.Array,
    segment_RL: jax.Array,
) -> jax.Array:
    """softmax(q k^T / sqrt(K)) v inside segments, softmax in float32; [R, H, L, K]."""
    if kernel is AttentionKernel.CUDNN:
        return _cudnn(q_RHLK, k_RHLK, v_RHLK, segment_RL)
    if kernel is AttentionKernel.SPLASH:
        return splash(q_RHLK, k_RHLK, v_RHLK, segment_RL)
    logits_RHLM = contract("RHLK,RHMK->RHLM", q_RHLK, k_RHLK, jnp.float32)
    logits_RHLM *= q_RHLK.shape[-1] ** -0.5
    logits_RHLM = jnp.where(_same(segment_RL), logits_RHLM, _MASKED)
    weights_RHLM = jax.nn.softmax(logits_RHLM, axis=-1).astype(q_RHLK.dtype)
    return contract("RHLM,RHMK->RHLK", weights_RHLM, v_RHLK, q_RHLK.dtype)


def _same(segment_RL: jax.Array) -> jax.Array:
    """Which pairs of slots share a segment: [R, 1, L, L]."""
    return (segment_RL[:, :, None] == segment_RL[:, None, :])[:, None]


def _cudnn(
    q_RHLK: jax.Array, k_RHLK: jax.Array, v_RHLK: jax.Array, segment_RL: jax.Array
) -> jax.Array:
    q, k, v = (jnp.swapaxes(a, 1, 2) for a in (q_RHLK, k_RHLK, v_RHLK))
    mask = _same(segment_RL)
    mixed_RLHK = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
    return jnp.swapaxes(mixed_RLHK, 1, 2)


def splash(
    q_RHLK: jax.Array,
    k_RHLK: jax.Array,
    v_RHLK: jax.Array,
    segment_RL: jax.Array,
    *,
    interpret: bool = False,
) -> jax.Array:
    """JAX's splash attention for TPUs; `interpret` runs it anywhere, slowly, for tests."""
    from jax.experimental.pallas.ops.tpu import splash_attention as library

    _, heads, length, width = q_RHLK.shape
    mask = library.MultiHeadMask([library.FullMask((length, length))] * heads)
    kernel = library.make_splash_mha_single_device(mask, interpret=interpret)

    def row(q_HLK: jax.Array, k_HLK: jax.Array, v_HLK: jax.Array, segment_L: jax.Array):
        return kernel(q_HLK, k_HLK, v_HLK, library.SegmentIds(segment_L, segment_L))

    scaled_RHLK = q_RHLK * jnp.asarray(width**-0.5, q_RHLK.dtype)
    return jax.vmap(row)(scaled_RHLK, k_RHLK, v_RHLK, segment_RL)
