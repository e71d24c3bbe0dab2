"""Reads an export, and refuses one that is incomplete, damaged or mixed from two."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from clue_jax import files
from clue_jax.buckets import files_under
from clue_jax.config import StoredPrecision
from clue_jax.console import progress
from clue_jax.embeddings.schema import KEYS, SCHEMA_VERSION, item_schema, user_schema
from clue_jax.embeddings.vectors import matrix
from clue_jax.errors import DataError

MANIFEST = "manifest.json"
SEAL = "manifest_sha256"  # of the canonical JSON of everything else in the manifest
EXPORT_ID = "clue_jax.export_id"  # metadata of a part
BESIDE = "beside"  # of a manifest: name -> SHA-256 of files that are no parts


@dataclass(frozen=True)
class Embeddings:
    """User embeddings in memory.

    Attributes:
        user_ids: [N] str.
        splits: [N] str.
        embedding_NE: combined over services, float32 unit vectors.
        by_service: service -> float32 [N, E] unit vectors, zero where the user lacks it.
        present: service -> bool [N].
        counts: service -> int32 [N] behaviours.
        manifest: contents of manifest.json.
    """

    user_ids: np.ndarray
    splits: np.ndarray
    embedding_NE: np.ndarray
    by_service: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    manifest: dict[str, Any]

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def services(self) -> tuple[str, ...]:
        """S names, in the order of the service axis."""
        return tuple(self.by_service)


def read_embeddings(path: epath.PathLike, splits: Sequence[str] | None = None) -> Embeddings:
    """Reads an export of users; every part is verified whatever the splits.

    Args:
        path: the folder `export` wrote.
        splits: those to keep; None: all.

    Raises:
        DataError: see `read_table`; or a split that was not exported.

    Examples:
        >>> from clue_jax.embeddings.reader import read_embeddings
        >>> users = read_embeddings("runs/first/users", splits=["test"])
        >>> users.services
        ('search', 'shop', 'news')
        >>> users.embedding_NE.shape == (len(users), users.manifest["embedding_width"])
        True
        >>> set(users.splits)
        {'test'}
        >>> bool(users.by_service["shop"][~users.present["shop"]].any())  # zeros, where none is
        False
    """
    manifest = read_manifest(path)
    _refuse_other(epath.Path(path), manifest, "users")
    unknown = sorted(set(splits or ()) - set(manifest.get("splits", ())))
    if unknown:
        there = ", ".join(manifest.get("splits", ()))
        raise DataError(f"{path}: no split {unknown[0]!r} in this export; it has {there}")
    table = read_table(path, "users", splits)
    services = manifest["dataset"]["services"]
    vectors = {service: matrix(table, f"embedding_{service}") for service in services}
    return Embeddings(
        user_ids=np.array(table.column("user_id").to_pylist(), object),
        splits=np.array(table.column("split").to_pylist(), object),
        embedding_NE=matrix(table, "embedding")[0],
        by_service={service: z_NE for service, (z_NE, _) in vectors.items()},
        present={service: present_N for service, (_, present_N) in vectors.items()},
        counts={s: table.column(f"num_behaviours_{s}").to_numpy() for s in services},
        manifest=manifest,
    )


def read_table(path: epath.PathLike, what: str, splits: Sequence[str] | None = None) -> pa.Table:
    """The rows of an export as they are on disk, verified.

    Args:
        path: the folder `export` wrote.
        what: users or items.
        splits: of users, those to keep; None: all rows. Memory grows with what is kept.

    Raises:
        DataError: not an export of `what`, without its manifest, with a part that is missing,
            changed or of another export, or with an id that is there twice; names the file.
    """
    manifest = open_export(path, what)
    ids, kept = [], [part_schema(manifest).empty_table()]
    for table in verified_parts(path, manifest):
        ids.append(table.column(KEYS[what]))
        if splits is not None:
            wanted = pa.array(list(splits), pa.string())
            table = table.filter(pc.is_in(table.column("split"), wanted))
        kept.append(table)
    check_ids(path, manifest, ids)
    return pa.concat_tables(kept)


def open_export(path: epath.PathLike, what: str = "") -> dict[str, Any]:
    """The manifest of an export, after a look at its folder; its parts are still to be verified.

    Args:
        path: the folder `export` wrote.
        what: users or items; empty: either.

    Raises:
        DataError: see `read_manifest`; an export of something else; a part the manifest lacks.
    """
    root = epath.Path(path)
    manifest = read_manifest(root)
    if what:
        _refuse_other(root, manifest, what)
    _refuse_strays(root, manifest)
    return manifest


def verified_parts(path: epath.PathLike, manifest: dict[str, Any]) -> Iterator[pa.Table]:
    """The rows of each part in order, verified, with one part in memory at a time.

    Raises:
        DataError: a part that is missing, changed or of another export; names the file.
    """
    schema = part_schema(manifest)
    with progress(f"reading {manifest['what']}", manifest["rows"]) as advance:
        for part in manifest["parts"]:
            yield _verified(epath.Path(path) / part["file"], part, schema)
            advance(part["rows"])


def check_ids(
    path: epath.PathLike, manifest: dict[str, Any], ids: Sequence[pa.ChunkedArray]
) -> None:
    """Refuses an export whose parts have rows too many, too few, or of the same id.

    Args:
        path: the folder `export` wrote.
        manifest: its manifest.
        ids: those of each part, in order.

    Raises:
        DataError: see above; names the file that repeats an id.
    """
    key, rows = KEYS[manifest["what"]], sum(map(len, ids))
    if rows != manifest["rows"]:
        raise DataError(f"{path}: {rows:,} rows, but {MANIFEST} says {manifest['rows']:,}")
    if not rows:
        return
    counts = pc.value_counts(pa.chunked_array([chunk for part in ids for chunk in part.chunks]))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        last = max(p for p, part in enumerate(ids) if pc.any(pc.is_in(part, repeated)).as_py())
        file = epath.Path(path) / manifest["parts"][last]["file"]
        raise DataError(f"{file}: a {key} is there twice; run export again")


def read_manifest(path: epath.PathLike) -> dict[str, Any]:
    """The manifest of an export, after checking it against its own checksum.

    Raises:
        DataError: missing (the export is not complete), damaged, or of another format.
    """
    file = epath.Path(path) / MANIFEST
    if not file.parent.exists():
        raise DataError(f"{file.parent}: no such folder; name the --out of an export")
    if not file.exists():
        raise DataError(
            f"{file}: missing, so this is no complete export; run the export again to finish it"
        )
    manifest = files.read_json(file)
    if not isinstance(manifest, dict) or SEAL not in manifest:
        raise DataError(f"{file}: not the manifest of an export; name the --out of export")
    if manifest[SEAL] != seal_of(manifest):
        raise DataError(f"{file}: does not match its own checksum; it was changed or damaged")
    _refuse_other_format(file, manifest.get("schema_version"))
    return manifest


def _refuse_other_format(file: epath.Path, version: Any) -> None:
    if version == SCHEMA_VERSION:
        return
    # There were integers before there were names.
    older = isinstance(version, int)
    way_out = (
        "export again, to another --out or with --config.overwrite=true"
        if older
        else "update clue_jax"
    )
    raise DataError(
        f"{file}: schema version {version}, but this program knows {SCHEMA_VERSION}; {way_out}"
    )


def seal_of(manifest: dict[str, Any]) -> str:
    """SHA-256 of everything in the manifest but its own checksum."""
    rest = {key: value for key, value in manifest.items() if key != SEAL}
    return files.sha256_text(files.canonical_json(rest))


def read_part(path: epath.Path, payload: bytes) -> pa.Table:
    """Decodes the bytes of a part, comparing the checksum of each page.

    Raises:
        DataError: not Parquet, or damaged.
    """
    try:
        return pq.read_table(pa.BufferReader(payload), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet ({error}); run export again") from error


def _verified(path: epath.Path, part: dict[str, Any], schema: pa.Schema) -> pa.Table:
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}, but {MANIFEST} names it") from error
    if len(payload) != part["bytes"]:
        raise DataError(
            f"{path}: {len(payload):,} bytes, but {MANIFEST} says {part['bytes']:,}; it is damaged"
            " or of another export"
        )
    digest = hashlib.sha256(payload).hexdigest()
    if digest != part["sha256"]:
        raise DataError(
            f"{path}: SHA-256 {digest[:12]}, but {MANIFEST} says {part['sha256'][:12]}; it is"
            " damaged or of another export"
        )
    table = read_part(path, payload)
    if len(table) != part["rows"]:
        raise DataError(f"{path}: {len(table):,} rows, but {MANIFEST} says {part['rows']:,}")
    table = table.replace_schema_metadata(None)
    if not table.schema.equals(schema):
        raise DataError(f"{path}: its columns are not those that {MANIFEST} implies")
    return table


def _refuse_other(root: epath.Path, manifest: dict[str, Any], what: str) -> None:
    if manifest["what"] != what:
        raise DataError(
            f"{root}: an export of {manifest['what']}, but {what} are needed; run export with"
            f" --config.what={what}"
        )


def _refuse_strays(root: epath.Path, manifest: dict[str, Any]) -> None:
    # A consumer that reads *.parquet would take these for a part of the export.
    named = {part["file"] for part in manifest["parts"]}
    strays = [f for f in files_under(root) if f.endswith(".parquet") and f not in named]
    if strays:
        raise DataError(
            f"{root / strays[0]}: not named in {MANIFEST}; it is of another export, remove it"
        )


def part_schema(manifest: dict[str, Any]) -> pa.Schema:
    """Columns of every part of the export that the manifest is of."""
    width = manifest["embedding_width"]
    precision = StoredPrecision(manifest.get("precision", StoredPrecision.FLOAT32.value))
    if manifest["what"] == "items":
        return item_schema(width, precision)
    return user_schema(manifest["dataset"]["services"], width, precision)
