"""Removes users from a prepared dataset: shards they are in are written anew, others keep theirs.

So are items that nobody else has: a text that one person alone wrote says as much as their id. The
cache of a split is not carried over, as it holds everybody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.buckets import files_under
from clue_jax.console import progress
from clue_jax.data.card import card_of
from clue_jax.data.erasures import AUDIT, SEAL, add, recorded
from clue_jax.data.items import item_features
from clue_jax.data.manifest import fingerprint, shard_entries
from clue_jax.data.records import Users, decode_users, user_features
from clue_jax.data.shards import Build, read_records, shard_name, write_metadata, write_shard
from clue_jax.data.source import open_dataset
from clue_jax.data.spill import scratch
from clue_jax.data.suppressed import among
from clue_jax.data.tf_example import decode_features, decode_texts
from clue_jax.errors import DataError
from clue_jax.markdown import CARD
from clue_jax.replacing import Replacing, replacing, whole_path

_INFO = ("dataset_info.json", "features.json")  # of TFDS, in each folder of shards
Entry = dict[str, Any]  # of a shard in the manifest


@dataclass
class Erasure:
    """What became of the ids: users erased, by split; ids that the dataset does not have; items
    that nobody else had; and shards written anew."""

    erased: dict[str, list[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    items: int = 0
    shards: list[str] = field(default_factory=list)

    @property
    def users(self) -> list[str]:
        """All who were erased."""
        return sorted(user for found in self.erased.values() for user in found)


def erase(path: epath.PathLike, ids: Collection[str]) -> Erasure:
    """Removes users from a prepared dataset, which gets another fingerprint by it.

    Each call adds a line to `erasures.jsonl`: time, fingerprint before and after, SHA-256 of each
    id by split, items and shards. A run that was trained on the dataset before is not continued on
    it: it is another dataset. Counts in the manifest are those of the rest, quantiles are not made
    again.

    Args:
        path: the folder `prepare` wrote. An unfinished one beside it is removed.
        ids: users to remove, as the dataset has them; those it does not have are counted.

    Raises:
        DataError: the dataset is damaged, holds a file that is no part of it, or nobody would be
            left to train on.
        LockedError: another process writes this dataset.
        StorageError: the file system refused; the dataset is as it was.
    """
    open_dataset(whole_path(path))  # before anything is made beside it
    with replacing(path, _members, "dataset") as new:
        return _write_without(new, ids)


def _write_without(new: Replacing, ids: Collection[str]) -> Erasure:
    """Fills the new folder, the manifest last."""
    build, dataset, done = Build(new.folder, ""), open_dataset(new.root), Erasure()
    manifest, services = dataset.manifest, dataset.services
    found = {
        split: _find(new.root, entry["shards"], ids, services)
        for split, entry in manifest["splits"].items()
    }
    done.erased = {
        split: [user for shard in shards for user in shard.gone.user_ids.tolist()]
        for split, shards in found.items()
    }
    done.unknown = sorted(set(ids) - set(done.users))
    _refuse_nobody(new.root, manifest, done)
    orphans = _orphans(new.root, [shard for shards in found.values() for shard in shards])
    done.items = len(orphans)
    with scratch(new.folder) as folder:
        write = _Writer(new, build, folder, done)
        splits = {
            split: _split(write, split, manifest["splits"][split], shards, services)
            for split, shards in found.items()
        }
        items = _items(write, manifest["items"], orphans)
    shards = {split: entry["shards"] for split, entry in splits.items()}
    write_metadata(new.folder / "users", user_features(), shards, "users")
    write_metadata(new.folder / "items", item_features(), {"items": items["shards"]}, "items")
    build.close()
    for name in _beside(new.root) - {AUDIT, CARD}:
        new.carry(name)
    rest = {**manifest, "splits": splits, "items": items}
    rest["fingerprint"] = fingerprint(rest)
    rest["users_erased"] = manifest.get("users_erased", 0) + len(done.users)
    if (new.root / CARD).exists():  # older datasets have none
        files.write_text(new.folder / CARD, card_of(rest))
    rest[SEAL] = add(new.root, manifest, _line(manifest, rest, done), new.folder)
    files.write_json(new.folder / "manifest.json", rest)
    return done


# ------------------------------------------------------------------------------------------ finding


@dataclass(frozen=True)
class _Shard:
    """A shard of users, and who is to leave it."""

    entry: Entry
    gone_N: np.ndarray  # [N] bool
    gone: Users

    @property
    def emptied(self) -> bool:
        return bool(self.gone_N.all())


def _find(
    root: epath.Path, entries: Sequence[Entry], ids: Collection[str], services: tuple[str, ...]
) -> list[_Shard]:
    found = []
    with progress("looking for users", sum(entry["users"] for entry in entries)) as advance:
        for entry in entries:
            records = read_records(root / entry["file"], entry["sha256"])
            user_ids = decode_texts(decode_features(records, ("user_id",))["user_id"])
            gone_N = among(user_ids, ids)
            gone = decode_users(list(compress(records, gone_N)), services)
            found.append(_Shard(entry, gone_N, gone))
            advance(len(records))
    return found


def _refuse_nobody(root: epath.Path, manifest: dict[str, Any], done: Erasure) -> None:
    users = manifest["splits"]["train"]["users"]
    if users and users == len(done.erased["train"]):
        raise DataError(
            f"{root}: all {users:,} training users are to be erased; remove the whole dataset"
        )


def _orphans(root: epath.Path, shards: Sequence[_Shard]) -> np.ndarray:
    """Identities of items that only those have who are erased: uint64, ascending."""
    theirs = [np.zeros(0, np.uint64), *(shard.gone.item_ids for shard in shards)]
    orphans = np.unique(np.concatenate(theirs))
    with progress("looking for items of others", len(shards)) as advance:
        for shard in shards if len(orphans) else ():
            records = read_records(root / shard.entry["file"], shard.entry["sha256"])
            stay = list(compress(records, ~shard.gone_N))
            columns = decode_features(stay, ("item_ids",))["item_ids"]
            orphans = np.setdiff1d(orphans, np.frombuffer(b"".join(columns), "<u8"))
            advance(1)
    return orphans


# ------------------------------------------------------------------------------------------ writing


@dataclass(frozen=True)
class _Writer:
    """Puts shards into the new folder: what stays is linked, the rest is written."""

    new: Replacing
    build: Build
    folder: Path  # for shards that are not whole yet
    done: Erasure

    def carry(self, entry: Entry, name: str) -> Entry:
        self.new.carry(entry["file"], name)
        return {**entry, "file": name}

    def write(self, records: Sequence[bytes], name: str, kind: str) -> Entry:
        made = write_shard(records, self.folder / Path(name).name)
        self.done.shards.append(name)
        return self.build.adopt(name, made, **{kind: len(records)})

    def records(self, entry: Entry) -> list[bytes]:
        return read_records(self.new.root / entry["file"], entry["sha256"])


def _split(
    write: _Writer,
    split: str,
    before: dict[str, Any],
    found: list[_Shard],
    services: tuple[str, ...],
) -> dict[str, Any]:
    """What the manifest says of a split without those who leave it."""
    entries, counts_S = [], np.array([before["behaviours"][name] for name in services])
    counts_S = counts_S - sum(shard.gone.counts().sum(axis=0) for shard in found)
    left = [shard for shard in found if not shard.emptied]
    for place, shard in enumerate(left):
        name = shard_name("users", split, place, len(left))
        if len(shard.gone):
            stay = list(compress(write.records(shard.entry), ~shard.gone_N))
            entries.append(write.write(stay, name, "users"))
        else:
            entries.append(write.carry(shard.entry, name))
    return {
        "users": sum(entry["users"] for entry in entries),
        "behaviours": dict(zip(services, counts_S.tolist(), strict=True)),
        "shards": entries,
    }


def _items(write: _Writer, before: dict[str, Any], orphans: np.ndarray) -> dict[str, Any]:
    """What the manifest says of items without those that nobody has any more."""
    kept: list[tuple[Entry, list[bytes] | None]] = []  # None: all of its records
    for entry, stay in _staying(write, before["shards"], orphans):
        if stay is None or stay:
            kept.append((entry, stay))
    entries = []
    for place, (entry, stay) in enumerate(kept):
        name = shard_name("items", "items", place, len(kept))
        if stay is None:
            entries.append(write.carry(entry, name))
        else:
            entries.append(write.write(stay, name, "items"))
    return {"count": sum(entry["items"] for entry in entries), "shards": entries}


def _staying(
    write: _Writer, entries: Sequence[Entry], orphans: np.ndarray
) -> Iterator[tuple[Entry, list[bytes] | None]]:
    for entry in entries:
        if not len(orphans):
            yield entry, None
            continue
        records = write.records(entry)
        columns = decode_features(records, ("item_id",))["item_id"]
        stay_J = ~np.isin(np.frombuffer(b"".join(columns), "<u8"), orphans)
        yield entry, None if stay_J.all() else list(compress(records, stay_J))


# --------------------------------------------------------------------------------- files and record


def _beside(root: epath.Path) -> set[str]:
    """Files of a dataset that are no shards, as far as they are there."""
    names = {"tokenizer.json", "rejects.jsonl", CARD, AUDIT}
    return {name for name in names if (root / name).exists()}


def _members(root: epath.Path) -> set[str]:
    manifest = open_dataset(root).manifest
    recorded(root, manifest)
    shards = {entry["file"] for entry in shard_entries(manifest)}
    info = {f"{folder}/{name}" for folder in ("users", "items") for name in _INFO}
    cached = {file for file in files_under(root) if file.startswith("cache/")}
    return {"manifest.json", *_beside(root), *shards, *info, *cached}


def _line(before: dict[str, Any], after: dict[str, Any], done: Erasure) -> dict[str, Any]:
    digests = {s: sorted(map(files.sha256_text, found)) for s, found in done.erased.items()}
    return {
        "fingerprint_before": before["fingerprint"],
        "fingerprint": after["fingerprint"],
        "erased_sha256": {split: found for split, found in digests.items() if found},
        "unknown_sha256": sorted(map(files.sha256_text, done.unknown)),
        "items": done.items,
        "shards": done.shards,
    }
