"""Rows that cannot be used: counted by reason, listed in a file, and only so many tolerated."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from etils import epath

from clue_jax.errors import DataError
from clue_jax.files import storage_errors

SHOWN = 5  # rejected rows quoted in an error
SHOWN_CHARACTERS = 40  # of a value


@dataclass(frozen=True)
class Reject:
    row: int  # 1-based data row (Parquet, CSV) or line (JSONL)
    column: str  # empty when the whole row is broken
    reason: str
    value: str | None = None  # only of columns that hold neither user ids nor texts

    def message(self, file: str) -> str:
        where = f"{file}:{self.row}: " + (f"column {self.column!r}: " if self.column else "")
        value = "" if self.value is None else f"{self.value[:SHOWN_CHARACTERS]!r} "
        return f"{where}{value}{self.reason}"


class Rejects:
    """Counts rejected rows and stops the stage at one more than `tolerated`.

    With a `path` every rejected row becomes a JSON line {file, row, column, reason} there; values
    are left out, as a shifted column may hold a user id.
    """

    def __init__(self, tolerated: int, path: epath.Path | None = None):
        self.tolerated = tolerated
        self.counts: Counter[str] = Counter()
        self._first: list[str] = []
        self._path = path
        self._stream: Any = None
        if path is not None:
            with storage_errors(path):
                path.unlink(missing_ok=True)  # what an interrupted run may have left

    def add(self, file: str, shown_file: str, found: list[Reject]) -> None:
        """Takes the rejected rows of a batch of `file` (`shown_file` in messages).

        Raises:
            DataError: there are now more than are tolerated; quotes the first ones.
            StorageError: the file of rejected rows cannot be written.
        """
        if not found:
            return
        found = sorted(found, key=lambda reject: reject.row)
        for reject in found:
            reason = f"{reject.column}: {reject.reason}" if reject.column else reject.reason
            self.counts[reason] += 1
        missing = SHOWN - len(self._first)
        self._first += [reject.message(shown_file) for reject in found[:missing]]
        self._write(file, found)
        if (total := self.counts.total()) > self.tolerated:
            more = total - len(self._first)
            listed = "\n  ".join(self._first + ([f"and {more:,} more so far"] if more else []))
            raise DataError(
                f"rows that cannot be used, with {self.tolerated:,} tolerated:\n  {listed}\n"
                "Mend them, leave them out with a `keep` rule, or leave such rows out and count"
                f" them: --config.max_bad_rows=N (now {self.tolerated})"
            )

    def close(self) -> None:
        if self._stream is not None:
            with storage_errors(self._path or ""):
                self._stream.close()
            self._stream = None

    def _write(self, file: str, found: list[Reject]) -> None:
        if self._path is None:
            return
        with storage_errors(self._path):
            if self._stream is None:
                self._stream = self._path.open("w")
            for reject in found:
                record = {"file": file, "row": reject.row}
                record |= {"column": reject.column, "reason": reject.reason}
                self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
