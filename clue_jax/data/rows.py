"""Segments of uneven length -> rows of fixed length -> chunks of rows: who lies where.

Used for both levels of the encoder: tokens of items, and behaviours of histories.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clue_jax.data.ragged import ranges


class Placement(NamedTuple):
    """Where each of n segments lies; arrays are in the order in which chunks hold the segments."""

    order: np.ndarray  # [n] index of the segment in the caller's order
    chunk: np.ndarray  # [n]
    row: np.ndarray  # [n] within the chunk
    offset: np.ndarray  # [n] first slot within the row
    within: np.ndarray  # [n] number of the segment within its chunk
    spans: np.ndarray  # [C, 2] segments before each chunk, and segments in it


def pack_rows(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """First-fit-decreasing packing, many equal rows at a time.

    A row takes the longest segments that still fit. Rows with the same pattern of lengths are laid
    out together, so the work grows with the number of distinct lengths, not of segments. Every row
    but the last of a pattern run is at least `1 - (longest - 1) / capacity` full.

    Args:
        lengths: [n] positive integers up to `capacity`.
        capacity: slots in a row.

    Returns:
        rows [n] and offsets [n], in the order of `lengths`; rows are numbered from 0.
    """
    # Of small types NumPy sorts by digits.
    by_length = np.argsort((capacity - lengths).astype(np.min_scalar_type(capacity)), kind="stable")
    counts = np.bincount(lengths, minlength=capacity + 1)
    # Position in `by_length` of the next segment of each length (longest first). Lists: there are
    # few lengths, and reading single numbers out of arrays is slow.
    following, left = (len(lengths) - np.cumsum(counts)).tolist(), counts.tolist()
    present = np.flatnonzero(counts)[::-1].tolist()
    runs: list[tuple[int, int, int, int, int, int]] = []
    base = 0
    while present:
        pattern = _fullest_pattern(left, present, capacity)
        repeats = min(left[length] // taken for length, taken in pattern)
        offset = 0
        for length, taken in pattern:
            count = repeats * taken
            runs.append((following[length], count, base, taken, offset, length))
            offset += taken * length
            following[length] += count
            left[length] -= count
        base += repeats
        present = [length for length in present if left[length]]
    return _lay_runs(by_length, np.array(runs, np.int64).reshape(-1, 6))


def _lay_runs(by_length: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and offsets of runs of segments of one length, `taken` to a row from `base` on."""
    start, count = runs[:, 0], runs[:, 1]
    base, taken, offset, length = np.repeat(runs[:, 2:], count, axis=0).T
    number = ranges(np.zeros(len(runs), np.int64), count)
    chosen = by_length[ranges(start, count)]
    rows, offsets = np.zeros((2, len(by_length)), np.int64)
    rows[chosen] = base + number // taken
    offsets[chosen] = offset + number % taken * length
    return rows, offsets


def most_rows(total: int, longest: int, capacity: int) -> int:
    """Rows that `pack_rows` makes at most for segments of `total` slots.

    No segment of a later row would have fitted into an earlier one. So an earlier row lacks less
    than `longest` slots, and any two rows together hold more than one row can.
    """
    return min(total // (capacity - longest + 1), 2 * total // capacity) + 1


def _fullest_pattern(left: list[int], present: list[int], capacity: int) -> list[tuple[int, int]]:
    """Lengths, longest first, and how many of each the next row takes."""
    pattern, room = [], capacity
    for length in present:
        if length <= room:
            taken = min(left[length], room // length)
            pattern.append((length, taken))
            room -= taken * length
            if not room:
                break
    return pattern


def place(lengths: np.ndarray, row_slots: int, chunk_rows: int, chunk_segments: int) -> Placement:
    """Packs segments into rows and rows into chunks of at most `chunk_segments` segments."""
    rows, offsets = pack_rows(lengths, row_slots)
    order = np.argsort(rows * row_slots + offsets)  # no two segments lie in one place
    in_row = np.bincount(rows, minlength=1) if len(rows) else np.zeros(0, np.int64)
    chunk_of_row, row_in_chunk = _chunk_rows(in_row, chunk_rows, chunk_segments)
    chunk = chunk_of_row[rows[order]]
    counts = np.bincount(chunk, minlength=int(chunk_of_row[-1]) + 1 if len(in_row) else 0)
    starts = np.cumsum(counts) - counts
    within = np.arange(len(order)) - starts[chunk]
    spans = np.stack([starts, counts], axis=1)
    return Placement(order, chunk, row_in_chunk[rows[order]], offsets[order], within, spans)


def _chunk_rows(
    in_row: np.ndarray, chunk_rows: int, chunk_segments: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deals rows to chunks in order; a chunk is full by its rows or by its segments."""
    total = np.concatenate([[0], np.cumsum(in_row)])
    chunk = np.empty(len(in_row), np.int64)
    row = np.empty(len(in_row), np.int64)
    first = number = 0
    while first < len(in_row):
        fits = int(np.searchsorted(total, total[first] + chunk_segments, side="right")) - 1
        last = min(first + chunk_rows, max(fits, first + 1))
        chunk[first:last] = number
        row[first:last] = np.arange(last - first)
        first, number = last, number + 1
    return chunk, row


def slots(placement: Placement, lengths: np.ndarray, row_slots: int, chunk_rows: int) -> np.ndarray:
    """Flat slot of every element of the placed segments, in placement order.

    Args:
        placement: of n segments.
        lengths: [n] in the caller's order.
        row_slots: slots in a row.
        chunk_rows: rows in a chunk.

    Returns:
        [sum(lengths)] positions in a buffer [C, chunk_rows, row_slots] laid out flat.
    """
    first = (placement.chunk * chunk_rows + placement.row) * row_slots + placement.offset
    return ranges(first, lengths[placement.order])
