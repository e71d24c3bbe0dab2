"""Vectors of services -> one vector per user."""

from __future__ import annotations

import numpy as np

from clue_jax.data.records import Users
from clue_jax.data.timestamps import DAY_SECONDS


def combine(z_NSE: np.ndarray, weight_NS: np.ndarray) -> np.ndarray:
    """One vector per user: the mean of its services' embeddings, scaled to length one.

    Args:
        z_NSE: unit vectors.
        weight_NS: in the mean; or bool, which services a user has.
    """
    total_NE = (z_NSE * weight_NS[:, :, None]).sum(axis=1)
    return total_NE / np.maximum(np.linalg.norm(total_NE, axis=1, keepdims=True), 1e-12)


def narrowed(z_NSE: np.ndarray, width: int) -> np.ndarray:
    """The first `width` dimensions of vectors, scaled to length one again; zeros stay."""
    if width == z_NSE.shape[-1]:
        return z_NSE
    first_NSE = z_NSE[..., :width]
    return first_NSE / np.maximum(np.linalg.norm(first_NSE, axis=-1, keepdims=True), 1e-12)


def recency(users: Users, half_life_days: float) -> np.ndarray:
    """How much of each service is recent, [N, S]: a behaviour halves with every half-life.

    Ages are counted from a user's newest behaviour on any service, which weighs one.
    """
    owner_M = users.owners()
    newest_N = np.zeros(len(users), np.int64)
    np.maximum.at(newest_N, owner_M, users.behaviour_times)
    lives_M = (newest_N[owner_M] - users.behaviour_times) / (half_life_days * DAY_SECONDS)
    counts_NS = users.counts()
    row_M = np.repeat(np.arange(counts_NS.size), counts_NS.ravel())
    mass = np.bincount(row_M, weights=np.exp2(-lives_M), minlength=counts_NS.size)
    return mass.reshape(counts_NS.shape)
