"""What no consumer should see in a part: an id twice, a vector that is not finite or too long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax.embeddings.schema import KEYS
from clue_jax.embeddings.vectors import embedding_columns, matrix
from clue_jax.errors import DataError, NonFiniteError

# Unit vectors that were rounded to int8, or to bfloat16 on the way, are this close to length one.
NORM_TOLERANCE = 1e-2


def check_rows(path: epath.Path, table: pa.Table) -> list[float]:
    """Refuses what no consumer should see; gives the least and greatest length of `embedding`.

    Args:
        path: of the part, for what is said of it.
        table: of `user_schema` or `item_schema`.

    Raises:
        NonFiniteError: an embedding with a NaN or infinity, or of zeros; names file, row and id.
        DataError: an embedding that is not of length one, or an id that is there twice.
    """
    key = next(name for name in KEYS.values() if name in table.column_names)
    ids = table.column(key)
    if ids.null_count:
        raise DataError(f"{path}: {ids.null_count} rows have no {key}")
    repeated = _first_repeated(ids.to_pylist())
    if repeated is not None:
        raise DataError(f"{path}: {key} {repeated!r} is there twice; each may have one embedding")
    norms: dict[str, np.ndarray] = {}
    for column in embedding_columns(table.schema):
        z_NE, present_N = matrix(table, column)
        rows = np.flatnonzero(present_N)
        # A NaN or infinity anywhere makes the norm one.
        norms[column] = np.linalg.norm(z_NE[rows].astype(np.float64), axis=1)
        _refuse(path, table, key, column, rows, norms[column])
    if table.column("embedding").null_count:
        raise DataError(f"{path}: {table.column('embedding').null_count} rows have no embedding")
    combined = norms["embedding"]
    return [float(combined.min()), float(combined.max())] if len(combined) else []


def _refuse(
    path: epath.Path, table: pa.Table, key: str, column: str, rows: np.ndarray, norms: np.ndarray
) -> None:
    def place(wrong: np.ndarray) -> str:
        row = int(rows[np.argmax(wrong)])
        return f"{path}: row {row} ({key} {table.column(key)[row].as_py()!r}), column {column!r}"

    infinite = ~np.isfinite(norms)
    if infinite.any():
        raise NonFiniteError(
            f"{place(infinite)}: not finite ({int(infinite.sum())} such rows); the checkpoint is"
            " damaged or the precision overflows"
        )
    zero = norms == 0.0
    if zero.any():
        raise NonFiniteError(
            f"{place(zero)}: all zeros ({int(zero.sum())} such rows), not an embedding; the encoder"
            " saw nothing of it"
        )
    wrong = np.abs(norms - 1.0) > NORM_TOLERANCE
    if wrong.any():
        length = float(norms[np.argmax(wrong)])
        raise DataError(f"{place(wrong)}: its length is {length:.4g}, but embeddings have length 1")


def _first_repeated(values: list[Any]) -> Any:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
