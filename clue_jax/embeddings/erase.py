"""Removes users from an export: parts they are in are written anew, others keep their bytes.

The export is built again beside itself, with links to the parts that stay, and takes its own place
in one step. So a reader finds the old export or the new one, and after a kill the same command
starts over and also removes what the killed one left.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from clue_jax import files
from clue_jax.embeddings.layout import SUCCESS, clear, files_of, files_under
from clue_jax.embeddings.moments import moments_of
from clue_jax.embeddings.reader import BESIDE, EXPORT_ID, MANIFEST, open_export, verified_parts
from clue_jax.embeddings.vectors import matrix
from clue_jax.embeddings.verify import check_beside
from clue_jax.embeddings.writer import MOMENTS, Part, write_manifest, write_part
from clue_jax.errors import DataError

AUDIT = "erasures.jsonl"  # a line for each time that somebody asked


@dataclass(frozen=True)
class Erasure:
    """What became of the ids: users erased, ids that the export does not have, parts rewritten."""

    erased: list[str]
    unknown: list[str]
    parts: list[str]


def erase(path: epath.PathLike, ids: Collection[str]) -> Erasure:
    """Removes users from an export of users, its manifest included.

    Each call adds a line to `erasures.jsonl`: time, SHA-256 of each id, parts that were rewritten.

    Args:
        path: the folder `export` wrote. An unfinished one beside it (`<path>.partial`) is removed.
        ids: users to remove; those the export does not have are counted, not refused.

    Raises:
        DataError: the export is damaged, or its folder holds a file that is no part of it.
        LockedError: another process writes this export.
        StorageError: the file system refused; the export is as it was.
    """
    # Through a link the name would be replaced, and the folder behind it would keep the users.
    root = epath.Path(os.path.realpath(path) if os.path.exists(path) else path)
    open_export(root, "users")
    with files.staged_directory(root, overwrite=True) as folder:
        manifest = open_export(root, "users")  # nobody else changes it from here on
        _refuse_foreign(root, manifest)
        check_beside(root, manifest)
        _remove_leftovers(root, folder)
        done, parts = _write_parts(root, folder, manifest, set(ids))
        for name in manifest.get(BESIDE, {}):
            _carry(root / name, folder / name)
        files.write_text(folder / AUDIT, _audit(root, manifest, done))
        beside = {**manifest.get(BESIDE, {}), AUDIT: files.sha256_file(folder / AUDIT)}
        count = manifest.get("users_erased", 0) + len(done.erased)
        changed = {BESIDE: beside, "users_erased": count, "export_id": _identity(manifest, done)}
        write_manifest(folder, {**manifest, **changed}, parts)
        files.fsync_path(folder)
    return done


def _write_parts(
    root: epath.Path, folder: epath.Path, manifest: dict[str, Any], ids: set[str]
) -> tuple[Erasure, list[Part]]:
    wanted, entries = pa.array(sorted(ids), pa.string()), []
    erased: list[str] = []
    rewritten: list[str] = []
    for number, table in enumerate(verified_parts(root, manifest)):
        entry = manifest["parts"][number]
        found_N = pc.is_in(table.column("user_id"), wanted)
        if pc.any(found_N).as_py():
            gone = table.filter(found_N).column("user_id").to_pylist()
            rest = table.filter(pc.invert(found_N))
            identity = _part_identity(root / entry["file"], gone)
            npy = "npy" in entry
            entry = write_part(folder, entry["file"], rest, identity, npy=npy)
            erased += gone
            rewritten.append(entry["file"])
        else:
            for file in files_of(entry):
                _carry(root / file, folder / file)
            entry = {**entry, MOMENTS: moments_of(matrix(table, "embedding")[0]).as_json()}
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


def _carry(source: epath.Path, target: epath.Path) -> None:
    """The same file under a second name, or a copy where the storage knows no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        files.write_bytes(target, source.read_bytes())


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


def _refuse_foreign(root: epath.Path, manifest: dict[str, Any]) -> None:
    # An index, say, or a copy in another format would keep the users.
    own = {MANIFEST, SUCCESS, *manifest.get(BESIDE, {}), *files_of(*manifest["parts"])}
    foreign = [file for file in files_under(root) if file not in own]
    if foreign:
        raise DataError(
            f"{root / foreign[0]}: not a file of this export, so it may hold users that are to be"
            " erased; move it away or remove it, and run the same command again"
        )


def _remove_leftovers(root: epath.Path, folder: epath.Path) -> None:
    """What a killed run left: these are files with all users."""
    clear(folder)
    for path in list(root.parent.iterdir()):
        if path.name.startswith(f".{root.name}.") and path.name.endswith(".old"):
            path.rmtree()
