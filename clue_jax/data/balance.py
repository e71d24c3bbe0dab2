"""Which device gets which users of a global batch, so that none waits for a busier one.

A step ends with its slowest device. What a user costs is known before any view is drawn: the
tokens of its items and its behaviours, each through the blocks of its level. Items that users of a
device share cost less than this says, evenly so.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

import numpy as np

from clue_jax.config import EncoderConfig
from clue_jax.data.outline import Outline


def user_loads(users: Outline, config: EncoderConfig) -> np.ndarray:
    """Expected slots x blocks of each user [N], float64."""
    seen = np.minimum(users.counts, config.max_history).sum(axis=1)
    # Of a history beyond the cap only the newest items are encoded.
    share = seen / np.maximum(users.counts.sum(axis=1), 1)
    return block_work(config, users.tokens(config.max_item_tokens) * share, seen)


def block_work(config: EncoderConfig, tokens: Any, behaviours: Any) -> Any:
    """Slots x blocks of both levels; pooling counts as a block, so that a bag costs something."""
    return tokens * (config.item.num_layers + 1.0) + behaviours * (config.service.num_layers + 1.0)


def block_slots(counts: Mapping[str, int], config: EncoderConfig) -> int:
    """Computed slots x blocks, from the counts of `pack_views`."""
    return int(block_work(config, counts["token_slots"], counts["behaviour_slots"]))


def deal(loads: np.ndarray, devices: int) -> np.ndarray:
    """Deals users to devices, as many to each, with sums of loads as equal as a greedy deal gets.

    From the heaviest user down, each goes to the device with the least so far that has room
    (longest processing time first: Graham, "Bounds on multiprocessing timing anomalies", 1969).

    Args:
        loads: [B], B a multiple of `devices`.
        devices: P.

    Returns:
        [P, B / P] positions in `loads`, ascending on each device.
    """
    if devices == 1:
        return np.arange(len(loads))[None]
    room = len(loads) // devices
    shares: list[list[int]] = [[] for _ in range(devices)]
    lightest = [(0.0, device) for device in range(devices)]  # a heap: it is in order
    for user in np.argsort(-loads, kind="stable").tolist():
        total, device = heapq.heappop(lightest)
        shares[device].append(user)
        if len(shares[device]) < room:
            heapq.heappush(lightest, (total + float(loads[user]), device))
    return np.sort(np.array(shares, np.int64), axis=1)
