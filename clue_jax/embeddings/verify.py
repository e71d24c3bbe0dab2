"""Compares all of an export with its manifest: what a consumer runs before it trusts a copy."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax import files
from clue_jax.embeddings.checks import check_rows
from clue_jax.embeddings.layout import SHARDING, files_of, item_shards, user_shards
from clue_jax.embeddings.moments import moments_of, statistics_of
from clue_jax.embeddings.reader import (
    BESIDE,
    MANIFEST,
    check_ids,
    open_export,
    verified_parts,
)
from clue_jax.embeddings.schema import KEYS
from clue_jax.embeddings.vectors import matrix
from clue_jax.errors import DataError


def verify(path: epath.PathLike) -> str:
    """Reads all of an export of users or items, one part in memory at a time.

    Compared are the manifest with its seal, each file with its SHA-256, the pages of each part with
    their checksums, norms, statistics and counts with what the manifest says; ids must be unique,
    in order, and in the part that the manifest's rule says.

    Returns:
        One line about what was found sound.

    Raises:
        DataError: something differs; names the file.
        NonFiniteError: an embedding with a NaN or infinity, or of zeros, under a right checksum.

    Examples:
        >>> verify("runs/first/users")
        'runs/first/users: ... users in 8 parts (... bytes) of model ... are as they were written'
    """
    root, manifest = epath.Path(path), open_export(path)
    ids, moments = [], []
    for number, table in enumerate(verified_parts(root, manifest)):
        part = manifest["parts"][number]
        _check_part(root / part["file"], part, table, manifest)
        _check_place(root / part["file"], number, table, manifest)
        ids.append(table.column(KEYS[manifest["what"]]))
        moments.append(moments_of(matrix(table, "embedding")[0]))
    check_ids(root, manifest, ids)
    found = statistics_of(moments)
    for name, values in manifest["statistics"].items():
        if not np.allclose(found.get(name, []), values, rtol=0, atol=1e-6):
            raise DataError(f"{root}: statistics.{name} of {MANIFEST} is not that of the parts")
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
    parts = {part["file"] for part in manifest["parts"]}
    for name, digest in {**manifest.get(BESIDE, {}), **files_of(*manifest["parts"])}.items():
        if name in parts:  # these are compared when they are read
            continue
        if not (root / name).exists():
            raise DataError(f"{root / name}: missing, but {MANIFEST} names it")
        _refuse_changed(root / name, files.sha256_file(root / name), digest)


def beside_bytes(root: epath.Path, manifest: dict[str, Any], name: str) -> bytes:
    """The content of one of these files.

    Raises:
        DataError: it is not named in the manifest, missing or changed.
    """
    if name not in manifest.get(BESIDE, {}):
        raise DataError(f"{root / name}: not named in {MANIFEST}")
    try:
        payload = (root / name).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{root / name}: {reason}, but {MANIFEST} names it") from error
    _refuse_changed(root / name, hashlib.sha256(payload).hexdigest(), manifest[BESIDE][name])
    return payload


def _refuse_changed(file: epath.Path, digest: str, named: str) -> None:
    if digest != named:
        raise DataError(
            f"{file}: its SHA-256 is not that of {MANIFEST}; it is damaged or of another export"
        )


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


def _check_place(path: epath.Path, number: int, table: pa.Table, manifest: dict[str, Any]) -> None:
    """Whether rows are where a consumer that computes their place would look for them."""
    what = manifest["what"]
    if manifest.get("sharding") != SHARDING[what]:  # the rule of this format, or none
        return
    ids, count = table.column(KEYS[what]), len(manifest["parts"])
    if what == "users":
        keys: Any = [user_id.encode() for user_id in ids.to_pylist()]
        shards_N = user_shards(ids.to_pylist(), count)
        ordered = all(one < two for one, two in itertools.pairwise(keys))
    else:
        items_N = ids.to_numpy().view(np.uint64)
        shards_N, ordered = item_shards(items_N, count), bool((items_N[1:] > items_N[:-1]).all())
    if (shards_N != number).any() or not ordered:
        row = int(np.argmax(shards_N != number))
        raise DataError(
            f"{path}: row {row}: {KEYS[what]} is not in the part or place that its"
            f" {MANIFEST} says ({manifest['sharding']}; in order)"
        )
