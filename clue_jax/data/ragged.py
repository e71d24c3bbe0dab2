"""Rows of uneven length kept end to end in one flat array, addressed by offsets."""

from __future__ import annotations

import numpy as np


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Offsets [n + 1] int64 of rows with the given lengths [n]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def rows_at(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of some rows lie, end to end, and the lengths of these rows."""
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    return ranges(starts, lengths), lengths


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """Where entries of sorted columns [n] differ from the entry before, the first included."""
    if not len(columns[0]):
        return np.zeros(0, np.int64)
    differ = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(np.concatenate([[True], differ]))


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenates `arange(start, start + length)` over all rows, int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
