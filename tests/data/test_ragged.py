"""Rows of uneven length, against plain lists and NumPy's own."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from clue_jax.data.ragged import distinct, offsets_of, ranges, row_sums


@hypothesis.given(st.lists(st.integers(0, 30) | st.integers(2**63, 2**63 + 3), max_size=200))
@hypothesis.settings(max_examples=60, deadline=None)
def test_distinct_values_are_those_of_numpy(values):
    values = np.array(values, np.uint64)
    found = distinct(values)
    expected = np.unique(values, return_index=True, return_inverse=True)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_of_many_equal_values_the_first_is_found():
    values = np.random.default_rng(0).integers(0, 50, 40_000).astype(np.uint64)
    _, first, _ = distinct(values)
    assert first.tolist() == [int(np.argmax(values == n)) for n in range(50)]


@hypothesis.given(st.lists(st.lists(st.integers(-9, 9), max_size=4), max_size=9))
@hypothesis.settings(max_examples=40, deadline=None)
def test_rows_are_summed_and_numbered(rows):
    lengths = np.array([len(row) for row in rows], np.int64)
    flat = np.array([value for row in rows for value in row], np.int64)
    assert row_sums(flat, lengths).tolist() == [sum(row) for row in rows]
    assert row_sums(flat > 0, lengths).tolist() == [sum(v > 0 for v in row) for row in rows]
    assert offsets_of(lengths)[-1] == len(flat)
    numbers = ranges(np.arange(len(rows)) * 100, lengths).tolist()
    assert numbers == [n * 100 + i for n, row in enumerate(rows) for i in range(len(row))]
