"""The tables of an export: one row per user, or one per distinct item.

Embeddings are float32 fixed-size lists, which every Parquet reader understands. A user who lacks a
service has null in that service's column, and 0 in its count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clue_jax.errors import ConfigError, DataError

SCHEMA_VERSION = 1
OLDEST_PYARROW = 26
KEYS = {"users": "user_id", "items": "item_id"}  # the column no two rows share
# Parquet has no timestamps in seconds; milliseconds come back as they were written.
TIME = pa.timestamp("ms", tz="UTC")


def embedding_type(width: int) -> pa.DataType:
    """The type of a vector of `width` float32 values.

    Raises:
        ConfigError: pyarrow is too old to read such vectors where some are null.
    """
    if int(pa.__version__.partition(".")[0]) < OLDEST_PYARROW:
        raise ConfigError(
            f"pyarrow {pa.__version__}: embeddings need {OLDEST_PYARROW} or newer, and Apache Beam"
            " does not allow that; an environment with Beam is for prepare alone"
        )
    return pa.list_(pa.field("element", pa.float32(), nullable=False), width)


def user_schema(services: Sequence[str], width: int) -> pa.Schema:
    """Columns of an export of users.

    Args:
        services: S names, in the order of the service axis.
        width: E, of every embedding.
    """
    vector = embedding_type(width)
    return pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("embedding", vector, nullable=False),
            *(pa.field(f"embedding_{service}", vector) for service in services),
            *(
                pa.field(f"num_behaviours_{service}", pa.int32(), nullable=False)
                for service in services
            ),
            pa.field("first_event_at", TIME),
            pa.field("last_event_at", TIME),
            pa.field("event_timestamp", TIME),
            pa.field("model_version", pa.string(), nullable=False),
        ]
    )


def item_schema(width: int) -> pa.Schema:
    """Columns of an export of items; `item_id` holds the bits of an unsigned identity."""
    return pa.schema(
        [
            pa.field("item_id", pa.int64(), nullable=False),
            pa.field("source_id", pa.string(), nullable=False),
            pa.field("service", pa.string(), nullable=False),
            pa.field("embedding", embedding_type(width), nullable=False),
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
    first_N: np.ndarray | None,
    last_N: np.ndarray | None,
    event_N: np.ndarray | None,
    model_version: str,
) -> pa.Table:
    """A table of `user_schema`.

    Args:
        user_ids: [N] str.
        splits: [N] str.
        services: S names.
        embedding_NE: the combined embedding, unit length.
        z_NSE: one embedding per service; ignored where `counts_NS` is 0.
        counts_NS: behaviours that went into them.
        first_N: epoch seconds of the first behaviour; None: the data have no dates.
        last_N: of the last behaviour; None as above.
        event_N: the time as of which the embedding holds; None as above.
        model_version: of all rows.
    """
    schema = user_schema(services, embedding_NE.shape[1])
    columns = {
        "user_id": pa.array(user_ids.tolist(), pa.string()),
        "split": pa.array(splits.tolist(), pa.string()),
        "embedding": vectors(embedding_NE),
        "first_event_at": _times(first_N, len(user_ids)),
        "last_event_at": _times(last_N, len(user_ids)),
        "event_timestamp": _times(event_N, len(user_ids)),
        "model_version": pa.array([model_version] * len(user_ids), pa.string()),
    }
    for s, service in enumerate(services):
        columns[f"embedding_{service}"] = vectors(z_NSE[:, s], counts_NS[:, s] > 0)
        columns[f"num_behaviours_{service}"] = pa.array(counts_NS[:, s].astype(np.int32))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def item_table(
    *,
    item_ids: np.ndarray,
    source_ids: np.ndarray,
    services: np.ndarray,
    embedding_JE: np.ndarray,
    model_version: str,
) -> pa.Table:
    """A table of `item_schema`; `item_ids` are uint64 [J], the other columns [J] str."""
    schema = item_schema(embedding_JE.shape[1])
    columns = (
        pa.array(item_ids.astype(np.uint64).view(np.int64)),
        pa.array(source_ids.tolist(), pa.string()),
        pa.array(services.tolist(), pa.string()),
        vectors(embedding_JE),
        pa.array([model_version] * len(item_ids), pa.string()),
    )
    return pa.table(list(columns), schema=schema)


def vectors(z_NE: np.ndarray, present_N: np.ndarray | None = None) -> pa.Array:
    """Rows of a matrix as fixed-size lists, null where `present_N` is false."""
    flat = pa.array(np.ascontiguousarray(z_NE, np.float32).ravel())
    mask = None if present_N is None else pa.array(~present_N)
    return pa.FixedSizeListArray.from_arrays(flat, type=embedding_type(z_NE.shape[1]), mask=mask)


def matrix(table: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The reverse of `vectors`: z_NE with zeros where null, present_N.

    Raises:
        DataError: the column is not made of vectors.
    """
    kind = table.schema.field(column).type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise DataError(f"column {column!r} is {kind}, not a fixed-size list of float32")
    values = table.column(column).combine_chunks()
    present_N = ~np.asarray(values.is_null())
    z_NE = np.zeros((len(table), kind.list_size), np.float32)
    # flatten() leaves out what null rows may hide.
    z_NE[present_N] = np.asarray(values.flatten()).reshape(-1, kind.list_size)
    return z_NE, present_N


def embedding_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns with vectors."""
    return [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]


def _times(seconds_N: np.ndarray | None, count: int) -> pa.Array:
    if seconds_N is None:
        return pa.nulls(count, TIME)
    return pa.array(seconds_N.astype(np.int64) * 1_000).cast(TIME)
