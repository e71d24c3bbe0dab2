"""Quantiles of a prepared dataset, from counts of each length: nothing grows with the data."""

from __future__ import annotations

import numpy as np

from clue_jax.data.histories import Histories

_POINTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class Lengths:
    """How often each length occurred."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)

    def add(self, lengths: np.ndarray) -> None:
        """Takes non-negative integers [n]."""
        self._add(np.bincount(lengths).astype(np.int64))

    def merge(self, other: Lengths) -> None:
        self._add(other._counts)

    def _add(self, counts: np.ndarray) -> None:
        short, long = sorted((self._counts, counts), key=len)
        self._counts = long.copy()
        self._counts[: len(short)] += short

    def spread(self) -> dict[str, int]:
        """p50, p90, p99 and maximum: the next higher length where one falls between two."""
        upto = np.cumsum(self._counts)
        ranks = np.ceil((int(upto[-1]) - 1) * np.array(list(_POINTS.values()))).astype(np.int64)
        lengths = np.searchsorted(upto, ranks, side="right")
        return dict(zip(_POINTS, lengths.tolist(), strict=True))


class Tallies:
    """What the manifest says of users, added up over ranges of users."""

    def __init__(self, services: tuple[str, ...]):
        self.services = services
        self.split_behaviours = np.zeros((3, len(services)), np.int64)
        self.dropped: dict[str, int] = {}
        self.repeats = 0
        self._behaviours = [Lengths() for _ in services]

    def add(self, histories: Histories) -> None:
        counts = np.diff(histories.behaviour_offsets).reshape(-1, len(self.services))
        for service, column in zip(self._behaviours, counts.T, strict=True):
            service.add(column[column > 0])
        cuts = np.cumsum(histories.split_counts)[:-1]
        parts = np.split(counts, cuts)
        self.split_behaviours += np.stack([part.sum(axis=0) for part in parts])
        for rule, number in histories.dropped.items():
            self.dropped[rule] = self.dropped.get(rule, 0) + number
        self.repeats += histories.repeats

    def merge(self, other: Tallies) -> None:
        """Takes those of another range of users."""
        for mine, theirs in zip(self._behaviours, other._behaviours, strict=True):
            mine.merge(theirs)
        self.split_behaviours += other.split_behaviours
        for rule, number in other.dropped.items():
            self.dropped[rule] = self.dropped.get(rule, 0) + number
        self.repeats += other.repeats

    def quantiles(self) -> dict[str, dict[str, int]]:
        """Behaviours of the users of each service."""
        spreads = (lengths.spread() for lengths in self._behaviours)
        return dict(zip(self.services, spreads, strict=True))
