"""Users on a suppression list: still in the dataset, and never drawn from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.config import PretrainConfig
from clue_jax.data.columns import mask_of
from clue_jax.data.id_list import IdList
from clue_jax.data.outline import CHUNK_USERS, Outline
from clue_jax.data.records import Users, UserTable
from clue_jax.data.source import Dataset


def among(user_ids: np.ndarray, ids: Collection[str]) -> np.ndarray:
    """[N] whether a user is one of those listed.

    Args:
        user_ids: [N] str, those of a dataset.
        ids: listed.
    """
    listed = pa.array(sorted(ids), pa.large_string())
    return mask_of(pc.is_in(pa.array(user_ids, pa.large_string()), listed))


@dataclass(frozen=True)
class Unlisted:
    """A table of users whose listed ones nobody sees; a `records.UserTable`.

    The others keep their row, so records of who was drawn mean the same with and without a list.

    Attributes:
        users: all of them.
        listed_N: [N] bool.
    """

    users: UserTable
    listed_N: np.ndarray

    @property
    def services(self) -> tuple[str, ...]:
        return self.users.services

    def __len__(self) -> int:
        return len(self.users)

    def take(self, indices: np.ndarray | Sequence[int]) -> Users:
        """The users at `indices`; asking for a listed one is an error of the program."""
        if self.listed_N[np.asarray(indices, np.int64)].any():
            raise ValueError("a user on the suppression list was to be read")
        return self.users.take(indices)

    def outlines(self) -> Iterator[Outline]:
        """Sizes of the users who are not listed, some at a time."""
        for part in self.users.outlines():
            stay = np.flatnonzero(~self.listed_N[part.rows])
            if len(stay):
                yield part.take(stay)

    def identities(self, size: int = CHUNK_USERS) -> Iterator[np.ndarray]:
        return self.users.identities(size)

    def gathered(self, parts: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
        return self.users.gathered(parts, dtype)


def unlisted(users: UserTable, ids: Collection[str]) -> UserTable:
    """The users without those of a suppression list, which may name others as well."""
    if not ids:
        return users
    parts = [among(user_ids, ids) for user_ids in users.identities()]
    listed_N = np.concatenate([np.zeros(0, bool), *parts])
    return Unlisted(users, listed_N) if listed_N.any() else users


def drawable(
    dataset: Dataset, split: str, config: PretrainConfig, suppressed: IdList | None
) -> UserTable:
    """The users of a split that a run may draw: those of no suppression list.

    Raises:
        DataError: the dataset cannot be read.
        StorageError: the folder that `data.cache` names cannot be written.
    """
    return unlisted(dataset.table(split, config.data), suppressed.ids if suppressed else ())
