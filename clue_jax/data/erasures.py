"""The record of who was erased from a prepared dataset, by the SHA-256 of their ids."""

from __future__ import annotations

import datetime
import json
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.data.manifest import read_manifest
from clue_jax.errors import DataError

AUDIT = "erasures.jsonl"  # a line for each time that somebody asked
SEAL = "erasures_sha256"  # key of its SHA-256 in the manifest


def erasures(path: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of the record of a dataset, in order; none where nobody ever asked.

    Raises:
        DataError: the dataset cannot be read, or its record was changed.
    """
    root = epath.Path(path)
    return [json.loads(line) for line in recorded(root, read_manifest(root)).splitlines()]


def lost_since(root: epath.Path, manifest: dict[str, Any], fingerprint: str) -> str:
    """What to say where a dataset was of this fingerprint before users were erased; else nothing.

    Raises:
        DataError: its record was changed.
    """
    lines = map(json.loads, recorded(root, manifest).splitlines())
    if fingerprint not in {line["fingerprint_before"] for line in lines}:
        return ""
    return f"; it is that dataset without users who were erased since ({AUDIT} there)"


def recorded(root: epath.Path, manifest: dict[str, Any]) -> str:
    """The record as text, compared with the manifest.

    Raises:
        DataError: it is missing or was changed.
    """
    if SEAL not in manifest:
        return ""
    path = root / AUDIT
    if not path.exists() or files.sha256_file(path) != manifest[SEAL]:
        raise DataError(f"{path}: missing or changed; its SHA-256 is not that of manifest.json")
    return path.read_text()


def add(
    root: epath.Path, manifest: dict[str, Any], line: dict[str, Any], folder: epath.Path
) -> str:
    """Writes the record of a dataset with one more line into a folder; gives its SHA-256."""
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    text = recorded(root, manifest) + files.canonical_json({"time": time, **line}) + "\n"
    files.write_text(folder / AUDIT, text)
    return files.sha256_file(folder / AUDIT)
