"""Segments -> rows -> chunks: each placed once, nothing too full, bounds that hold."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from clue_jax.data.rows import most_rows, pack_rows, place, slots

CASES = st.integers(1, 40).flatmap(
    lambda capacity: st.tuples(
        st.just(capacity),
        st.lists(st.integers(1, capacity), min_size=1, max_size=80).map(np.array),
    )
)
EXAMPLES = settings(deadline=None, max_examples=60)


def covered(rows, offsets, lengths, capacity):
    """How often each slot of each row is taken."""
    taken = np.zeros((rows.max() + 1, capacity), int)
    for row, offset, length in zip(rows, offsets, lengths, strict=True):
        assert offset + length <= capacity
        taken[row, offset : offset + length] += 1
    return taken


@given(CASES)
@EXAMPLES
def test_no_two_segments_share_a_slot(case):
    capacity, lengths = case
    taken = covered(*pack_rows(lengths, capacity), lengths, capacity)
    assert taken.max() == 1 and taken.sum() == lengths.sum()


@given(CASES)
@EXAMPLES
def test_no_segment_would_have_fitted_an_earlier_row(case):
    capacity, lengths = case
    rows, _ = pack_rows(lengths, capacity)
    free = capacity - np.bincount(rows, weights=lengths)
    for row in range(rows.max()):
        assert lengths[rows > row].min() > free[row]


@given(CASES)
@EXAMPLES
def test_rows_never_exceed_their_bound(case):
    capacity, lengths = case
    rows, _ = pack_rows(lengths, capacity)
    assert rows.max() + 1 <= most_rows(int(lengths.sum()), int(lengths.max()), capacity)


def test_the_bound_is_reached():
    rows, _ = pack_rows(np.full(5, 6), 10)
    assert rows.max() + 1 == 5 and most_rows(30, 6, 10) <= 7


def test_item_like_lengths_leave_almost_no_slot_empty():
    lengths = np.random.default_rng(0).integers(3, 33, 5_000)
    rows, _ = pack_rows(lengths, 128)
    assert lengths.sum() / (128 * (rows.max() + 1)) > 0.99


@given(CASES, st.integers(1, 4), st.integers(0, 20))
@EXAMPLES
def test_chunks_keep_their_limits_and_their_spans_lie_end_to_end(case, chunk_rows, more):
    capacity, lengths = case
    chunk_segments = capacity + more  # at least the segments of one row
    placed = place(lengths, capacity, chunk_rows, chunk_segments)
    assert sorted(placed.order) == list(range(len(lengths)))
    assert placed.row.max() < chunk_rows
    assert (placed.spans[:, 1] <= chunk_segments).all()
    assert (placed.spans[:, 0] == np.cumsum(placed.spans[:, 1]) - placed.spans[:, 1]).all()
    assert (np.bincount(placed.chunk) == placed.spans[:, 1]).all()
    expected = np.concatenate([np.arange(count) for count in placed.spans[:, 1]])
    assert (placed.within == expected).all()


@given(CASES, st.integers(1, 4))
@EXAMPLES
def test_slots_are_distinct_and_each_segments_are_consecutive(case, chunk_rows):
    capacity, lengths = case
    placed = place(lengths, capacity, chunk_rows, 10**6)
    where = slots(placed, lengths, capacity, chunk_rows)
    assert len(set(where.tolist())) == lengths.sum()
    segments = np.split(where, np.cumsum(lengths[placed.order])[:-1])
    for segment in segments:
        assert (np.diff(segment) == 1).all()
        assert segment[0] // capacity == segment[-1] // capacity


def test_nothing_to_place_makes_no_chunk():
    placed = place(np.zeros(0, int), 8, 2, 8)
    assert len(placed.order) == 0 and placed.spans.shape == (0, 2)
