"""Averages and counts of the steps between two rows of metrics, over all processes."""

from __future__ import annotations

import math
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from clue_jax.data.batches import Batch
from clue_jax.training.log import Row


class Meter:
    """Averages over the steps since the last row.

    Args:
        groups: of users, in the whole batch.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.restart()

    def restart(self) -> None:
        self.steps, self.skipped, self.waited = 0, 0, 0.0
        self.sums: dict[str, float] = {}
        self.stats: list[dict[str, int]] = []  # of this host, by step
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def add(self, batch: Batch, waited: float, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """Reads the metrics of a step, which waits until the device has finished it."""
        values = {key: float(value) for key, value in jax.device_get(metrics).items()}
        self.steps += 1
        self.waited += waited
        self.stats.append(batch.stats)
        skipped = bool(values["skipped"])
        self.skipped += skipped
        for key, value in values.items():
            if key != "skipped":
                self.sums[key] = self.sums.get(key, 0.0) + (0.0 if skipped else value)
        return values

    def counts(self) -> dict[str, float]:
        """Sums of the stats over steps and hosts; every process asks at the same step."""
        keys = sorted(self.stats[0])
        own_sK = np.array([[stats[key] for key in keys] for stats in self.stats])
        if jax.process_count() > 1:
            all_hsK = np.asarray(multihost_utils.process_allgather(own_sK))
        else:
            all_hsK = own_sK[None]
        of = {key: all_hsK[:, :, k] for k, key in enumerate(keys)}
        # Hosts that share a group have both counted it.
        once = self.groups * self.steps / of["groups"].sum()
        total = {key: float(once * values.sum(dtype=np.float64)) for key, values in of.items()}
        # A step takes as long as if every group computed what the busiest does.
        busiest_s = of["busiest_slots"].max(axis=0)
        return total | {"busiest_slots": float(self.groups * busiest_s.sum(dtype=np.float64))}

    def row(self, done: int, counts: dict[str, float]) -> Row:
        """Means of the metrics over the steps that were not skipped, and ratios of the counts."""
        counted = self.steps - self.skipped
        means = {key: total / counted if counted else math.nan for key, total in self.sums.items()}
        return {
            "step": done,
            **means,
            "skipped": self.skipped,
            "data_wait": self.waited / self.seconds,
            "fill": counts["tokens"] / max(1, counts["token_slots"]),
            "imbalance": counts["busiest_slots"] / max(1, counts["block_slots"]),
            "truncated": counts["truncated"] / max(1, counts["items"]),
            "tokens_per_second": counts["tokens"] / self.seconds,
            "time": time.time(),
        }
