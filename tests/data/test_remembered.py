"""Numbers of strings seen before, against a dictionary of Python's."""

import numpy as np
import pyarrow as pa
import pytest

from clue_jax.data import remembered
from clue_jax.data.remembered import REMEMBERED_BYTES, Remembered, hashes_of

KEYS = (3, 5)


def array_of(strings):
    return pa.array(strings, pa.large_string())


def drawn(rng, count):
    """Few letters and lengths around those of words, so that many are equal or nearly."""
    lengths = rng.choice([0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 300], count)
    return ["".join(rng.choice(["a", "b", "\0", "é"], length)) for length in lengths]


@pytest.mark.parametrize("piece_bytes", [1, 64, 1 << 20])
def test_numbers_are_those_of_a_dictionary(monkeypatch, piece_bytes):
    monkeypatch.setattr(remembered, "_PIECE_BYTES", piece_bytes)
    rng, table, known = np.random.default_rng(0), Remembered(1 << 30), {}
    for count in (0, 1, 500, 40, 900):
        strings = drawn(rng, count)
        numbers, fresh = table.numbers(array_of(strings))
        new = [strings[place] for place in fresh]
        assert sorted(new) == sorted(set(strings) - set(known)) and np.all(np.diff(fresh) > 0)
        for string, number in zip(strings, numbers.tolist(), strict=True):
            assert known.setdefault(string, number) == number
    assert sorted(known.values()) == list(range(len(known))) and len(known) > 500


def test_hashes_differ_where_strings_do():
    strings = ["", "\0", "\0" * 8, "a", "a\0", "aa", "a" * 8, "a" * 16, "ab" * 4 + "cd" * 4]
    strings += ["cd" * 4 + "ab" * 4, "é", "e"]
    hashes = hashes_of(array_of(strings), KEYS)
    assert all(len(set(row)) == len(strings) for row in hashes.tolist())
    assert not np.array_equal(hashes, hashes_of(array_of(strings), (3, 6)))
    assert np.array_equal(hashes[:, 4:], hashes_of(array_of(strings).slice(4), KEYS))


def test_what_is_remembered_is_bounded():
    table = Remembered(100 * REMEMBERED_BYTES)
    for start in range(0, 2_000, 50):
        numbers, fresh = table.numbers(array_of([f"user {start + n}" for n in range(50)]))
        assert len(fresh) == 50 and numbers.max() < 151
    _, fresh = table.numbers(array_of([f"user {n}" for n in range(50)]))
    assert len(fresh) == 50  # forgotten


def test_many_strings_share_a_table():
    table, strings = Remembered(1 << 30), [str(number) for number in range(100_000)]
    first, fresh = table.numbers(array_of(strings))
    again, none = table.numbers(array_of(strings[::-1]))
    assert len(fresh) == 100_000 and len(none) == 0
    assert np.array_equal(first[::-1], again)
