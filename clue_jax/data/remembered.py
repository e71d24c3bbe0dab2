"""Strings seen before, by number: a hash table of arrays that takes a batch at a time.

A string is known by 128 bits of a hash under keys that are drawn anew each time, not by itself: of
a billion strings two are taken for one with a chance below 1e-20, whoever chose them.
"""

from __future__ import annotations

import itertools
import secrets

import numpy as np
import pyarrow as pa

from clue_jax.data.keyed import hash64
from clue_jax.data.ragged import ranges

# What a string costs at most: its hash and two places in the table, in arrays that double, and
# what a caller keeps of it by its number.
REMEMBERED_BYTES = 128
_PIECE_BYTES = 1 << 20  # of text at a time: the words of a piece take ten times as much
_WORD = 8
_UPTO = np.array([(1 << 8 * size) - 1 for size in range(_WORD + 1)], np.uint64)
_FREE = -1


class Remembered:
    """Numbers strings until they take more than `most` bytes, then begins anew."""

    def __init__(self, most: int):
        self._most = most // REMEMBERED_BYTES
        self._keys = secrets.randbits(64), secrets.randbits(64)
        self._forget()

    def numbers(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of large strings [n] int64, and the positions of those not known before: of
        equal ones one."""
        if self._count > self._most:
            self._forget()
        self._make_room(len(values))
        return self._look_up(hashes_of(values, self._keys))

    def _forget(self) -> None:
        self._count = 0
        self._hashes = np.zeros((2, 0), np.uint64)  # by number
        self._table = np.full(1, _FREE)  # of numbers, half of them free; found by the hash

    def _make_room(self, more: int) -> None:
        need, known = self._count + more, self._hashes[:, : self._count]
        if need > self._hashes.shape[1]:
            self._hashes = np.concatenate([known, np.zeros((2, need), np.uint64)], axis=1)
        if 2 * need > len(self._table):
            self._table = np.full(1 << (2 * need).bit_length(), _FREE)
            left = np.arange(self._count)
            slots = self._slots(known)
            while len(left):
                free = self._table[slots] == _FREE
                self._table[slots[free]] = left[free]
                without = self._table[slots] != left
                left, slots = left[without], self._next(slots[without])

    def _look_up(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        numbers, fresh = np.zeros(hashes.shape[1], np.int64), [np.zeros(0, np.int64)]
        left, slots = np.arange(hashes.shape[1]), self._slots(hashes)
        while len(left):
            free = self._table[slots] == _FREE
            # Several may want a slot: one gets it, and the others look again.
            wanted, wanting = slots[free], left[free]
            self._table[wanted] = wanting
            first = self._table[wanted] == wanting
            new = wanting[first]
            upto = self._count + len(new)
            self._table[wanted[first]] = np.arange(self._count, upto)
            self._hashes[:, self._count : upto] = hashes[:, new]
            self._count = upto
            fresh.append(new)
            held = self._table[slots]
            same = (self._hashes[:, held] == hashes[:, left]).all(axis=0)
            numbers[left[same]] = held[same]
            left, slots = left[~same], self._next(slots[~same])
        return numbers, np.sort(np.concatenate(fresh))

    def _slots(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes[0] & np.uint64(len(self._table) - 1)).astype(np.int64)

    def _next(self, slots: np.ndarray) -> np.ndarray:
        return (slots + 1) & (len(self._table) - 1)


def hashes_of(values: pa.Array, keys: tuple[int, int]) -> np.ndarray:
    """Two hashes of large strings, [2, n] uint64.

    Sums of the words of a string, mixed with its length: each word mixed under a key of its place
    (as in tabulation hashing), and for the second sum times an odd number of its place.
    """
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]
    text = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    ends = np.arange(offsets[0], offsets[-1], _PIECE_BYTES)
    cuts = np.unique([0, *np.searchsorted(offsets[:-1], ends), len(values)]).tolist()
    pieces = [offsets[a : b + 1] for a, b in itertools.pairwise(cuts)]
    nothing = np.zeros((2, 0), np.uint64)
    return np.concatenate([nothing, *(_piece(piece, text, keys) for piece in pieces)], axis=1)


def _piece(offsets: np.ndarray, text: np.ndarray, keys: tuple[int, int]) -> np.ndarray:
    mine = np.concatenate([text[offsets[0] : offsets[-1]], np.zeros(_WORD, np.uint8)])
    windows = np.ndarray(len(mine) - _WORD + 1, "<u8", mine, strides=(1,))  # one at each byte
    lengths = np.diff(offsets)
    counts = lengths // _WORD + 1  # the last word is never full, so that all have one
    ends = np.cumsum(counts)
    places = ranges(np.zeros_like(counts), counts)
    words = windows[ranges(offsets[:-1] - offsets[0], counts, _WORD)]
    words[ends - 1] &= _UPTO[lengths % _WORD]
    one, two = (hash64(np.arange(counts.max()), start=key) for key in keys)
    mixed = hash64(words, start=one[places])
    both = mixed, mixed * (two | np.uint64(1))[places]
    sums = np.stack([np.add.reduceat(values, ends - counts) for values in both])
    return hash64(lengths, start=sums)
