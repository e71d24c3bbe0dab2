"""Items that too few people share are left out: a text that is one person's own tells who it is.

    rows -> by range of users: users of each item -> by range of identity: items of enough users
         -> `SharedRows`: the rows again, without the others

Counted over all users of the logs, whatever rules then leave of them, and each user once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from clue_jax.console import progress
from clue_jax.data.behaviour_rows import RowSource
from clue_jax.data.ragged import run_starts
from clue_jax.data.spill import BINS, Range, first_key
from clue_jax.data.workers import Advance, Workers
from clue_jax.files import storage_errors

_PARTS = 64  # ranges of identity, of which one is in memory when counts are added up
_HELD = 1 << 16  # rows that wait to be summed, at least
_SHARED = "shared.npy"


@dataclass(frozen=True)
class SharedRows:
    """Rows whose item enough users have; a `behaviour_rows.RowSource`."""

    source: RowSource
    folder: Path  # with the identities of these items

    @property
    def weights(self) -> np.ndarray:
        """Of all rows: what a range takes at most."""
        return self.source.weights

    def read(self, span: Range) -> Iterator[pa.RecordBatch]:
        shared = _opened(self.folder)
        for batch in self.source.read(span):
            yield batch.filter(pa.array(_among(batch.column("item").to_numpy(), shared)))


def shared_rows(
    rows: RowSource, ranges: Sequence[Range], least: int, folder: Path, workers: Workers
) -> tuple[SharedRows, int]:
    """The rows of items that at least so many users have, and how many rows are left out.

    Args:
        rows: of all users.
        ranges: of users; each fits into memory.
        least: users an item needs.
        folder: takes the counts.
        workers: share the work.
    """
    place = folder / "audience"
    with storage_errors(place):
        place.mkdir()
    tasks = [(rows, place, number, span) for number, span in enumerate(ranges)]
    with progress("prepare: users of each item", float(rows.weights.sum())) as advance:
        paths = list(workers.map(count_users, tasks, advance))
    kept, left_out = [], 0
    for part in range(_PARTS):
        identities, users, behaviours = _added_up(paths, part)
        enough = users >= least
        kept.append(identities[enough])
        left_out += int(behaviours[~enough].sum())
    with storage_errors(place):
        np.save(place / _SHARED, np.concatenate(kept), allow_pickle=False)
    return SharedRows(rows, place), left_out


def count_users(
    source: RowSource, folder: Path, number: int, span: Range, advance: Advance
) -> Path:
    """A task of `Workers`: users and behaviours of each item in a range of users, on disk."""
    pairs, waiting, held = np.zeros((3, 0), np.uint64), [], 0  # user, item, behaviours
    for batch in source.read(span):
        columns = [batch.column(name).to_numpy() for name in ("user", "item")]
        waiting.append(np.stack([*columns, np.ones(len(batch), np.uint64)]))
        held += len(batch)
        if held > max(pairs.shape[1], _HELD):  # so that each row is sorted a few times at most
            pairs = _summed(np.concatenate([pairs, *waiting], axis=1), by=2)
            waiting, held = [], 0
        advance(len(batch))
    pairs = _summed(np.concatenate([pairs, *waiting], axis=1), by=2)
    ones = np.ones(pairs.shape[1], np.uint64)
    items = _summed(np.stack([pairs[1], ones, pairs[2]]), by=1)
    path = folder / f"counts-{number:05d}.npy"
    with storage_errors(path):
        np.save(path, items, allow_pickle=False)
    return path


def _summed(columns: np.ndarray, by: int) -> np.ndarray:
    """Columns with equal keys, which are the first `by` rows, become one, with the sums of the
    others."""
    columns = columns[:, np.lexsort(columns[:by][::-1])]
    starts = run_starts(*columns[:by])
    if not len(starts):
        return columns
    return np.concatenate([columns[:by, starts], np.add.reduceat(columns[by:], starts, axis=1)])


def _added_up(paths: Sequence[Path], part: int) -> np.ndarray:
    """[3, n] identity, users and behaviours of the items of a range of identities, ascending."""
    cuts = [first_key(part * BINS // _PARTS), first_key((part + 1) * BINS // _PARTS)]
    found = [np.zeros((3, 0), np.uint64)]
    for path in paths:
        counts = np.load(path, mmap_mode="r")
        first, last = np.searchsorted(counts[0], np.array(cuts, np.uint64))
        found.append(np.array(counts[:, first : None if part == _PARTS - 1 else last]))
    return _summed(np.concatenate(found, axis=1), by=1)


@functools.lru_cache(maxsize=1)
def _opened(folder: Path) -> np.ndarray:
    return np.load(folder / _SHARED, mmap_mode="r")


def _among(items: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """[n] whether each identity is one of those, which are ascending."""
    if not len(shared):
        return np.zeros(len(items), bool)
    place = np.minimum(np.searchsorted(shared, items), len(shared) - 1)
    return shared[place] == items
