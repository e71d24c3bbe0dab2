"""A Transformer over item ids that predicts the next one: what is trained for that task alone.

SASRec (Kang and McAuley, arXiv 1808.09781) with the full cross-entropy over the catalogue in place
of sampled negatives, which makes it a stronger baseline (Klenitskiy and Vasilev, arXiv 2309.07602).
Pre-norm blocks with rotary positions, those of the encoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from clue_jax.config import Activation
from clue_jax.model.layers import Mlp, Norm, rotate

Params = Any  # a pytree of float32 arrays


@dataclass(frozen=True)
class SasRecConfig:
    """Sizes of the model."""

    items: int  # C
    width: int = 64  # D
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2  # of item vectors, in training


class _Block(nnx.Module):
    def __init__(self, config: SasRecConfig, rngs: nnx.Rngs):
        width, scale = config.width, 1.0 / math.sqrt(2 * config.layers)
        init = jax.nn.initializers.normal(width**-0.5)
        self.heads = config.heads
        self.attention_norm, self.mlp_norm = Norm(width), Norm(width)
        self.qkv = nnx.Param(init(rngs.params(), (width, 3 * width), jnp.float32))
        self.out = nnx.Param(scale * init(rngs.params(), (width, width), jnp.float32))
        self.mlp = Mlp(width, 4 * width, Activation.GELU, scale, rngs)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        batch, length, width = x_BTD.shape
        qkv = (self.attention_norm(x_BTD) @ self.qkv[...]).reshape(batch, length, 3, self.heads, -1)
        q_BTHK, k_BTHK, v_BTHK = jnp.moveaxis(qkv, 2, 0)
        turn = lambda x: jnp.swapaxes(rotate(jnp.swapaxes(x, 1, 2)), 1, 2)  # noqa: E731
        mixed = jax.nn.dot_product_attention(turn(q_BTHK), turn(k_BTHK), v_BTHK, is_causal=True)
        x_BTD = x_BTD + mixed.reshape(batch, length, width) @ self.out[...]
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class SasRec(nnx.Module):
    """Entries of a catalogue, oldest first -> at each place the logits of the next one."""

    def __init__(self, config: SasRecConfig, rngs: nnx.Rngs):
        self.config = config
        init = jax.nn.initializers.normal(0.02)
        # One more row stands for the places after the end of a history.
        self.embedding = nnx.Param(
            init(rngs.params(), (config.items + 1, config.width), jnp.float32)
        )
        self.bias = nnx.Param(jnp.zeros(config.items, jnp.float32))
        self.blocks = nnx.List([_Block(config, rngs) for _ in range(config.layers)])
        self.norm = Norm(config.width)

    def __call__(self, entry_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        x_BTD = self.embedding[...][entry_BT] * math.sqrt(self.config.width)
        if key is not None and self.config.dropout:
            kept = jax.random.bernoulli(key, 1.0 - self.config.dropout, x_BTD.shape)
            x_BTD = jnp.where(kept, x_BTD / (1.0 - self.config.dropout), 0.0)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.norm(x_BTD)


def init(config: SasRecConfig, key: jax.Array) -> Params:
    """Draws parameters."""
    return nnx.to_pure_dict(nnx.state(SasRec(config, nnx.Rngs(params=key)), nnx.Param))


def _hidden(
    config: SasRecConfig, params: Params, entry_BT: jax.Array, key: jax.Array | None
) -> jax.Array:
    model = nnx.eval_shape(lambda: SasRec(config, nnx.Rngs(params=0)))
    graph, state = nnx.split(model)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(entry_BT, key)


def _logits(params: Params, hidden: jax.Array) -> jax.Array:
    flat = hidden @ params["embedding"][:-1].T
    return flat + params["bias"].reshape((1,) * (flat.ndim - 1) + (-1,))


@partial(jax.jit, static_argnums=0)
def losses(
    config: SasRecConfig,
    params: Params,
    entry_BT: jax.Array,
    target_BT: jax.Array,
    key: jax.Array | None,
) -> jax.Array:
    """Cross-entropy [B, T] of the next entry at each place.

    Args:
        config: of the model.
        params: of `init`.
        entry_BT: histories, oldest first, then `config.items` as padding.
        target_BT: the next entry.
        key: of dropout; None: none.
    """
    logits_BTC = _logits(params, _hidden(config, params, entry_BT, key))
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTC, target_BT)


@partial(jax.jit, static_argnums=0)
def next_logits(
    config: SasRecConfig, params: Params, entry_BT: jax.Array, last_B: jax.Array
) -> jax.Array:
    """Logits [B, C] of what follows the place `last_B` of each history."""
    hidden_BTD = _hidden(config, params, entry_BT, None)
    hidden_BD = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]
    return _logits(params, hidden_BD)
