"""Writes an export: parts first, each whole or absent, then the manifest that makes it complete."""

from __future__ import annotations

import datetime
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from clue_jax import files
from clue_jax.embeddings.card import card_of
from clue_jax.embeddings.checks import check_rows
from clue_jax.embeddings.layout import SUCCESS, files_of, npy_files
from clue_jax.embeddings.moments import Moments, moments_of, statistics_of
from clue_jax.embeddings.reader import BESIDE, EXPORT_ID, MANIFEST, SEAL, seal_of
from clue_jax.embeddings.schema import KEYS, SCHEMA_VERSION
from clue_jax.embeddings.vectors import embedding_columns, matrix
from clue_jax.errors import DataError
from clue_jax.markdown import CARD

Part = dict[str, Any]  # file, rows, bytes, sha256, norms, npy: what the manifest says of a part
MOMENTS = "moments"  # of a part, until they are added up in the manifest


def write_part(
    directory: epath.PathLike,
    file: str,
    table: pa.Table,
    export_id: str = "",
    *,
    npy: bool = False,
) -> Part:
    """Writes one part, so that it is whole or absent.

    Args:
        directory: of the export.
        file: path of the part in it, from `layout.part_file`.
        table: of `user_schema` or `item_schema`.
        export_id: identity of all that determines the content (checkpoint, dataset, config), kept
            inside the part.
        npy: also write vectors and ids as .npy.

    Returns:
        Its entry in the manifest, and the moments of its embeddings.

    Raises:
        NonFiniteError: an embedding with a NaN or infinity, or of zeros; names file, row and id.
        DataError: an embedding that is not of length one, or an id that is there twice.
        StorageError: the file system refused.
    """
    path = epath.Path(directory) / file
    norms = check_rows(path, table)
    payload, z_NE = _encode(table, export_id), matrix(table, "embedding")[0]
    files.write_bytes(path, payload)
    entry = {
        "file": file,
        "rows": len(table),
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "norms": norms,
        MOMENTS: moments_of(z_NE).as_json(),
    }
    if npy:
        key = next(name for name in KEYS.values() if name in table.column_names)
        ids = np.array(table.column(key).to_pylist(), str if key == "user_id" else np.int64)
        arrays = zip(npy_files(file), (z_NE, ids), strict=True)
        entry["npy"] = {name: write_array(path.parents[1] / name, array) for name, array in arrays}
    return entry


def write_array(path: epath.Path, array: np.ndarray) -> str:
    """Writes an array as .npy, whole or absent; gives the SHA-256 of the file."""
    payload = io.BytesIO()
    np.save(payload, array, allow_pickle=False)
    files.write_bytes(path, payload.getvalue())
    return hashlib.sha256(payload.getvalue()).hexdigest()


def write_manifest(
    folder: epath.PathLike, manifest: dict[str, Any], parts: Sequence[Part]
) -> dict[str, Any]:
    """Writes card.md, then manifest.json, which makes the export complete, then _SUCCESS.

    Args:
        folder: with all parts.
        manifest: what it says of the export, `what` (users or items) included. The schema version,
            the time, the number of rows, the parts, statistics and a checksum of the manifest
            itself are added.
        parts: entries from `write_part`, in order.

    Returns:
        The whole manifest.

    Raises:
        DataError: a part is missing or changed.
    """
    folder = epath.Path(folder)
    _refuse_missing(folder, parts)
    norms = [norm for part in parts for norm in part["norms"]]
    whole = {
        **manifest,
        "schema_version": SCHEMA_VERSION,
        "rows": sum(part["rows"] for part in parts),
        "norms": [min(norms), max(norms)] if norms else [],
        "statistics": statistics_of([Moments.from_json(part[MOMENTS]) for part in parts]),
        "parts": [{k: v for k, v in part.items() if k != MOMENTS} for part in parts],
    }
    # All but the time, so that the same export has the same card whenever it was made.
    whole.pop("created_at", None)
    files.write_text(folder / CARD, card_of(whole))
    whole[BESIDE] = {**manifest.get(BESIDE, {}), CARD: files.sha256_file(folder / CARD)}
    whole["created_at"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    whole[SEAL] = seal_of(whole)
    files.write_json(folder / MANIFEST, whole)
    files.write_bytes(folder / SUCCESS, b"")
    return whole


def _encode(table: pa.Table, export_id: str) -> bytes:
    """The bytes of a part; equal rows and identity give equal bytes."""
    strings = [field.name for field in table.schema if field.type == pa.string()]
    lists = embedding_columns(table.schema)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({EXPORT_ID: export_id}),
        sink,
        compression="zstd",
        use_dictionary=[
            *(name for name in strings if name not in ("user_id", "source_id")),
            "services.list.element",
        ],
        # Splitting the bytes of floats makes zstd worth its time on embeddings.
        use_byte_stream_split=[
            f"{name}.list.element"
            for name in lists
            if pa.types.is_fixed_size_list(table.schema.field(name).type)
        ],
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def _refuse_missing(folder: epath.Path, parts: Sequence[Part]) -> None:
    for part in parts:
        path = folder / part["file"]
        if not path.exists() or path.stat().length != part["bytes"]:
            raise DataError(
                f"{path}: missing, or not the {part['bytes']:,} bytes that were written"
            )
        for file in files_of(part):
            if not (folder / file).exists():
                raise DataError(f"{folder / file}: missing")
