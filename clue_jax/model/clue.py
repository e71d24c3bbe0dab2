"""CLUE: Item Transformer and Service Transformer as plain functions of a parameter pytree.

    params = init(config, vocab_size, key)
    z_VbE, present_Vb = encode(params, config, packed, max_items)

Parameters are a nested dict of float32 arrays; nothing outside this folder sees a Flax object.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clue_jax.config import EncoderConfig, LossForm, PretrainConfig
from clue_jax.data.packing import PackedViews
from clue_jax.model.attention import choose_kernels
from clue_jax.model.chunked import Chunks, table_of_chunks
from clue_jax.model.item_encoder import ItemEncoder, token_embedding
from clue_jax.model.layers import Skips
from clue_jax.model.service_encoder import ServiceEncoder

Params = dict[str, Any]


class Clue(nnx.Module):
    """One encoder for all services (paper, section on the method)."""

    def __init__(self, config: EncoderConfig, vocab_size: int, rngs: nnx.Rngs):
        self.embedding = token_embedding(config, vocab_size, rngs)
        self.item = ItemEncoder(config, rngs)
        self.service = ServiceEncoder(config, rngs)


def init(config: EncoderConfig, vocab_size: int, key: jax.Array) -> Params:
    """Draws parameters, float32."""
    model = Clue(config, vocab_size, nnx.Rngs(params=key))
    # A bag has no parameters but its embedding.
    return {"item": {}, "service": {}, **nnx.to_pure_dict(nnx.state(model, nnx.Param))}


def init_run(config: PretrainConfig, vocab_size: int) -> Params:
    """Draws what a run trains from its seed: `encoder`, `log_scale` and, for sigmoid, `bias`."""
    params = {
        "encoder": init(config.encoder, vocab_size, jax.random.key(config.seed)),
        "log_scale": jnp.asarray(-math.log(config.loss.temperature), jnp.float32),
    }
    if config.loss.form is LossForm.SIGMOID:
        params["bias"] = jnp.asarray(config.loss.bias, jnp.float32)
    return params


def encode(
    params: Params,
    config: EncoderConfig,
    packed: PackedViews,
    max_items: int,
    layer_dropout: float = 0.0,
    backend: str = "",
) -> tuple[jax.Array, jax.Array]:
    """Encodes one device's packed views: each distinct item once, then each view.

    Of a chunk only its vectors outlive it, so memory grows with items and views, not with tokens
    or layers. Everything else is computed again on the way back.

    Args:
        params: from `init`.
        config: of the encoder.
        packed: from `pack_views`.
        max_items: U, rows of the item table: `Capacity.items`.
        layer_dropout: the rate at which the skips of `packed` were drawn; 0: there are none.
        backend: what it is compiled for: `cpu`, `gpu` or `tpu`; empty: where it runs.

    Returns:
        z_VbE: float32 unit vectors, zero where a user lacks a view.
        present_Vb: bool.
    """
    item_graph, service_graph = _graphs(config)
    # A traced index cannot index NumPy.
    params, packed = jax.tree.map(jnp.asarray, (params, packed))
    kernels = choose_kernels(config, backend or jax.default_backend())

    def skips(bits_U: jax.Array) -> Skips | None:
        return Skips(bits_U, layer_dropout) if layer_dropout else None

    def chunk_of_items(
        params: Params, x_RLD: jax.Array, fixed: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        item_RL, bits_U = fixed
        encoder = nnx.merge(item_graph, params)
        return encoder(x_RLD, item_RL, config.chunk_items, kernels.items, skips(bits_U))

    def chunk_of_views(
        params: Params, items_RTD: jax.Array, fixed: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        view_RT, bits_V = fixed
        encoder = nnx.merge(service_graph, params)
        return encoder(items_RTD, view_RT, config.chunk_views, kernels.histories, skips(bits_V))

    item_chunks, view_chunks = _chunks_of(packed)
    items_UD = table_of_chunks(
        chunk_of_items, params["item"], params["embedding"], item_chunks, max_items
    )
    z_NE = table_of_chunks(
        chunk_of_views, params["service"], items_UD, view_chunks, packed.view_slot_Vb.size
    )
    present_Vb = packed.view_slot_Vb >= 0
    return jnp.where(present_Vb[..., None], z_NE[packed.view_slot_Vb], 0.0), present_Vb


def _chunks_of(packed: PackedViews) -> tuple[Chunks, Chunks]:
    """The chunks of items, which look up tokens, and of views, which look up items."""
    items = Chunks(
        packed.tokens_CRL,
        (packed.token_item_CRL, packed.item_skips_CU),
        packed.item_span_C2,
        packed.num_item_chunks,
    )
    views = Chunks(
        packed.history_CRT,
        (packed.history_view_CRT, packed.view_skips_CU),
        packed.view_span_C2,
        packed.num_view_chunks,
    )
    return items, views


def _graphs(config: EncoderConfig) -> tuple[Any, Any]:
    """Structures of the two modules, without their arrays."""
    model = nnx.eval_shape(lambda: Clue(config, 1, nnx.Rngs(params=jax.random.key(0))))
    return nnx.split(model.item)[0], nnx.split(model.service)[0]
