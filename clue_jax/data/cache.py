"""The users of a split in memory-mapped files: batches from more data than memory holds.

A shard holds one record a user, which takes a Python call each to decode. At first open the columns
of a split (`records.Users`) are written to files once, shard by shard; from then on taking users is
a gather. The folder of a cache is complete or absent, belongs to one fingerprint, and may be
removed at any time: it is made again from the shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files, publishing
from clue_jax.console import say
from clue_jax.data.blocks import BLOCK_BYTES, ArrayWriter, StoredArray
from clue_jax.data.outline import CHUNK_USERS, Outline
from clue_jax.data.ragged import offsets_of
from clue_jax.data.records import Users
from clue_jax.data.tf_example import decode_texts
from clue_jax.errors import DataError, LockedError, StorageError

FORMAT = 1
INDEX, CHECKSUMS = "cache.json", "checksums"
_COLUMNS: dict[str, np.dtype[Any]] = {
    "user_ids": np.dtype("<u1"),  # UTF-8, end to end
    "user_id_offsets": np.dtype("<i8"),
    "item_ids": np.dtype("<u8"),
    "item_offsets": np.dtype("<i8"),
    "tokens": np.dtype("<i4"),
    "token_offsets": np.dtype("<i8"),
    "behaviour_items": np.dtype("<i4"),
    "behaviour_times": np.dtype("<i8"),
    "behaviour_offsets": np.dtype("<i8"),
}
_POLL_SECONDS = 0.5


class StoredUsers:
    """The users of a split on disk; a `records.UserTable`. Use `open_or_build`."""

    def __init__(
        self, folder: epath.Path, services: tuple[str, ...], columns: dict[str, StoredArray]
    ):
        self.folder, self.services, self._columns = folder, services, columns

    def __len__(self) -> int:
        return len(self._columns["item_offsets"]) - 1

    def take(self, indices: np.ndarray | Sequence[int]) -> Users:
        """The users at `indices`, in that order, in memory.

        Raises:
            DataError: a block they lie in is damaged; names the file.
        """
        rows, column = np.asarray(indices, np.int64), self._columns
        if len(rows) and not (0 <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"users {rows.min()} to {rows.max()} of {len(self)}")
        services = len(self.services)
        ids, id_lengths = self._values("user_ids", self._ends("user_id_offsets", rows, 1))
        item_ends = self._ends("item_offsets", rows, 1)
        item_ids, items = self._values("item_ids", item_ends)
        # One offset more than items: where the user's last item ends.
        token_ends = column["token_offsets"].rows(item_ends[:, 0], items + 1)
        last = np.cumsum(items + 1) - 1
        tokens, _ = self._values(
            "tokens", np.stack([token_ends[last - items], token_ends[last]], axis=1)
        )
        behaviour_ends = self._ends("behaviour_offsets", rows * services, services)
        span = behaviour_ends[:, [0, -1]]
        return Users(
            user_ids=_texts(ids, id_lengths),
            services=self.services,
            item_ids=item_ids,
            item_offsets=offsets_of(items),
            tokens=tokens,
            token_offsets=offsets_of(np.delete(np.diff(token_ends), last[:-1])),
            behaviour_items=self._values("behaviour_items", span)[0],
            behaviour_times=self._values("behaviour_times", span)[0],
            behaviour_offsets=offsets_of(np.diff(behaviour_ends).reshape(-1)),
        )

    def _ends(self, name: str, rows: np.ndarray, more: int) -> np.ndarray:
        """[N, 1 + more] offsets from each row on."""
        found = self._columns[name].rows(rows, np.full(len(rows), 1 + more))
        return found.reshape(len(rows), 1 + more)

    def _values(self, name: str, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = ends[:, 1] - ends[:, 0]
        return self._columns[name].rows(ends[:, 0], lengths), lengths

    def outlines(self, size: int = CHUNK_USERS) -> Iterator[Outline]:
        """Sizes of all users, `size` at a time."""
        services, column = len(self.services), self._columns
        for first in range(0, len(self), size):
            last = min(first + size, len(self))
            items = column["item_offsets"].span(first, last + 1)
            behaviours = column["behaviour_offsets"].span(first * services, last * services + 1)
            begin, end = int(items[0]), int(items[-1])
            yield Outline(
                rows=np.arange(first, last),
                services=self.services,
                counts=np.diff(behaviours).reshape(-1, services),
                item_ids=column["item_ids"].span(begin, end),
                item_offsets=items - begin,
                item_lengths=np.diff(column["token_offsets"].span(begin, end + 1)),
            )

    def identities(self, size: int = CHUNK_USERS) -> Iterator[np.ndarray]:
        """Ids of all users, `size` at a time."""
        column = self._columns
        for first in range(0, len(self), size):
            ends = column["user_id_offsets"].span(first, min(first + size, len(self)) + 1)
            raw = column["user_ids"].span(int(ends[0]), int(ends[-1]))
            yield _texts(raw, np.diff(ends))

    def gathered(self, parts: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
        """Parts of an array over users end to end, on disk: of many users it is large as well."""
        # Somebody else's cache may not be written to.
        scratch = self.folder if os.access(self.folder, os.W_OK) else None
        with tempfile.TemporaryFile(dir=scratch) as stream, files.storage_errors(self.folder):
            for part in parts:
                stream.write(np.ascontiguousarray(part, dtype).view(np.uint8).data)
            stream.flush()
            return np.memmap(stream, dtype, "r") if stream.tell() else np.zeros(0, dtype)


def _texts(payload: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    raw = payload.tobytes()
    ends = itertools.pairwise(offsets_of(lengths).tolist())
    return decode_texts([raw[begin:end] for begin, end in ends])


# ------------------------------------------------------------------------------ opening, building


def open_or_build(
    folder: epath.Path, identity: dict[str, Any], parts: Callable[[], Iterable[Users]]
) -> StoredUsers:
    """Opens a cache, after building it where there is none or a broken one.

    Of several processes one builds, the others wait for it.

    Args:
        folder: of the cache; local.
        identity: JSON of what is cached: `services`, fingerprint, split.
        parts: reads the users, shard by shard.

    Raises:
        StorageError: the file system refused.
        DataError: a shard is damaged.
    """
    told = False
    while True:
        # Looked at first: what another process publishes from here on is not built over.
        broken = folder.exists()
        try:
            return _open(folder, identity)
        except (DataError, OSError) as problem:
            if broken:
                say(f"building the cache anew: {problem}")
        try:
            _build(folder, identity, parts, overwrite=broken)
        except LockedError as error:
            if not told:
                say(f"waiting for the cache that another process builds ({error})")
            told = True
            time.sleep(_POLL_SECONDS)
        except StorageError:
            # Raised as well when another process published it between the look and the lease.
            with files.storage_errors(folder):
                try:
                    return _open(folder, identity)
                except (DataError, FileNotFoundError):
                    pass
            raise


def _open(folder: epath.Path, identity: dict[str, Any]) -> StoredUsers:
    index = files.read_json(folder / INDEX)
    if not isinstance(index, dict) or index.get("sha256") != _seal(index):
        raise DataError(f"{folder / INDEX}: its contents do not match its checksum")
    if index["identity"] != identity or index["format"] != FORMAT:
        raise DataError(f"{folder / INDEX}: of another dataset or version")
    payload = (folder / CHECKSUMS).read_bytes()
    if hashlib.sha256(payload).hexdigest() != index["checksums_sha256"]:
        raise DataError(f"{folder / CHECKSUMS}: damaged")
    checksums, columns = np.frombuffer(payload, "<u4"), {}
    for name, dtype in _COLUMNS.items():
        length = index["lengths"][name]
        blocks = -(-length * dtype.itemsize // BLOCK_BYTES)
        columns[name] = StoredArray(folder / name, dtype, length, checksums[:blocks])
        checksums = checksums[blocks:]
    return StoredUsers(folder, tuple(identity["services"]), columns)


def _build(
    folder: epath.Path,
    identity: dict[str, Any],
    parts: Callable[[], Iterable[Users]],
    *,
    overwrite: bool,
) -> None:
    with publishing.staged_directory(folder, overwrite=overwrite) as partial:
        _empty(partial)  # of what a kill left
        try:
            columns = _write(partial, parts())
            checksums = [word for column in columns.values() for word in column.checksums]
            payload = np.array(checksums, "<u4").tobytes()
            files.write_bytes(partial / CHECKSUMS, payload)
            index = {
                "format": FORMAT,
                "identity": identity,
                "lengths": {name: column.length for name, column in columns.items()},
                "checksums_sha256": hashlib.sha256(payload).hexdigest(),
            }
            files.write_json(partial / INDEX, {**index, "sha256": _seal(index)})
        except BaseException:
            _empty(partial)
            raise


def _seal(index: dict[str, Any]) -> str:
    rest = {key: value for key, value in index.items() if key != "sha256"}
    return files.sha256_text(files.canonical_json(rest))


def _empty(folder: epath.Path) -> None:
    for leftover in folder.iterdir():
        leftover.unlink()


def _write(folder: epath.Path, parts: Iterable[Users]) -> dict[str, ArrayWriter]:
    with contextlib.ExitStack() as stack:
        columns = {
            name: stack.enter_context(ArrayWriter(folder / name, dtype))
            for name, dtype in _COLUMNS.items()
        }
        ends = dict.fromkeys((name for name in _COLUMNS if name.endswith("_offsets")), 0)
        for name in ends:
            columns[name].append(np.zeros(1, np.int64))
        for users in parts:
            texts = [user_id.encode("utf-8") for user_id in users.user_ids]
            columns["user_ids"].append(np.frombuffer(b"".join(texts), np.uint8))
            for name in ("item_ids", "tokens", "behaviour_items", "behaviour_times"):
                columns[name].append(getattr(users, name))
            id_offsets = offsets_of(np.array([len(text) for text in texts], np.int64))
            for name in ends:
                offsets = id_offsets if name == "user_id_offsets" else getattr(users, name)
                columns[name].append(offsets[1:] + ends[name])
                ends[name] += int(offsets[-1])
    return columns
