"""Logs of a run: JSON lines, of which a resumed run keeps what still counts."""

from __future__ import annotations

import json
import math
from typing import Any

import jax
from etils import epath

from clue_jax.files import append_text, write_text

Row = dict[str, Any]


class Log:
    """Appends rows of steps to a file of JSON lines; only process 0 writes.

    Rows beyond `restored_step` are removed first: a resumed run computes them again. `kept` are
    the others; a torn last line is none of them.
    """

    def __init__(self, path: epath.Path, restored_step: float):
        self.path, self._writes = path, jax.process_index() == 0
        lines = path.read_text().splitlines() if path.exists() else []
        self.kept = [row for row in map(_parsed, lines) if row and row["step"] <= restored_step]
        if self._writes and len(self.kept) < len(lines):
            write_text(path, "".join(json.dumps(row) + "\n" for row in self.kept))

    def write(self, row: Row) -> Row:
        """Appends one row; NaN becomes null, so that every line stays JSON. Returns what it is.

        Raises:
            StorageError: the file system refused.
        """
        plain = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
        }
        if self._writes:
            append_text(self.path, json.dumps(plain) + "\n")
        return plain


def read_rows(path: epath.Path) -> list[Row]:
    """All rows of a log, in order, but for a torn last line."""
    return [row for row in map(_parsed, path.read_text().splitlines()) if row]


def _parsed(line: str) -> Row | None:
    try:
        row: Row = json.loads(line)
        return row if isinstance(row["step"], (int, float)) else None
    except (ValueError, KeyError, TypeError):
        return None
