"""Keyed draws: uniform, bijective where they must be, alike for equal contents."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from clue_jax.data.keyed import hash64, multiset_hash, permute, uniform
from clue_jax.data.ragged import offsets_of


def test_hashes_depend_on_every_key_and_on_their_order():
    words = {int(hash64(*keys)) for keys in [(1, 2), (2, 1), (1, 3), (1,), (1, 2, 0)]}
    assert len(words) == 5
    assert hash64(1, np.arange(3)).tolist() == [int(hash64(1, n)) for n in range(3)]


def test_what_words_share_may_be_mixed_ahead():
    rows, ages = np.arange(40) % 7, np.arange(40)
    ahead = hash64(3, 2**40, np.arange(7))[rows]
    np.testing.assert_array_equal(hash64(ages, start=ahead), hash64(3, 2**40, rows, ages))
    np.testing.assert_array_equal(uniform(ages, start=ahead), uniform(3, 2**40, rows, ages))


def test_uniform_draws_are_uniform():
    draws = uniform(7, np.arange(100_000))
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, bins=50, range=(0, 1))[0]
    assert abs(counts - 2_000).max() < 6 * np.sqrt(2_000)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.02


@given(st.integers(1, 3_000), st.integers(0, 2**62))
@settings(deadline=None, max_examples=50)
def test_permute_is_a_bijection(size, key):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permutations_of_other_keys_differ():
    first, second = (permute(np.arange(1_000), 1_000, key) for key in (1, 2))
    assert (first == second).mean() < 0.02 and (first == np.arange(1_000)).mean() < 0.02


SOME_ITEMS = st.lists(st.integers(0, 4), max_size=4)


@given(st.lists(SOME_ITEMS, min_size=1, max_size=12))
@settings(deadline=None)
def test_equal_multisets_and_no_others_hash_alike(rows):
    flat = np.array([item for row in rows for item in row], np.uint64)
    words = multiset_hash(flat, offsets_of(np.array([len(row) for row in rows])))
    kinds = {tuple(sorted(row)) for row in rows}
    assert {(tuple(sorted(row)), int(word)) for row, word in zip(rows, words, strict=True)} == {
        (kind, int(multiset_hash(np.array(kind, np.uint64), np.array([0, len(kind)]))[0]))
        for kind in kinds
    }
    assert len(set(words.tolist())) == len(kinds)


def test_sums_of_values_are_no_multisets():
    """Control: what a sum of the bare values would confuse."""
    first, second, doubled = ([1, 4], [2, 3], [1, 1, 4, 4])
    flat = np.array(first + second + doubled, np.uint64)
    assert len(set(multiset_hash(flat, np.array([0, 2, 4, 8])).tolist())) == 3
