"""Histories between grouping and encoding, on disk: a range of users after the other.

Items are known by identity only until the catalogue has been read; each range lists its items
(`used`), gets their tokens (`write_tokens`), and then gives users in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from clue_jax.data.histories import Histories
from clue_jax.data.ragged import offsets_of, rows_at
from clue_jax.data.records import Users
from clue_jax.data.spill import BINS, Range, bins, first_key, write_table
from clue_jax.files import storage_errors

CHUNK_USERS = 512  # in memory in full at a time, each at most `max_history` a service

# Columns of `used`: identity, first behaviour, catalogue row and whether a training user has it.
Used = np.ndarray  # [3, n] uint64


class Added(NamedTuple):
    """What there is in a range that was written."""

    split_counts: np.ndarray  # [3] users of each split
    items: np.ndarray  # [BINS] items by the leading bits of their identity


class UserStore:
    """Users of all ranges, in the order in which ranges were added.

    Attributes:
        split_counts: [3] users of each split for every range.
        items: [BINS] items of all ranges by the leading bits of their identity.
    """

    def __init__(self, folder: Path, services: tuple[str, ...]):
        self.folder, self.services = folder, services
        self.split_counts: list[np.ndarray] = []
        self.items = np.zeros(BINS)

    def write(self, number: int, histories: Histories) -> Added:
        """Writes the users of a range; several processes may write ranges of their own."""
        path = self._path(number, "used.npy")
        with storage_errors(path):
            path.parent.mkdir()
        table = users_table(histories, len(self.services))
        write_table(self._path(number, "users"), table, CHUNK_USERS)
        with storage_errors(path):
            np.save(path, used_items(histories), allow_pickle=False)
        items = np.bincount(bins(histories.identities), minlength=BINS)
        return Added(histories.split_counts, items)

    def add(self, added: Added) -> None:
        """Takes note of the next range."""
        self.split_counts.append(added.split_counts)
        self.items += added.items

    def used(self, span: Range) -> list[tuple[int, Used]]:
        """Items with an identity in `span`, by range of users; both in order."""
        found = []
        for number in range(len(self.split_counts)):
            every = np.load(self._path(number, "used.npy"), mmap_mode="r")
            cuts = [first_key(bound) for bound in span]
            first, last = (
                np.searchsorted(every[0], np.array(cuts[:1], np.uint64))[0],
                every.shape[1],
            )
            if span.last < BINS:
                last = np.searchsorted(every[0], np.array(cuts[1:], np.uint64))[0]
            if last > first:
                found.append((number, np.array(every[:, first:last])))
        return found

    def write_tokens(self, number: int, part: int, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Keeps the tokens, end to end, of the items of a range of users in a range of items."""
        for name, values in (("tokens", tokens), ("lengths", lengths)):
            path = self._path(number, f"{name}-{part:05d}")
            with storage_errors(path):
                path.write_bytes(values.astype(np.int32).tobytes())

    def users(self, split: int, first: int, last: int) -> Iterator[Users]:
        """Users `first` to `last` of a split in full, some at a time."""
        passed = 0
        for number, counts in enumerate(self.split_counts):
            here = int(counts[split])
            start, stop = max(first - passed, 0), min(last - passed, here)
            if start < stop:
                before = int(counts[:split].sum())
                yield from self._range_users(number, before + start, before + stop)
            passed += here

    def _range_users(self, number: int, first: int, last: int) -> Iterator[Users]:
        items = _items_of(self.folder, number)
        with pa.OSFile(str(self._path(number, "users"))) as file, pa.ipc.open_file(file) as reader:
            for chunk in range(first // CHUNK_USERS, -(-last // CHUNK_USERS)):
                start = max(first - chunk * CHUNK_USERS, 0)
                stop = min(last - chunk * CHUNK_USERS, CHUNK_USERS)
                batch = reader.get_batch(chunk).slice(start, stop - start)
                yield in_full(batch, items, self.services)

    def _path(self, number: int, name: str) -> Path:
        return _path(self.folder, number, name)


@dataclass(frozen=True)
class RangeItems:
    """Identities and tokens of the D items of a range of users, in order of identity."""

    identities: np.ndarray  # [D] uint64
    offsets: np.ndarray  # [D + 1] int64 into the tokens
    tokens: np.ndarray  # int32, end to end


def used_items(histories: Histories) -> Used:
    """The items of a range of users, in order of identity."""
    return np.stack(
        [
            histories.identities,
            histories.first_rows.astype(np.uint64),
            histories.entries.astype(np.uint64) * np.uint64(2) + histories.training,
        ]
    )


def in_full(batch: pa.RecordBatch, items: RangeItems, services: tuple[str, ...]) -> Users:
    """Users of a piece of `users_table`, with the tokens of their items."""
    rows, item_lengths = _flat(batch.column("item_rows"))
    behaviour_items, _ = _flat(batch.column("behaviour_items"))
    behaviour_times, _ = _flat(batch.column("behaviour_times"))
    counts, _ = _flat(batch.column("behaviour_counts"))
    tokens, lengths = rows_at(items.offsets, rows)
    return Users(
        user_ids=np.array(batch.column("user_id").to_pylist(), object),
        services=services,
        item_ids=items.identities[rows],
        item_offsets=offsets_of(item_lengths),
        tokens=items.tokens[tokens],
        token_offsets=offsets_of(lengths),
        behaviour_items=behaviour_items,
        behaviour_times=behaviour_times,
        behaviour_offsets=offsets_of(counts),
    )


_opened: dict[tuple[Path, int], RangeItems] = {}


def _items_of(folder: Path, number: int) -> RangeItems:
    """Those of the last range asked for stay, as shards are smaller than ranges."""
    if (folder, number) not in _opened:
        _opened.clear()  # before the next one, so that never two are in memory
        used = np.load(_path(folder, number, "used.npy"), mmap_mode="r")
        _opened[folder, number] = RangeItems(
            identities=np.array(used[0]),
            offsets=offsets_of(_parts(folder, number, "lengths")),
            tokens=_parts(folder, number, "tokens"),
        )
    return _opened[folder, number]


def _parts(folder: Path, number: int, name: str) -> np.ndarray:
    """The files of all ranges of items, which are in order of identity."""
    paths = sorted(_path(folder, number, "").glob(f"{name}-*"))
    return np.concatenate([np.zeros(0, np.int32), *(np.fromfile(p, np.int32) for p in paths)])


def _path(folder: Path, number: int, name: str) -> Path:
    return folder / f"range-{number:05d}" / name


def users_table(histories: Histories, width: int) -> pa.Table:
    """A range of users without their items; `width` is S, services of the dataset."""
    offsets = histories.behaviour_offsets
    per_user = offsets[::width] if len(histories.user_ids) else np.zeros(1, np.int64)
    per_count = np.arange(len(histories.user_ids) + 1) * width
    columns = {
        "item_rows": (histories.item_offsets, histories.item_rows),
        "behaviour_items": (per_user, histories.behaviour_items),
        "behaviour_times": (per_user, histories.behaviour_times),
        "behaviour_counts": (per_count, np.diff(offsets)),
    }
    lists = {
        name: pa.LargeListArray.from_arrays(pa.array(cuts, pa.int64()), pa.array(values))
        for name, (cuts, values) in columns.items()
    }
    return pa.table({"user_id": pa.array(histories.user_ids, pa.large_string()), **lists})


def _flat(lists: pa.LargeListArray) -> tuple[np.ndarray, np.ndarray]:
    """Values of lists end to end, and the length of each."""
    lengths = np.diff(lists.offsets.to_numpy())
    return lists.flatten().to_numpy(), lengths
