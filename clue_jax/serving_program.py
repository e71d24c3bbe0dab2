"""The encoder as a program that runs without this package: `jax.export` over padded arrays.

    import jax, numpy as np, safetensors.numpy
    program = jax.export.deserialize(bytearray(open("encoder/program.jax", "rb").read()))
    weights = safetensors.numpy.load_file("encoder/model.safetensors")
    z_NE = program.call(weights, tokens_NTL, counts_N)

A row of `tokens_NTL` is an item: its guide token, then the tokens of its text, then zeros;
config.json in the same folder has the sizes and the guides. Nothing is packed here, so padding is
computed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from clue_jax.config import AttentionKernel, EncoderConfig
from clue_jax.data.packing import PackedViews
from clue_jax.data.tokenizer import PAD
from clue_jax.errors import ConfigError
from clue_jax.model import clue
from clue_jax.parallel.rules import path_of

HISTORIES = 32  # N
PLATFORMS = ("cpu", "cuda", "tpu")


def serialized_program(config: EncoderConfig, params: clue.Params) -> bytes:
    """The program for N = `HISTORIES` histories of up to T behaviours of up to L tokens.

    It takes parameters by path, as model.safetensors has them, tokens int32 [N, T, L] and the
    number of behaviours of each history, int32 [N]; it gives unit vectors float32 [N, E], zeros
    for a history without behaviours.

    Args:
        config: of the encoder; T is `max_history`, L is `max_item_tokens`.
        params: of which only the shapes count.

    Raises:
        ConfigError: what serialises a program is not installed.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ConfigError("program: pip install '.[serving]' to make one") from error
    # What every platform can run.
    config = dataclasses.replace(config, attention=AttentionKernel.DENSE)
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [path_of(path) for path, _ in leaves]

    def program(
        weights: dict[str, jax.Array], tokens_NTL: jax.Array, counts_N: jax.Array
    ) -> jax.Array:
        own = jax.tree_util.tree_unflatten(structure, [weights[name] for name in names])
        packed, max_items = _padded(config, tokens_NTL, counts_N)
        z_VbE, _ = clue.encode(own, config, packed, max_items)
        return z_VbE[0].astype(jnp.float32)

    shapes = {path_of(path): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in leaves}
    tokens = jax.ShapeDtypeStruct(
        (HISTORIES, config.max_history, config.max_item_tokens), jnp.int32
    )
    counts = jax.ShapeDtypeStruct((HISTORIES,), jnp.int32)
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(shapes, tokens, counts)
    return bytes(exported.serialize())


def _padded(
    config: EncoderConfig, tokens_NTL: jax.Array, counts_N: jax.Array
) -> tuple[PackedViews, int]:
    """Buffers in which every item and every history has a row of its own, and U."""
    N, T, L = tokens_NTL.shape
    of_items = _rows(N * T, config.item_rows, config.chunk_items)
    of_views = _rows(N, config.history_rows, config.chunk_views)
    tokens_CRL = _in_chunks(tokens_NTL.reshape(N * T, L), of_items, config.row_tokens)
    item_NT = jnp.arange(N * T, dtype=jnp.int32).reshape(N, T)
    real_NT = jnp.arange(T)[None, :] < counts_N[:, None]
    history_CRT = _in_chunks(item_NT, of_views, config.row_behaviours)
    real_CRT = _in_chunks(real_NT, of_views, config.row_behaviours)
    packed = PackedViews(
        tokens_CRL=tokens_CRL,
        token_item_CRL=_segments(tokens_CRL != PAD, config.chunk_items),
        item_skips_CU=jnp.zeros((of_items[0], 1), jnp.uint32),
        item_span_C2=_spans(of_items),
        num_item_chunks=jnp.int32(of_items[0]),
        history_CRT=history_CRT,
        history_view_CRT=_segments(real_CRT, config.chunk_views),
        history_weight_CRT=jnp.ones((of_views[0], 1, 1), jnp.float32),
        view_skips_CU=jnp.zeros((of_views[0], 1), jnp.uint32),
        view_span_C2=_spans(of_views),
        num_view_chunks=jnp.int32(of_views[0]),
        view_slot_Vb=jnp.where(counts_N > 0, jnp.arange(N, dtype=jnp.int32), -1)[None],
        keys_Kb=jnp.zeros((1, N), jnp.int32),
    )
    return packed, of_items[0] * of_items[1]


def _rows(count: int, rows: int, most: int) -> tuple[int, int]:
    """Chunks and rows in a chunk, a row for each of `count`."""
    rows = min(rows, most, count)
    return -(-count // rows), rows


def _in_chunks(rows_XW: jax.Array, chunks: tuple[int, int], width: int) -> jax.Array:
    C, R = chunks
    missing = (0, C * R - rows_XW.shape[0]), (0, width - rows_XW.shape[1])
    return jnp.pad(rows_XW, missing).reshape(C, R, width)


def _segments(real_CRW: jax.Array, padding: int) -> jax.Array:
    """Each row is one segment of its chunk."""
    row_R1 = jnp.arange(real_CRW.shape[1], dtype=jnp.int32)[:, None]
    return jnp.where(real_CRW, row_R1, padding)


def _spans(chunks: tuple[int, int]) -> jax.Array:
    C, R = chunks
    return jnp.stack([R * jnp.arange(C), jnp.full(C, R)], axis=1).astype(jnp.int32)


def inputs_of(config: EncoderConfig) -> dict[str, Any]:
    """Sizes of the arrays that the program takes."""
    return {
        "histories": HISTORIES,
        "behaviours": config.max_history,
        "tokens": config.max_item_tokens,
        "platforms": list(PLATFORMS),
    }
