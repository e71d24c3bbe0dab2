"""Writes an export: parts first, each whole or absent, then the manifest that makes it complete."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from clue_jax import files
from clue_jax.embeddings.reader import EXPORT_ID, MANIFEST, SEAL, read_part, seal_of
from clue_jax.embeddings.schema import KEYS, SCHEMA_VERSION, embedding_columns, matrix
from clue_jax.errors import DataError, NonFiniteError

# Unit vectors rounded to float32, and to bfloat16 on the way, are this close to length one.
NORM_TOLERANCE = 1e-2

Part = dict[str, Any]  # file, rows, bytes, sha256, norms: what the manifest says of a part


def part_name(index: int, count: int) -> str:
    """File name of part `index` of `count`."""
    return f"part-{index:05d}-of-{count:05d}.parquet"


def write_part(
    directory: epath.PathLike, part: int, num_parts: int, table: pa.Table, export_id: str = ""
) -> Part:
    """Writes one part, so that it is whole or absent.

    Args:
        directory: of the export.
        part: from 0.
        num_parts: of the export.
        table: of `user_schema` or `item_schema`.
        export_id: identity of all that determines the content (checkpoint, dataset, config). It
            is kept inside the part, so that a resumed export reuses only parts of its own.

    Returns:
        Its entry in the manifest.

    Raises:
        NonFiniteError: an embedding with a NaN or infinity, or of zeros; names file, row and id.
        DataError: an embedding that is not of length one, or an id that is there twice.
        StorageError: the file system refused.
    """
    path = epath.Path(directory) / part_name(part, num_parts)
    norms = check_rows(path, table)
    payload = _encode(table, export_id)
    files.write_bytes(path, payload)
    return _entry(path, payload, len(table), norms)


def finished_part(
    directory: epath.PathLike, part: int, num_parts: int, export_id: str
) -> Part | None:
    """The entry of a part that an earlier, interrupted run of the same export left, or None.

    None also where the part is of another export or damaged: it is then to be written again.
    """
    path = epath.Path(directory) / part_name(part, num_parts)
    if not path.exists():
        return None
    payload = path.read_bytes()
    try:
        table = read_part(path, payload)
        # Written again it must give the same bytes: values, checksums and footer alike.
        if _encode(table, export_id) != payload:
            return None
        return _entry(path, payload, len(table), check_rows(path, table))
    except (DataError, NonFiniteError):
        return None


def write_manifest(
    folder: epath.PathLike, manifest: dict[str, Any], parts: Sequence[Part]
) -> dict[str, Any]:
    """Writes manifest.json, which makes the export complete; call it last.

    Args:
        folder: with all parts.
        manifest: what it says of the export, `what` (users or items) included. The schema version,
            the number of rows, the parts, the range of norms and a checksum of the manifest itself
            are added.
        parts: entries from `write_part`, in order.

    Returns:
        The whole manifest.

    Raises:
        DataError: a part is missing or changed, or an id is in two parts.
    """
    folder = epath.Path(folder)
    _refuse_repeated_ids(folder, KEYS[manifest["what"]], parts)
    norms = [norm for part in parts for norm in part["norms"]]
    whole = {
        **manifest,
        "schema_version": SCHEMA_VERSION,
        "rows": sum(part["rows"] for part in parts),
        "norms": [min(norms), max(norms)] if norms else [],
        "parts": list(parts),
    }
    whole[SEAL] = seal_of(whole)
    files.write_json(folder / MANIFEST, whole)
    return whole


def _encode(table: pa.Table, export_id: str) -> bytes:
    """The bytes of a part; equal rows and identity give equal bytes."""
    strings = [field.name for field in table.schema if field.type == pa.string()]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({EXPORT_ID: export_id}),
        sink,
        compression="zstd",
        use_dictionary=[name for name in strings if name not in ("user_id", "source_id")],
        # Splitting the bytes of floats makes zstd worth its time on embeddings.
        use_byte_stream_split=[f"{n}.list.element" for n in embedding_columns(table.schema)],
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def _entry(path: epath.Path, payload: bytes, rows: int, norms: list[float]) -> Part:
    digest = hashlib.sha256(payload).hexdigest()
    return {
        "file": path.name,
        "rows": rows,
        "bytes": len(payload),
        "sha256": digest,
        "norms": norms,
    }


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


def _refuse_repeated_ids(folder: epath.Path, key: str, parts: Sequence[Part]) -> None:
    seen: dict[Any, str] = {}
    for part in parts:
        path = folder / part["file"]
        if not path.exists() or path.stat().length != part["bytes"]:
            raise DataError(
                f"{path}: missing, or not the {part['bytes']:,} bytes that were written"
            )
        with files.storage_errors(path), path.open("rb") as stream:
            ids = pq.read_table(stream, columns=[key]).column(key).to_pylist()
        for value in ids:
            if value in seen:
                raise DataError(
                    f"{path}: {key} {value!r} is also in {seen[value]}; each may have one embedding"
                )
            seen[value] = part["file"]


def _first_repeated(values: list[Any]) -> Any:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
