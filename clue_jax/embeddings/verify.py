"""Compares all of an export with its manifest: what a consumer runs before it trusts a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax import files
from clue_jax.embeddings.reader import (
    MANIFEST,
    check_ids,
    open_export,
    verified_parts,
)
from clue_jax.embeddings.schema import KEYS
from clue_jax.embeddings.writer import check_rows
from clue_jax.errors import DataError

BESIDE = "beside"  # of a manifest: name -> SHA-256 of files that are no parts


def verify(path: epath.PathLike) -> str:
    """Reads all of an export of users or items, one part in memory at a time.

    Compared are the manifest with its seal, each file with its SHA-256, the pages of each part with
    their checksums, norms and counts with what the manifest says; ids must be unique.

    Returns:
        One line about what was found sound.

    Raises:
        DataError: something differs; names the file.
        NonFiniteError: an embedding with a NaN or infinity, or of zeros, under a right checksum.
    """
    root, manifest = epath.Path(path), open_export(path)
    ids = []
    for part, table in zip(manifest["parts"], verified_parts(root, manifest), strict=True):
        _check_part(root / part["file"], part, table, manifest)
        ids.append(table.column(KEYS[manifest["what"]]))
    check_ids(root, manifest, ids)
    check_beside(root, manifest)
    size = sum(part["bytes"] for part in manifest["parts"])
    return (
        f"{root}: {manifest['rows']:,} {manifest['what']} in {len(manifest['parts'])} parts"
        f" ({size:,} bytes) of model {manifest['model_version']} are as they were written"
    )


def check_beside(root: epath.Path, manifest: dict[str, Any]) -> None:
    """Compares the files that belong to an export beside its parts with the manifest.

    Raises:
        DataError: one is missing or changed.
    """
    for name, digest in manifest.get(BESIDE, {}).items():
        if not (root / name).exists():
            raise DataError(f"{root / name}: missing, but {MANIFEST} names it")
        if files.sha256_file(root / name) != digest:
            raise DataError(f"{root / name}: its SHA-256 is not that of {MANIFEST}")


def _check_part(
    path: epath.Path, part: dict[str, Any], table: pa.Table, manifest: dict[str, Any]
) -> None:
    norms = check_rows(path, table)
    if not np.allclose(norms, part["norms"], rtol=0, atol=1e-6):
        raise DataError(f"{path}: norms {norms}, but {MANIFEST} says {part['norms']}")
    versions = pc.unique(table.column("model_version")).to_pylist()
    if not set(versions) <= {manifest["model_version"]}:
        raise DataError(
            f"{path}: rows of model {', '.join(versions)}, but {MANIFEST} says"
            f" {manifest['model_version']}; it is mixed from two exports"
        )
    for service in manifest["dataset"]["services"] if manifest["what"] == "users" else ():
        lacking = pc.is_null(table.column(f"embedding_{service}"))
        if not lacking.equals(pc.equal(table.column(f"num_behaviours_{service}"), 0)):
            raise DataError(
                f"{path}: embedding_{service} must be null exactly where num_behaviours_{service}"
                " is 0"
            )
