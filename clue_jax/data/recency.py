"""Weights of behaviours that halve with every half-life into the past.

In a mean only the differences between ages count, so the newest behaviour weighs one.
"""

from __future__ import annotations

import numpy as np

from clue_jax.data.records import Users
from clue_jax.data.sampling import Views
from clue_jax.data.timestamps import DAY_SECONDS


def view_weights(views: Views, half_life_days: float) -> np.ndarray:
    """Of the behaviours of views, [M] float32, counted from the newest of each view."""
    sizes = np.diff(views.offsets)
    newest_M = np.repeat(views.times[views.offsets[1:][sizes > 0] - 1], sizes[sizes > 0])
    return halved(newest_M - views.times, half_life_days).astype(np.float32)


def user_weights(users: Users, half_life_days: float) -> np.ndarray:
    """Of the behaviours of users, [M], counted from a user's newest one on any service."""
    owner_M = users.owners()
    newest_N = np.zeros(len(users), np.int64)
    np.maximum.at(newest_N, owner_M, users.behaviour_times)
    return halved(newest_N[owner_M] - users.behaviour_times, half_life_days)


def service_weights(users: Users, half_life_days: float) -> np.ndarray:
    """Of the services of users, [N, S]: the sums of `user_weights`."""
    counts_NS = users.counts()
    row_M = np.repeat(np.arange(counts_NS.size), counts_NS.ravel())
    weight_M = user_weights(users, half_life_days)
    total = np.bincount(row_M, weights=weight_M, minlength=counts_NS.size)
    return total.reshape(counts_NS.shape)


def halved(seconds_M: np.ndarray, half_life_days: float) -> np.ndarray:
    """Weights of behaviours of these ages."""
    return np.exp2(-(seconds_M / (half_life_days * DAY_SECONDS)))
