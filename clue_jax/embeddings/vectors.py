"""Vectors as columns of a table, in each of the precisions they are stored in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from clue_jax.config import StoredPrecision
from clue_jax.errors import ConfigError, DataError

OLDEST_PYARROW = 26
SCALE = "_scale"  # after the name of a column of int8: what its values are multiples of
_INT8_MOST = 127.0


def list_type(kind: pa.DataType, width: int = -1) -> pa.DataType:
    """Lists of values none of which is null, all of `width` values or of any number."""
    return pa.list_(pa.field("element", kind, nullable=False), width)


def embedding_type(width: int, precision: StoredPrecision = StoredPrecision.FLOAT32) -> pa.DataType:
    """The type of a column of vectors of `width` values.

    Raises:
        ConfigError: pyarrow is too old to read such vectors where some are null.
    """
    if int(pa.__version__.partition(".")[0]) < OLDEST_PYARROW:
        raise ConfigError(
            f"pyarrow {pa.__version__}: embeddings need {OLDEST_PYARROW} or newer, and Apache Beam"
            " does not allow that; an environment with Beam is for prepare alone"
        )
    if precision is StoredPrecision.FLOAT32:
        return list_type(pa.float32(), width)
    return pa.binary(width * (2 if precision is StoredPrecision.FLOAT16 else 1))


def vector_fields(
    name: str, width: int, precision: StoredPrecision, nullable: bool = True
) -> list[pa.Field]:
    """The column of vectors, and of int8 the one of their scales."""
    fields = [pa.field(name, embedding_type(width, precision), nullable=nullable)]
    if precision is StoredPrecision.INT8:
        fields.append(pa.field(name + SCALE, pa.float32(), nullable=nullable))
    return fields


def vector_columns(
    name: str,
    z_NE: np.ndarray,
    present_N: np.ndarray | None = None,
    precision: StoredPrecision = StoredPrecision.FLOAT32,
) -> dict[str, pa.Array]:
    """Rows of a matrix as the columns of `vector_fields`, null where `present_N` is false.

    Of int8 the scale of a row is its greatest absolute value over 127, and values are rounded to
    multiples of it.
    """
    kind = embedding_type(z_NE.shape[1], precision)
    z_NE = np.ascontiguousarray(z_NE, np.float32)
    if present_N is not None:
        z_NE = np.where(present_N[:, None], z_NE, 0)  # what null rows hide is the same every time
    if precision is StoredPrecision.FLOAT32:
        mask = None if present_N is None else pa.array(~present_N)
        flat = pa.array(z_NE.ravel())
        return {name: pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=mask)}
    if precision is StoredPrecision.FLOAT16:
        return {name: _binary(z_NE.astype("<f2"), kind, present_N)}
    scale_N = np.abs(z_NE).max(axis=1, initial=0) / np.float32(_INT8_MOST)
    steps_NE = np.rint(z_NE / np.maximum(scale_N, np.finfo(np.float32).tiny)[:, None])
    return {
        name: _binary(steps_NE.astype(np.int8), kind, present_N),
        name + SCALE: pa.array(scale_N, mask=None if present_N is None else ~present_N),
    }


def _binary(values_NE: np.ndarray, kind: pa.DataType, present_N: np.ndarray | None) -> pa.Array:
    valid = None if present_N is None else pa.array(present_N, pa.bool_()).buffers()[1]
    data = pa.py_buffer(values_NE.tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values_NE), [valid, data])


def matrix(table: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The reverse of `vector_columns`: z_NE float32 with zeros where null, present_N.

    Raises:
        DataError: the column is not made of vectors.
    """
    kind = table.schema.field(column).type
    values = table.column(column).combine_chunks()
    present_N = ~np.asarray(values.is_null())
    if pa.types.is_fixed_size_binary(kind):
        found_NE = _of_binary(table, column, values, kind)
        return np.where(present_N[:, None], found_NE, np.float32(0)), present_N
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise DataError(f"column {column!r} is {kind}, not vectors of an export")
    z_NE = np.zeros((len(table), kind.list_size), np.float32)
    # flatten() leaves out what null rows may hide.
    z_NE[present_N] = np.asarray(values.flatten()).reshape(-1, kind.list_size)
    return z_NE, present_N


def _of_binary(table: pa.Table, column: str, values: pa.Array, kind: pa.DataType) -> np.ndarray:
    scaled = column + SCALE in table.column_names
    dtype = np.dtype(np.int8 if scaled else "<f2")
    if not len(values):
        return np.zeros((0, kind.byte_width // dtype.itemsize), np.float32)
    whole = np.frombuffer(values.buffers()[1], np.uint8).reshape(-1, kind.byte_width)
    rows = whole[values.offset : values.offset + len(values)]
    z_NE = np.ascontiguousarray(rows).view(dtype).astype(np.float32)
    if scaled:
        scale_N = table.column(column + SCALE).to_numpy(zero_copy_only=False)
        z_NE *= np.nan_to_num(scale_N.astype(np.float32))[:, None]
    return z_NE


def embedding_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns with vectors."""
    of_vectors = (pa.types.is_fixed_size_list, pa.types.is_fixed_size_binary)
    return [field.name for field in schema if any(kind(field.type) for kind in of_vectors)]
