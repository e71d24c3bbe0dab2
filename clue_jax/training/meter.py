"""Averages and counts of the steps between two rows of metrics, over all processes."""

from __future__ import annotations

import contextlib
import math
import time
import types
from collections.abc import Iterator, Mapping
from typing import Any

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

    def restart(self, since: Mapping[str, Any] = types.MappingProxyType({})) -> None:
        """Begins a row; `since` is what `state` gave of one that another attempt had begun."""
        self.steps: int = since.get("steps", 0)
        self.skipped: int = since.get("skipped", 0)
        self.waited: float = since.get("waited", 0.0)
        self.sums: dict[str, float] = dict(since.get("sums", {}))
        self._counted: dict[str, float] = since.get("counts", {})
        self.stats: list[dict[str, int]] = []  # of this host, by step of this attempt
        self.began = time.perf_counter() - since.get("seconds", 0.0)

    def state(self) -> dict[str, Any]:
        """The row so far as JSON, so that it ends alike in a run that is resumed. A collective."""
        if not self.steps:
            return {}
        return {
            "steps": self.steps,
            "skipped": self.skipped,
            "waited": self.waited,
            "sums": self.sums,
            "counts": self.counts(),
            "seconds": self.seconds,
        }

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out of the row's time what is done within: no step is under way."""
        began = time.perf_counter()
        yield
        self.began += time.perf_counter() - began

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
        if not self.stats:
            return dict(self._counted)
        keys = sorted(self.stats[0])
        own_sK = np.array([[stats[key] for key in keys] for stats in self.stats])
        if jax.process_count() > 1:
            all_hsK = np.asarray(multihost_utils.process_allgather(own_sK))
        else:
            all_hsK = own_sK[None]
        of = {key: all_hsK[:, :, k] for k, key in enumerate(keys)}
        # Hosts that share a group have both counted it.
        once = self.groups * len(self.stats) / of["groups"].sum()
        total = {key: float(once * values.sum(dtype=np.float64)) for key, values in of.items()}
        # A step takes as long as if every group computed what the busiest does.
        busiest_s = of["busiest_slots"].max(axis=0)
        total["busiest_slots"] = float(self.groups * busiest_s.sum(dtype=np.float64))
        return {key: self._counted.get(key, 0.0) + value for key, value in total.items()}

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
