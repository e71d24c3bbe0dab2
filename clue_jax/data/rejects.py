"""Rows that cannot be used: counted by reason, listed in a file, and only so many tolerated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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

    With a folder every rejected row becomes a JSON line {file, row, column, reason} there, in a
    file for each unit of the logs; values are left out, as a shifted column may hold a user id.

    Attributes:
        counts: rows by reason.
        first: some messages and the unit they are of.
    """

    def __init__(self, tolerated: int, folder: Path | None = None):
        self.tolerated = tolerated
        self.counts: Counter[str] = Counter()
        self.first: list[tuple[int, str]] = []
        self._folder = folder

    def add(self, unit: int, file: str, shown_file: str, found: list[Reject]) -> None:
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
        missing = SHOWN - len(self.first)
        self.first += [(unit, reject.message(shown_file)) for reject in found[:missing]]
        self._write(unit, file, found)
        self.check()

    def merge(self, other: Rejects) -> None:
        """Takes what another process has rejected.

        Raises:
            DataError: there are now more than are tolerated.
        """
        self.counts += other.counts
        self.first = sorted(self.first + other.first, key=lambda pair: pair[0])[:SHOWN]
        self.check()

    def check(self) -> None:
        if (total := self.counts.total()) > self.tolerated:
            more = total - len(self.first)
            shown = [message for _, message in self.first]
            listed = "\n  ".join(shown + ([f"and {more:,} more so far"] if more else []))
            raise DataError(
                f"rows that cannot be used, with {self.tolerated:,} tolerated:\n  {listed}\n"
                "Mend them, leave them out with a `keep` rule, or leave such rows out and count"
                f" them: --config.max_bad_rows=N (now {self.tolerated})"
            )

    def _write(self, unit: int, file: str, found: list[Reject]) -> None:
        if self._folder is None:
            return
        path = self._folder / f"rejects-{unit:07d}.jsonl"
        with storage_errors(path), path.open("a", encoding="utf-8") as stream:
            for reject in found:
                record = {"file": file, "row": reject.row}
                record |= {"column": reject.column, "reason": reject.reason}
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def publish_rejects(folders: Iterable[Path], path: epath.Path) -> None:
    """Joins the files of all units, in order; no file where nothing was rejected.

    Raises:
        StorageError: it cannot be written.
    """
    parts = [part for folder in folders for part in folder.glob("rejects-*.jsonl")]
    with storage_errors(path):
        path.unlink(missing_ok=True)  # what an interrupted run may have left
        if parts:
            with path.open("wb") as stream:
                for part in sorted(parts, key=lambda part: part.name):
                    with part.open("rb") as lines:  # of a process that was ended the last is half
                        stream.writelines(line for line in lines if line.endswith(b"\n"))
