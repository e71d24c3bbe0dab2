"""manifest.json of a prepared dataset: what is in it, its identity, and whether it is whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.errors import DataError

SCHEMA_VERSION = 1
TEXTS_SHOWN = "texts_may_be_shown"  # no part of the fingerprint: contents are the same either way

_KEYS = (
    "fingerprint",
    "services",
    "has_times",
    "splits",
    "items",
    "tokenizer_sha256",
    "vocab_size",
)
AGAIN = "copy the dataset again or run prepare again"
_SHARD = re.compile(r"(users|items)/[A-Za-z0-9_-]+\.array_record-\d{5}-of-\d{5}")


def fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 over the contents of a dataset; independent of time, machine and folder."""
    contents = {
        key: manifest[key]
        for key in (
            "schema_version",
            "services",
            "has_times",
            "splits",
            "items",
            "tokenizer_sha256",
            "vocab_size",
            "max_item_tokens",
            "pseudonym_key_id",
        )
    }
    if manifest.get("guides"):  # without any, datasets are what they were before there were some
        contents["guides"] = manifest["guides"]
    return files.sha256_text(files.canonical_json(contents))


def may_show_texts(manifest: Mapping[str, Any]) -> bool:
    """Whether texts of people may be shown; those who made an older dataset were not asked."""
    return manifest.get(TEXTS_SHOWN, True) is True


def shard_entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries {file, bytes, sha256, ...} of all shards."""
    users = [entry for split in manifest["splits"].values() for entry in split["shards"]]
    return users + manifest["items"]["shards"]


def read_manifest(root: epath.Path) -> dict[str, Any]:
    """Reads and checks manifest.json.

    Raises:
        DataError: no dataset there, not one of this program's, newer than it, or damaged.
    """
    path = root / "manifest.json"
    if not path.exists():
        unfinished = root.parent / f"{root.name}.partial"
        hint = "; prepare has not finished there" if unfinished.exists() else ""
        raise DataError(f"{path}: no such file; {root} is not a prepared dataset{hint}")
    manifest = files.read_json(path)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        raise DataError(f"{path}: has no schema_version; not the manifest of a prepared dataset")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version {version} is newer than {SCHEMA_VERSION}, the newest this"
            " program reads; update clue_jax"
        )
    missing = [key for key in _KEYS if key not in manifest]
    if missing:
        raise DataError(f"{path}: {missing[0]!r} is missing; not the manifest of a dataset")
    try:
        same = fingerprint(manifest) == manifest["fingerprint"]
        names = [entry["file"] for entry in shard_entries(manifest)]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: malformed ({error!r})") from error
    if not same:
        raise DataError(f"{path}: its contents do not match its fingerprint; it was changed")
    for name in names:
        if not _SHARD.fullmatch(str(name)):
            raise DataError(f"{path}: {name!r} cannot be a shard of this dataset")
    return manifest


def check_files(root: epath.Path, manifest: dict[str, Any], verify: bool) -> None:
    """Compares every shard with the manifest: its size, and with `verify` its SHA-256.

    Raises:
        DataError: a shard that is missing, has another size or other contents; names it.
    """
    for entry in shard_entries(manifest):
        path = root / entry["file"]
        if not path.exists():
            raise DataError(f"{path}: missing, though manifest.json lists it; {AGAIN}")
        size = path.stat().length
        if size != entry["bytes"]:
            raise DataError(
                f"{path}: {size:,} bytes, but manifest.json says {entry['bytes']:,}; {AGAIN}"
            )
        if verify and files.sha256_file(path) != entry["sha256"]:
            raise DataError(f"{path}: contents differ from those in manifest.json; {AGAIN}")
