"""CLUE: Item Transformer and Service Transformer as plain functions of a parameter pytree.

    params = init(config, vocab_size, key)
    z_VbE, present_Vb = encode(params, config, packed, max_items)

Parameters are a nested dict of float32 arrays; nothing outside this folder sees a Flax object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from clue_jax.config import AttentionKernel, EncoderConfig, LossForm, PretrainConfig
from clue_jax.data.packing import PackedViews
from clue_jax.model.attention import choose_kernels
from clue_jax.model.chunked import Chunks, Compute, Transfer, table_of_chunks
from clue_jax.model.item_encoder import ItemEncoder, token_embedding
from clue_jax.model.layers import Skips, compute_dtype
from clue_jax.model.service_encoder import ServiceEncoder
from clue_jax.parallel.collectives import Shards
from clue_jax.parallel.mesh import DEVICES, TENSOR

Params = dict[str, Any]
ITEMS, HISTORIES = "items", "histories"  # the two levels in profiles and compiled programs


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


def embed_like(params: Params, tokens: Sequence[int], source: int) -> Params:
    """The encoder's parameters, with `tokens` embedded like the token `source`."""
    embedding_VD = params["embedding"]
    changed_V = np.zeros(len(embedding_VD), bool)
    changed_V[list(tokens)] = True

    def embed(embedding_VD: jax.Array) -> jax.Array:
        return jnp.where(changed_V[:, None], embedding_VD[source][None], embedding_VD)

    moved = jax.jit(embed, out_shardings=embedding_VD.sharding)(embedding_VD)
    return {**params, "embedding": moved}


def encode(
    params: Params,
    config: EncoderConfig,
    packed: PackedViews,
    max_items: int,
    layer_dropout: float = 0.0,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Encodes packed views of one device, or group: each distinct item once, then each view.

    Of a chunk only its vectors outlive it, so memory grows with items and views, not with tokens
    or layers. Everything else is computed again on the way back.

    Args:
        params: from `init`; on a mesh, this device's `own_copies`.
        config: of the encoder.
        packed: from `pack_views`; on a mesh, typed as varying over all axes.
        max_items: U, rows of the item table: `Capacity.items`.
        layer_dropout: the rate at which the skips of `packed` were drawn; 0: there are none.
        mesh: whose `shard_map` this is inside of; None: parameters are whole, the device is ours.

    Returns:
        z_VbE: float32 unit vectors, zero where a user lacks a view.
        present_Vb: bool.
    """
    items_UD = encode_items(params, config, packed, max_items, layer_dropout, mesh)
    return encode_views(params, config, packed, items_UD, layer_dropout, mesh)


def encode_items(
    params: Params,
    config: EncoderConfig,
    packed: PackedViews,
    max_items: int,
    layer_dropout: float = 0.0,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The first half of `encode`: items_UD float32, in the order in which `packed` numbers them."""
    # A traced index cannot index NumPy.
    params, packed = jax.tree.map(jnp.asarray, (params, packed))
    compute, _ = _levels(config, layer_dropout, backend_of(mesh), _tensor(mesh))
    chunks, _ = _chunks_of(packed, bool(_tensor(mesh)))
    transfer = _transfer(_shards(config, mesh), "embedding")
    with jax.named_scope(ITEMS):
        return table_of_chunks(
            compute, params["item"], params["embedding"], chunks, max_items, transfer
        )


def encode_views(
    params: Params,
    config: EncoderConfig,
    packed: PackedViews,
    items_UD: jax.Array,
    layer_dropout: float = 0.0,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The second half of `encode`: z_VbE and present_Vb from the vectors of items."""
    params, packed = jax.tree.map(jnp.asarray, (params, packed))
    _, compute = _levels(config, layer_dropout, backend_of(mesh), _tensor(mesh))
    _, chunks = _chunks_of(packed, bool(_tensor(mesh)))
    transfer = _transfer(_shards(config, mesh))
    with jax.named_scope(HISTORIES):
        z_NE = table_of_chunks(
            compute, params["service"], items_UD, chunks, packed.view_slot_Vb.size, transfer
        )
    present_Vb = packed.view_slot_Vb >= 0
    return jnp.where(present_Vb[..., None], z_NE[packed.view_slot_Vb], 0.0), present_Vb


def _tensor(mesh: Mesh | None) -> str:
    return TENSOR if mesh and mesh.shape[TENSOR] > 1 else ""


def _shards(config: EncoderConfig, mesh: Mesh | None) -> Shards | None:
    return Shards(mesh, compute_dtype(config.precision)) if mesh else None


def _levels(
    config: EncoderConfig, layer_dropout: float, backend: str, tensor: str
) -> tuple[Compute, Compute]:
    """A chunk of items, and of views, as functions of parameters, vectors and what is fixed."""
    kernels = choose_kernels(config, backend)

    def level(graph: Any, segments: int, kernel: AttentionKernel) -> Compute:
        def chunk(params: Params, x_RLD: jax.Array, fixed: tuple[jax.Array, ...]) -> jax.Array:
            segment_RL, bits_U, *weight_RL = fixed
            skips = Skips(bits_U, layer_dropout) if layer_dropout else None
            encoder = nnx.merge(graph, params)
            return encoder(x_RLD, segment_RL, segments, kernel, skips, tensor, *weight_RL)

        return chunk

    items, histories = _graphs(config)
    return (
        level(items, config.chunk_items, kernels.items),
        level(histories, config.chunk_views, kernels.histories),
    )


def backend_of(mesh: Mesh | None) -> str:
    """What it is compiled for, `cpu`, `gpu` or `tpu`: not always where we are."""
    return mesh.devices.flat[0].platform if mesh else jax.default_backend()


def _transfer(shards: Shards | None, lookup_name: str = "") -> Transfer:
    """Of the parameters of a level; what it looks up in is one if it has a name."""
    if shards is None:
        return Transfer()

    def moved(move: Callable[[Params], Params], inputs: tuple[Params, jax.Array]) -> Any:
        shared, lookup_XD = inputs
        if lookup_name:
            lookup_XD = move({lookup_name: lookup_XD})[lookup_name]
        return move(shared), lookup_XD

    return Transfer(partial(moved, shards.gather), partial(moved, shards.scatter))


def _chunks_of(packed: PackedViews, together: bool) -> tuple[Chunks, Chunks]:
    """The chunks of items, which look up tokens, and of views, which look up items.

    Where chunks send, all devices go through their loops `together`: the groups that exchange have
    equal counts anyway, but no compiler is asked to schedule the exchanges of groups that are at
    different places of a program. What a device has no chunk for is padding, of which vectors and
    gradients are zero.
    """

    def count(own: jax.Array) -> jax.Array:
        return jax.lax.pmax(own, DEVICES) if together else own

    items = Chunks(
        packed.tokens_CRL,
        (packed.token_item_CRL, packed.item_skips_CU),
        packed.item_span_C2,
        count(packed.num_item_chunks),
    )
    weighted = packed.history_weight_CRT.shape == packed.history_CRT.shape
    views = Chunks(
        packed.history_CRT,
        (
            packed.history_view_CRT,
            packed.view_skips_CU,
            *([packed.history_weight_CRT] if weighted else []),
        ),
        packed.view_span_C2,
        count(packed.num_view_chunks),
    )
    return items, views


def _graphs(config: EncoderConfig) -> tuple[Any, Any]:
    """Structures of the two modules, without their arrays."""
    model = nnx.eval_shape(lambda: Clue(config, 1, nnx.Rngs(params=jax.random.key(0))))
    return nnx.split(model.item)[0], nnx.split(model.service)[0]
