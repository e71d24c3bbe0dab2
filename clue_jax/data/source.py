"""Opens and verifies a prepared dataset; reads the users of a split at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from clue_jax.buckets import in_bucket
from clue_jax.config import DataConfig
from clue_jax.console import progress, say
from clue_jax.data import cache, shards
from clue_jax.data import tokenizer as bpe
from clue_jax.data.items import ItemTable, decode_items
from clue_jax.data.manifest import check_files, read_manifest
from clue_jax.data.records import Users, UserTable, concatenate, decode_users
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.errors import DataError, StorageError


def open_dataset(path: epath.PathLike, verify: bool = False) -> Dataset:
    """Opens a prepared dataset after checking it against its manifest.

    Args:
        path: the folder `prepare` wrote.
        verify: also compare the SHA-256 of every shard; reads everything once.

    Raises:
        DataError: not a dataset, newer than this program, incomplete or damaged; names the file.
    """
    root = epath.Path(path)
    manifest = read_manifest(root)
    check_files(root, manifest, verify)
    tokenizer = bpe.load(root / "tokenizer.json")
    if tokenizer.identity != manifest["tokenizer_sha256"]:
        raise DataError(
            f"{root}/tokenizer.json: SHA-256 {tokenizer.identity[:12]}, but manifest.json says"
            f" {manifest['tokenizer_sha256'][:12]}; it belongs to another dataset or was changed"
        )
    if tokenizer.vocab_size != manifest["vocab_size"]:
        raise DataError(
            f"{root}/tokenizer.json: {tokenizer.vocab_size:,} tokens, but manifest.json says"
            f" {manifest['vocab_size']:,}"
        )
    for folder in ("users", "items"):
        shards.check_metadata(root / folder)
    return Dataset(root, manifest, tokenizer.with_reserved(manifest.get("guides", {})))


class Dataset:
    """A prepared dataset; use `open_dataset`.

    Attributes:
        path: its folder.
        manifest: the contents of manifest.json.
        tokenizer: the one its tokens are of, with the guides of its services.
    """

    def __init__(self, path: epath.Path, manifest: dict[str, Any], tokenizer: Tokenizer):
        self.path, self.manifest, self.tokenizer = path, manifest, tokenizer
        self._users: dict[str, Users] = {}

    @property
    def services(self) -> tuple[str, ...]:
        """S names, in the order of the service axis."""
        return tuple(self.manifest["services"])

    @property
    def fingerprint(self) -> str:
        """Identity of the contents."""
        return self.manifest["fingerprint"]

    @property
    def has_times(self) -> bool:
        """Whether times are epoch seconds; otherwise they only give the order."""
        return self.manifest["has_times"]

    def users(self, split: str) -> Users:
        """The users of a split, kept in memory after the first call.

        Raises:
            DataError: no such split, or a shard that is damaged or contradicts the manifest; names
                the shard and where possible the record.
        """
        if split not in self._users:
            self._users[split] = concatenate(list(self._parts(split)), self.services)
        return self._users[split]

    def table(self, split: str, data: DataConfig) -> UserTable:
        """The users of a split to draw from: in memory, or memory-mapped where they are many.

        Raises:
            DataError: as `users`.
            StorageError: the folder that `data.cache` names cannot be written.
        """
        shard_bytes = sum(entry["bytes"] for entry in self._split(split)["shards"])
        if shard_bytes <= data.in_memory_mb << 20:
            return self.users(split)
        root = epath.Path(data.cache) if data.cache else self.path / "cache"
        identity = {
            "fingerprint": self.fingerprint,
            "split": split,
            "services": list(self.services),
        }
        try:
            if in_bucket(root):
                raise StorageError(f"{root}: a bucket cannot be memory-mapped")
            folder = root / f"{split}-{self.fingerprint[:16]}"
            return cache.open_or_build(folder, identity, lambda: self._parts(split))
        except StorageError as error:
            if data.cache:
                raise
            say(
                f"no cache of the {split} users, so they are held in memory; name a local folder"
                f" for it with --config.data.cache=DIR ({error})"
            )
            return self.users(split)

    def _split(self, split: str) -> dict[str, Any]:
        if split not in self.manifest["splits"]:
            there = ", ".join(self.manifest["splits"])
            raise DataError(f"{self.path}: no split {split!r}; it has {there}")
        return self.manifest["splits"][split]

    def _parts(self, split: str) -> Iterator[Users]:
        """The users shard by shard; raises DataError at the end if the manifest counts others."""
        expected = self._split(split)
        count, counts_S = 0, np.zeros(len(self.services), np.int64)
        with progress(f"reading {split} users", expected["users"]) as advance:
            for entry in expected["shards"]:
                users = self._read_shard(entry)
                yield users
                count, counts_S = count + len(users), counts_S + users.counts().sum(axis=0)
                advance(len(users))
        behaviours = dict(zip(self.services, counts_S.tolist(), strict=True))
        if count != expected["users"] or behaviours != expected["behaviours"]:
            raise DataError(
                f"{self.path}: split {split!r} holds {count:,} users with behaviours"
                f" {behaviours}, but manifest.json says {expected['users']:,} with"
                f" {expected['behaviours']}; run prepare again"
            )

    def _read_shard(self, entry: dict[str, Any]) -> Users:
        path = self.path / entry["file"]
        records = shards.read_records(path, entry["sha256"])
        if len(records) != entry["users"]:
            raise DataError(
                f"{path}: {len(records):,} records, but manifest.json says {entry['users']:,}"
            )
        try:
            users = decode_users(records, self.services)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        # Out of range, a token would be clamped on the device and pass unseen.
        wrong = (users.tokens < 0) | (users.tokens >= self.tokenizer.vocab_size)
        if wrong.any():
            token = int(np.argmax(wrong))
            item = np.searchsorted(users.token_offsets, token, side="right") - 1
            record = int(np.searchsorted(users.item_offsets, item, side="right")) - 1
            raise DataError(
                f"{path}: record {record}: token id {int(users.tokens[token])} is not in the"
                f" vocabulary of {self.tokenizer.vocab_size:,}; shard and tokenizer do not belong"
                " together"
            )
        return users

    @functools.cached_property
    def _items(self) -> ItemTable:
        records: list[bytes] = []
        for entry in self.manifest["items"]["shards"]:
            records += shards.read_records(self.path / entry["file"], entry["sha256"])
        try:
            items = decode_items(records)
        except DataError as error:
            raise DataError(f"{self.path}/items: {error}") from error
        if len(items) != self.manifest["items"]["count"]:
            raise DataError(
                f"{self.path}/items: {len(items):,} items, but manifest.json says"
                f" {self.manifest['items']['count']:,}"
            )
        return items

    def items(self) -> ItemTable:
        """What item identities stand for, in order of identity; kept in memory.

        Raises:
            DataError: a shard that is damaged or contradicts the manifest.
        """
        return self._items
