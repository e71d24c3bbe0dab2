"""Randomness that is a pure function of integer keys: no state, no order, no host.

Draws of different things must not share keys; whoever draws puts a purpose first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Purposes: they keep the streams of different draws apart.
EPOCH, KEEP, PART, SINGLE, TOKEN, GUIDE, BLOCK, CUT = range(1, 9)


def hash64(*keys: np.ndarray | int, start: np.ndarray | int = 0) -> np.ndarray:
    """Mixes integer keys (broadcast together) into uniform 64-bit words (splitmix64).

    Keys that many words share need mixing only once: `start` is what `hash64` gave for them.
    """
    word: Any = np.asarray(start, np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            word = _mix(word + _GOLDEN + np.asarray(key).astype(np.uint64))
    return np.asarray(word)


def int32_of(words: np.ndarray) -> np.ndarray:
    """The upper halves of 64-bit words as int32, which devices compare."""
    return (words >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _mix(word: np.ndarray) -> np.ndarray:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def uniform(*keys: np.ndarray | int, start: np.ndarray | int = 0) -> np.ndarray:
    """Uniform float64 in [0, 1), a pure function of the keys; `start` as of `hash64`."""
    return (hash64(*keys, start=start) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(indices: np.ndarray, size: int, key: int) -> np.ndarray:
    """Images of `indices` under a keyed permutation of range(size), without storing it.

    A four-round Feistel network over the next even number of bits, walked until inside the range
    (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    values = np.asarray(indices, np.uint64)
    pending = np.ones(values.shape, bool)
    while pending.any():
        left, right = values[pending] >> shift, values[pending] & mask
        for round_ in range(4):
            left, right = right, left ^ (hash64(key, round_, right) & mask)
        values[pending] = (left << shift) | right
        pending = values >= np.uint64(size)
    return values.astype(np.int64)


def multiset_hash(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """One word per row `values[offsets[n]:offsets[n + 1]]`, the same in any order of its values."""
    totals = np.zeros(len(values) + 1, np.uint64)
    # Sums of mixed words wrap around, and so do their differences: exact modulo 2^64.
    np.cumsum(hash64(values), out=totals[1:])
    return hash64(totals[offsets[1:]] - totals[offsets[:-1]])
