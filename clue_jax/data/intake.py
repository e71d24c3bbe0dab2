"""Behaviours -> spilled rows of hashes, and what the hashes stand for: users and items.

Strings are hashed once while they are remembered; what is remembered is bounded, so a user or item
may be written down more than once, and whoever reads the spilled tables merges them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.data.coded import codes as codes_of
from clue_jax.data.coded import combined
from clue_jax.data.hashing import hashes64
from clue_jax.data.log_reader import Behaviours
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.remembered import Remembered
from clue_jax.data.spill import Spill, Spilled
from clue_jax.errors import DataError

# What a row of the catalogue takes in memory beside its texts, several times over while merged.
_ENTRY_BYTES = 200
ROWS = pa.schema(
    {
        "user": pa.uint64(),  # hash of the id
        "item": pa.uint64(),  # identity
        "time": pa.int64(),
        "row": pa.int64(),  # number of the behaviour
        "entry": pa.int64(),  # of the catalogue: it names the id at the source
        "service": pa.int16(),
    }
)
USERS = pa.schema(
    {
        "user": pa.uint64(),
        "id": pa.large_string(),
        "split": pa.int8(),  # -1 where none is known
        "unit": pa.int32(),  # file, and row in it
        "line": pa.int64(),
    }
)
CATALOGUE = pa.schema(
    {
        "item": pa.uint64(),
        "entry": pa.int64(),
        "texts": pa.large_string(),  # service, text and id at the source, joined by NUL
    }
)
_NUL = pa.scalar("\0", pa.large_string())


class Taken(NamedTuple):
    """What an `Intake` has put aside, see the schemas; the catalogue is weighed in bytes."""

    rows: Spilled
    users: Spilled
    catalogue: Spilled


class Intake:
    """The sink of `read_units`."""

    def __init__(
        self, folder: Path, partitions: int, memory_bytes: int, pseudonyms: Pseudonyms | None
    ):
        self.rows = Spill(folder, "rows", ROWS, partitions, memory_bytes // 4)
        self.users = Spill(folder, "users", USERS, partitions, memory_bytes // 16)
        self.catalogue = Spill(folder, "catalogue", CATALOGUE, partitions, memory_bytes // 8)
        self._pseudonyms = pseudonyms
        self._known_users = Remembered(memory_bytes // 8)
        self._known_items = Remembered(memory_bytes // 4)
        # By the number a string is remembered under.
        self._hashes = np.zeros(0, np.uint64)
        self._splits = np.zeros(0, np.int8)
        self._identities = np.zeros(0, np.uint64)
        self._entries = np.zeros(0, np.int64)

    def __call__(self, batch: Behaviours) -> None:
        """Takes the behaviours of a batch.

        Raises:
            DataError: a user in two splits (one that is no longer remembered is found later).
        """
        user = self._users(batch)
        item, entry = self._items(batch)
        columns = {
            "user": user,
            "item": item,
            "time": batch.times,
            "row": batch.first + np.arange(len(batch)),
            "entry": entry,
            "service": batch.service,
        }
        self.rows.add(columns)

    def close(self) -> Taken:
        """Writes what is held back and forgets what was remembered."""
        self._known_users, self._known_items = Remembered(0), Remembered(0)
        self._hashes = self._identities = np.zeros(0, np.uint64)
        return Taken(self.rows.spilled(), self.users.spilled(), self.catalogue.spilled())

    def _users(self, batch: Behaviours) -> np.ndarray:
        """Hash of each behaviour's user, [B] uint64; new users and splits are written down."""
        codes, ids = codes_of(batch.users), batch.users.dictionary
        numbers, fresh = self._known_users.numbers(ids)
        self._hashes = _grown(self._hashes, numbers)
        self._splits = _grown(self._splits, numbers)
        self._splits[numbers[fresh]] = -1
        new = np.zeros(len(ids), bool)
        new[fresh] = True
        if batch.split_column:
            new |= self._settle(batch, codes, numbers)
        if new.any():
            self._write_users(batch, codes, ids, numbers, np.flatnonzero(new))
        return self._hashes[numbers][codes]

    def _settle(self, batch: Behaviours, codes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Notes the split of each user; [distinct] bool, whose was unknown."""
        before = self._splits[numbers]
        said = batch.splits[_first_of_each(codes, len(numbers))]
        said = np.where(before >= 0, before, said)
        conflict = batch.splits != said[codes]
        if conflict.any():
            row = int(batch.rows[np.argmax(conflict)])
            raise two_splits(batch.file, row, batch.split_column)
        self._splits[numbers] = said
        return before < 0

    def _write_users(
        self,
        batch: Behaviours,
        codes: np.ndarray,
        ids: pa.Array,
        numbers: np.ndarray,
        new: np.ndarray,
    ) -> None:
        """Hashes and writes down the distinct users of a batch at `new`."""
        shown = ids.take(pa.array(new)).to_pylist()
        if self._pseudonyms:
            shown = self._pseudonyms.of_all(np.array(shown, object)).tolist()
        keys = hashes64(f"order\0{user}" for user in shown)
        self._hashes[numbers[new]] = keys
        columns = {
            "user": keys,
            "id": pa.array(shown, pa.large_string()),
            "split": self._splits[numbers[new]],
            "unit": np.full(len(new), batch.unit, np.int32),
            "line": batch.rows[_first_of_each(codes, len(ids))[new]],
        }
        self.users.add(columns)

    def _items(self, batch: Behaviours) -> tuple[np.ndarray, np.ndarray]:
        """Identity and row of the catalogue of each behaviour's item, [B] each."""
        # Texts come first: what an item is called mostly says where it is from.
        (texts, *others), codes = combined([batch.texts, batch.services, batch.source_ids])
        joined = pc.binary_join_element_wise(others[0], texts, others[1], _NUL)
        numbers, fresh = self._known_items.numbers(joined)
        self._identities = _grown(self._identities, numbers)
        self._entries = _grown(self._entries, numbers)
        if len(fresh):
            rows = joined.take(pa.array(fresh))
            # The item is the service and the text: all before the last NUL.
            keys = hashes64(text.rpartition("\0")[0] for text in rows.to_pylist())
            # The number of the behaviour that brought it is a number no other entry has.
            entries = batch.first + _first_of_each(codes, len(joined))[fresh]
            self._identities[numbers[fresh]], self._entries[numbers[fresh]] = keys, entries
            sizes = pc.binary_length(rows).to_numpy(zero_copy_only=False)
            columns = {"item": keys, "entry": entries, "texts": rows}
            self.catalogue.add(columns, 2.0 * sizes + _ENTRY_BYTES)
        return self._identities[numbers][codes], self._entries[numbers][codes]


def two_splits(file: str, row: int, column: str) -> DataError:
    return DataError(
        f"{file}:{row}: column {column!r}: its user is in two splits; give each user one, or leave"
        " `split` empty to deal users to splits by a hash"
    )


def _first_of_each(codes: np.ndarray, count: int) -> np.ndarray:
    """Position of the first row of each code, [count] int64."""
    first = np.zeros(count, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first


def _grown(array: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """`array` with room for all numbers; doubling, so that growing costs linear time."""
    need = int(numbers.max()) + 1 if len(numbers) else 0
    if need <= len(array):
        return array
    return np.concatenate([array, np.zeros(max(need, 2 * len(array)) - len(array), array.dtype)])
