"""Removes users from an export: parts they are in are written anew, others keep their bytes.

So is every index of it: what usearch removes only loses its key, and the vector stays in the file.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from clue_jax import files
from clue_jax.embeddings.index import how_built, index_columns
from clue_jax.embeddings.index_build import write_index
from clue_jax.embeddings.layout import page_beside
from clue_jax.embeddings.reader import BESIDE, EXPORT_ID, verified_parts
from clue_jax.embeddings.replacement import Replacement, replacement
from clue_jax.embeddings.writer import Part, write_manifest, write_part

AUDIT = "erasures.jsonl"  # a line for each time that somebody asked


@dataclass(frozen=True)
class Erasure:
    """What became of the ids: users erased, ids that the export does not have, parts rewritten."""

    erased: list[str]
    unknown: list[str]
    parts: list[str]


def erase(path: epath.PathLike, ids: Collection[str], dataset: str = "") -> Erasure:
    """Removes users from an export of users, its manifest included.

    Each call adds a line to `erasures.jsonl`: time, SHA-256 of each id, parts that were rewritten.
    A page of the export beside it is removed.

    Args:
        path: the folder `export` wrote. An unfinished one beside it (`<path>.partial`) is removed.
        ids: users to remove; those the export does not have are counted, not refused.
        dataset: fingerprint of the dataset it was made from, without the same users; empty: as it
            was.

    Raises:
        ConfigError: the export has an index, and usearch is not installed.
        DataError: the export is damaged, or its folder holds a file that is no part of it.
        LockedError: another process writes this export.
        StorageError: the file system refused; the export is as it was.
    """
    with replacement(path) as new:
        # It may show whom it is about to lose.
        page_beside(new.root).unlink(missing_ok=True)
        columns = index_columns(new.manifest)
        indexes = [how_built(new.root, new.manifest, column) for column in columns]
        done, parts = _write_parts(new, set(ids))
        rest = {**new.manifest, "parts": parts, "rows": sum(part["rows"] for part in parts)}
        rest["users_erased"] = new.manifest.get("users_erased", 0) + len(done.erased)
        if dataset:
            rest["dataset"] = {**new.manifest["dataset"], "fingerprint": dataset}
        rest["export_id"] = _identity(new.manifest, done)
        files.write_text(new.folder / AUDIT, _audit(new.root, new.manifest, done))
        made = {AUDIT: files.sha256_file(new.folder / AUDIT)}
        for settings, members in indexes if done.parts else ():
            made |= write_index(new.folder, rest, settings, members, rows_in=new.folder)[1]
        before = new.manifest.get(BESIDE, {})
        for name in before.keys() - made.keys():
            new.carry(name)
        write_manifest(new.folder, {**rest, BESIDE: {**before, **made}}, parts)
    return done


def _write_parts(new: Replacement, ids: set[str]) -> tuple[Erasure, list[Part]]:
    manifest = new.manifest
    wanted, entries = pa.array(sorted(ids), pa.string()), []
    erased: list[str] = []
    rewritten: list[str] = []
    for number, table in enumerate(verified_parts(new.root, manifest)):
        entry = manifest["parts"][number]
        found_N = pc.is_in(table.column("user_id"), wanted)
        if pc.any(found_N).as_py():
            gone = table.filter(found_N).column("user_id").to_pylist()
            rest = table.filter(pc.invert(found_N))
            identity = _part_identity(new.root / entry["file"], gone)
            npy = "npy" in entry
            entry = write_part(new.folder, entry["file"], rest, identity, npy=npy)
            erased += gone
            rewritten.append(entry["file"])
        else:
            entry = new.carry_part(entry, table)
        entries.append(entry)
    return Erasure(sorted(erased), sorted(ids - set(erased)), rewritten), entries


def _identity(manifest: dict[str, Any], done: Erasure) -> str:
    """Of an export without some users: one that is run again must not take it for its own."""
    return _without(manifest.get("export_id", ""), done.erased)


def _part_identity(path: epath.Path, gone: list[str]) -> str:
    with path.open("rb") as stream:
        before = (pq.read_schema(stream).metadata or {}).get(EXPORT_ID.encode(), b"").decode()
    return _without(before, gone)


def _without(before: str, gone: list[str]) -> str:
    if not gone:
        return before
    return files.sha256_text(files.canonical_json([before, sorted(map(files.sha256_text, gone))]))


def _audit(root: epath.Path, manifest: dict[str, Any], done: Erasure) -> str:
    before = (root / AUDIT).read_text() if AUDIT in manifest.get(BESIDE, {}) else ""
    record = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model_version": manifest["model_version"],
        "erased_sha256": sorted(map(files.sha256_text, done.erased)),
        "unknown_sha256": sorted(map(files.sha256_text, done.unknown)),
        "parts": done.parts,
    }
    return f"{before}{files.canonical_json(record)}\n"
