"""CLUE: Item Transformer and Service Transformer as plain functions of a parameter pytree.

    params = init(config, vocab_size, key)
    z_VbE, present_Vb = encode(params, config, packed)

Parameters are a nested dict of float32 arrays; nothing outside this folder sees a Flax object.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clue_jax.config import EncoderConfig, PretrainConfig
from clue_jax.data.packing import PackedViews
from clue_jax.model.chunked import table_of_chunks
from clue_jax.model.item_encoder import ItemEncoder
from clue_jax.model.service_encoder import ServiceEncoder

Params = dict[str, Any]


class Clue(nnx.Module):
    """One encoder for all services (paper, section on the method)."""

    def __init__(self, config: EncoderConfig, vocab_size: int, rngs: nnx.Rngs):
        self.item = ItemEncoder(config, vocab_size, rngs)
        self.service = ServiceEncoder(config, rngs)


def init(config: EncoderConfig, vocab_size: int, key: jax.Array) -> Params:
    """Draws parameters, float32."""
    model = Clue(config, vocab_size, nnx.Rngs(params=key))
    # A bag of items without projection has no parameters of its own.
    return {"service": {}, **nnx.to_pure_dict(nnx.state(model, nnx.Param))}


def init_run(config: PretrainConfig, vocab_size: int) -> Params:
    """Draws what a run trains, a pure function of its seed: `encoder` and `log_scale`."""
    return {
        "encoder": init(config.encoder, vocab_size, jax.random.key(config.seed)),
        "log_scale": jnp.asarray(-math.log(config.loss.temperature), jnp.float32),
    }


def encode(
    params: Params, config: EncoderConfig, packed: PackedViews
) -> tuple[jax.Array, jax.Array]:
    """Encodes one device's packed views; only the embeddings outlive a group of users.

    Args:
        params: from `init`.
        config: of the encoder.
        packed: from `pack_views`.

    Returns:
        z_VbE: float32 unit vectors, zero where a user lacks a view.
        present_Vb: bool.
    """
    item_graph, service_graph = _graphs(config, params["item"]["embedding"].shape[0])
    num_views = packed.view_slot_Vb.size
    packed = jax.tree.map(jnp.asarray, packed)  # a traced index cannot index NumPy

    def chunk_of_items(params: Params, packed: PackedViews, c: jax.Array) -> jax.Array:
        encoder = nnx.merge(item_graph, params)
        return encoder(packed.tokens_CRL[c], packed.token_item_CRL[c], config.chunk_items)

    def chunk_of_views(
        shared: tuple[Params, jax.Array], packed: PackedViews, c: jax.Array
    ) -> jax.Array:
        params, items_UD = shared
        items_RTD = items_UD[packed.history_CRT[c]]
        return nnx.merge(service_graph, params)(
            items_RTD, packed.history_view_CRT[c], config.chunk_views
        )

    def group(params: Params, packed: PackedViews, g: jax.Array) -> jax.Array:
        items_UD = table_of_chunks(
            chunk_of_items,
            params["item"],
            packed,
            packed.item_span_C2,
            packed.group_item_chunks_G2[g],
            config.max_items,
        )
        return table_of_chunks(
            chunk_of_views,
            (params["service"], items_UD),
            packed,
            packed.view_span_C2,
            packed.group_history_chunks_G2[g],
            min(num_views, config.max_behaviours),
        )

    z_NE = table_of_chunks(
        group,
        {"item": params["item"], "service": params["service"]},
        packed,
        packed.group_view_span_G2,
        jnp.stack([jnp.zeros_like(packed.num_groups), packed.num_groups]),
        num_views,
    )
    present_Vb = packed.view_slot_Vb >= 0
    return jnp.where(present_Vb[..., None], z_NE[packed.view_slot_Vb], 0.0), present_Vb


def _graphs(config: EncoderConfig, vocab_size: int) -> tuple[Any, Any]:
    """Structures of the two modules, without their arrays."""
    model = nnx.eval_shape(lambda: Clue(config, vocab_size, nnx.Rngs(params=jax.random.key(0))))
    return nnx.split(model.item)[0], nnx.split(model.service)[0]
