"""What is known of a state without moving it: its bits, and whether they are finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def fingerprint(tree: Tree) -> dict[str, str]:
    """A 64-bit sum of every leaf's bits, weighted by position: equal however leaves are sharded."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    words = jax.device_get(_fingerprints([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): f"{int(high):08x}{int(low):08x}"
        for (path, _), (high, low) in zip(leaves, words, strict=True)
    }


def summary(fingerprints: dict[str, str]) -> str:
    """One word for all leaves, independent of their order."""
    total = 0
    for path, word in sorted(fingerprints.items()):
        for byte in path.encode() + bytes.fromhex(word):
            total = ((total ^ byte) * 0x100000001B3) % (1 << 64)  # FNV-1a
    return f"{total:016x}"


@jax.jit
def _fingerprints(leaves: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [words_of(leaf) for leaf in leaves]


def not_finite(tree: Tree) -> str:
    """The path of a leaf that is not finite; empty: all are."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    finite = jax.device_get(_all_finite([leaf for _, leaf in leaves]))
    broken = (path for (path, _), good in zip(leaves, finite, strict=True) if not good)
    return next(map(jax.tree_util.keystr, broken), "")


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]


def words_of(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two sums of a leaf's bits, weighted by position."""
    return _weighted(leaf, 0x9E3779B1), _weighted(leaf, 0x85EBCA77)


def _weighted(leaf: jax.Array, factor: int) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
    flat = bits.reshape(-1)
    place = jax.lax.iota(jnp.uint32, flat.size) * jnp.uint32(factor) + jnp.uint32(1)
    # Wrapping sums commute, so any sharding and any order give the same word.
    return jnp.sum((flat ^ (flat >> 15)) * jnp.uint32(factor) * (place | 1), dtype=jnp.uint32)


_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
