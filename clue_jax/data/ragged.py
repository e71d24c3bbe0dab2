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


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct of some values, ascending; where each first occurs; which one each value is.

    As of `np.unique`, but that sorts for several times as long, to keep equal values in order.
    """
    order = np.argsort(values)
    starts = run_starts(values[order])
    which = np.empty(len(values), np.int64)
    which[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))
    return values[order[starts]], np.minimum.reduceat(order, starts), which


def row_sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums [n] of rows of integers or flags that lie end to end."""
    return np.diff(offsets_of(values)[offsets_of(lengths)])


def ranges(starts: np.ndarray, lengths: np.ndarray, step: int = 1) -> np.ndarray:
    """Concatenates `start + step * arange(length)` over all rows, int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(0, step * total, step) + np.repeat(starts - step * (ends - lengths), lengths)
