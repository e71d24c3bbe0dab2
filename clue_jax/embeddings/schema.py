"""The tables of an export: one row per user, or one per distinct item.

Embeddings are float32 fixed-size lists, which every Parquet reader understands. Where fewer bytes
are asked for they are fixed-size binaries: Parquet stores a list of int8 as int32, and lists of
float16 break several readers. A user who lacks a service has null in that service's column, and 0
in its counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clue_jax.config import StoredPrecision
from clue_jax.embeddings.vectors import list_type, vector_columns, vector_fields

SCHEMA_VERSION = "embeddings/v1"
KEYS = {"users": "user_id", "items": "item_id"}  # the column no two rows share
# Parquet has no timestamps in seconds; milliseconds come back as they were written.
TIME = pa.timestamp("ms", tz="UTC")
FLOAT32 = StoredPrecision.FLOAT32


def user_schema(
    services: Sequence[str], width: int, precision: StoredPrecision = FLOAT32
) -> pa.Schema:
    """Columns of an export of users.

    Args:
        services: S names, in the order of the service axis.
        width: E, of every embedding.
        precision: of their values.
    """
    fields = [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        *vector_fields("embedding", width, precision, nullable=False),
    ]
    for service in services:
        fields += vector_fields(f"embedding_{service}", width, precision)
    for name, kind in (("num_behaviours", pa.int32()), ("num_tokens", pa.int64())):
        fields += [pa.field(f"{name}_{service}", kind, nullable=False) for service in services]
    return pa.schema(
        [
            *fields,
            pa.field("services", list_type(pa.string()), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("first_event_at", TIME),
            pa.field("last_event_at", TIME),
            pa.field("event_timestamp", TIME),
            pa.field("model_version", pa.string(), nullable=False),
        ]
    )


def item_schema(width: int, precision: StoredPrecision = FLOAT32) -> pa.Schema:
    """Columns of an export of items; `item_id` holds the bits of an unsigned identity."""
    return pa.schema(
        [
            pa.field("item_id", pa.int64(), nullable=False),
            pa.field("source_id", pa.string(), nullable=False),
            pa.field("service", pa.string(), nullable=False),
            *vector_fields("embedding", width, precision, nullable=False),
            pa.field("model_version", pa.string(), nullable=False),
        ]
    )


def user_table(
    *,
    user_ids: np.ndarray,
    splits: np.ndarray,
    services: Sequence[str],
    embedding_NE: np.ndarray,
    z_NSE: np.ndarray,
    counts_NS: np.ndarray,
    tokens_NS: np.ndarray,
    truncated_N: np.ndarray,
    first_N: np.ndarray | None,
    last_N: np.ndarray | None,
    event_N: np.ndarray | None,
    model_version: str,
    precision: StoredPrecision = FLOAT32,
) -> pa.Table:
    """A table of `user_schema`.

    Args:
        user_ids: [N] str.
        splits: [N] str.
        services: S names.
        embedding_NE: the combined embedding, unit length.
        z_NSE: one embedding per service; ignored where `counts_NS` is 0.
        counts_NS: behaviours that the encoder might see.
        tokens_NS: tokens of their texts.
        truncated_N: whether the encoder read only some of these, as it takes no more.
        first_N: epoch seconds of the first behaviour; None: the data have no dates.
        last_N: of the last behaviour; None as above.
        event_N: the time as of which the embedding holds; None as above.
        model_version: of all rows.
        precision: of embeddings.
    """
    schema = user_schema(services, embedding_NE.shape[1], precision)
    columns = {
        "user_id": pa.array(user_ids.tolist(), pa.string()),
        "split": pa.array(splits.tolist(), pa.string()),
        **vector_columns("embedding", embedding_NE, None, precision),
        "services": _names(services, counts_NS > 0),
        "truncated": pa.array(truncated_N, pa.bool_()),
        "first_event_at": _times(first_N, len(user_ids)),
        "last_event_at": _times(last_N, len(user_ids)),
        "event_timestamp": _times(event_N, len(user_ids)),
        "model_version": pa.array([model_version] * len(user_ids), pa.string()),
    }
    for s, service in enumerate(services):
        present_N = counts_NS[:, s] > 0
        columns |= vector_columns(f"embedding_{service}", z_NSE[:, s], present_N, precision)
        columns[f"num_behaviours_{service}"] = pa.array(counts_NS[:, s].astype(np.int32))
        columns[f"num_tokens_{service}"] = pa.array(tokens_NS[:, s].astype(np.int64))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def item_table(
    *,
    item_ids: np.ndarray,
    source_ids: np.ndarray,
    services: np.ndarray,
    embedding_JE: np.ndarray,
    model_version: str,
    precision: StoredPrecision = FLOAT32,
) -> pa.Table:
    """A table of `item_schema`; `item_ids` are uint64 [J], the other columns [J] str."""
    schema = item_schema(embedding_JE.shape[1], precision)
    columns = {
        "item_id": pa.array(item_ids.astype(np.uint64).view(np.int64)),
        "source_id": pa.array(source_ids.tolist(), pa.string()),
        "service": pa.array(services.tolist(), pa.string()),
        **vector_columns("embedding", embedding_JE, None, precision),
        "model_version": pa.array([model_version] * len(item_ids), pa.string()),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _names(services: Sequence[str], present_NS: np.ndarray) -> pa.Array:
    """The services that each row has, as lists."""
    offsets_N = np.concatenate([[0], np.cumsum(present_NS.sum(axis=1))]).astype(np.int32)
    names = pa.array(list(services), pa.string()).take(pa.array(np.nonzero(present_NS)[1]))
    return pa.ListArray.from_arrays(offsets_N, names, type=list_type(pa.string()))


def _times(seconds_N: np.ndarray | None, count: int) -> pa.Array:
    if seconds_N is None:
        return pa.nulls(count, TIME)
    return pa.array(seconds_N.astype(np.int64) * 1_000).cast(TIME)
