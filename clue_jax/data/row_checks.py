"""The rows of a batch that are still good, and the first problem of each that is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from clue_jax.data import columns
from clue_jax.data.coded import coded, codes, numbered, per_row
from clue_jax.data.rejects import Reject

NOT_UTF8 = "is not UTF-8"
HAS_NUL = "contains a NUL byte"


class Limit(NamedTuple):
    """Bytes that a value may have, and how a message puts it."""

    bytes: int
    said: str

    @property
    def reason(self) -> str:
        return f"is longer than {self.said}"


NO_LIMIT = Limit(0, "")
LETTER_BYTES = 4  # the longest in UTF-8


@dataclass(frozen=True)
class Text:
    """A column as text, and what is wrong with its values; what is not UTF-8 is null.

    `invalid` and `longer` are about the n distinct values.
    """

    column: pa.DictionaryArray  # [B] of large_string
    raw: pa.Array  # [n] as the reader gave them
    invalid: np.ndarray  # [n] bool, not UTF-8
    longer: np.ndarray  # [n] bool, beyond the limit
    limit: Limit

    @property
    def values(self) -> pa.Array:
        return self.column.dictionary

    def changed(self, values: pa.Array) -> pa.DictionaryArray:
        return numbered(values, codes(self.column))


def text_of(name: str, column: pa.Array, limit: Limit = NO_LIMIT) -> Text:
    """Reads a column; of what is beyond its limit no more is kept than tells so.

    Raises:
        DataError: the column holds lists or structures.
    """
    if limit.bytes:
        column = columns.shortened(column, limit.bytes + LETTER_BYTES)
    raw = coded(column)
    values, invalid = columns.texts(raw.dictionary, name)
    longer = np.zeros(len(values), bool)
    if limit.bytes:
        longer = columns.longer_than(values, limit.bytes)
    return Text(numbered(values, codes(raw)), raw.dictionary, invalid, longer, limit)


class Checks:
    """Rejects rows of a batch, each under its first problem.

    Attributes:
        alive: [B] bool, rows without a problem so far.
        found: the rejects.
    """

    def __init__(self, rows: np.ndarray, alive: np.ndarray, found: list[Reject]):
        self.rows, self.alive, self.found = rows, alive.copy(), found

    def reject(
        self, where: np.ndarray, column: str, reason: str, shown: pa.Array | None = None
    ) -> None:
        """Rejects rows `where` [B] there is this problem; `shown` has values to quote."""
        for position in np.flatnonzero(where & self.alive):
            value = None if shown is None else shown[int(position)].as_py()
            self.found.append(Reject(int(self.rows[position]), column, reason, value))
        self.alive &= ~where

    def values(
        self,
        column: pa.DictionaryArray,
        where: np.ndarray,
        name: str,
        reason: str,
        shown: bool = False,
    ) -> None:
        """Rejects the rows whose value is one of those `where` [n] there is this problem."""
        if where.any():
            self.reject(per_row(column, where), name, reason, column if shown else None)

    def readable(self, name: str, text: Text) -> None:
        """Rejects what is no text, too long a one, or one with a NUL."""
        for where, reason in problems_of(text):
            self.values(text.column, where, name, reason)


def problems_of(text: Text) -> tuple[tuple[np.ndarray, str], ...]:
    """Where values [n] are spoilt, by reason."""
    return (
        (text.invalid, NOT_UTF8),
        (text.longer, text.limit.reason),
        (columns.contains_nul(text.values), HAS_NUL),
    )
