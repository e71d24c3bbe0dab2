"""Who of a dataset may be drawn, and all that planning batches needs to know: one sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clue_jax.config import PretrainConfig
from clue_jax.data.balance import user_loads
from clue_jax.data.capacity import Extremes, extremes
from clue_jax.data.outline import Outline
from clue_jax.data.pairs import ViewPair, view_pairs
from clue_jax.data.records import UserTable

_MEMBER = np.dtype([("row", "<i8"), ("load", "<f8")])


@dataclass(frozen=True)
class Candidates:
    """The users of a dataset who have at least one positive pair; the others are never drawn.

    Attributes:
        users: the whole training split.
        members: [n] of `row`, the index of a user in it, ascending, and `load`, the work it is
            expected to be.
        pairs: (first, second) of each pair of views that somebody has.
        extremes: the heaviest of them.
        items: that users have, each user's counted; all users.
        cut: those of them with more tokens than the encoder reads.
    """

    users: UserTable
    members: np.ndarray
    pairs: frozenset[tuple[int, int]]
    extremes: Extremes
    items: int
    cut: int

    def outlines(self) -> Iterator[Outline]:
        """Sizes of the candidates, some at a time."""
        rows = self.members["row"]
        for part in self.users.outlines():
            first, last = part.rows[0], part.rows[-1]
            begin, end = np.searchsorted(rows, [first, last + 1])
            yield part.take(np.searchsorted(part.rows, rows[begin:end]))


def candidates(
    users: UserTable, services: Sequence[str], config: PretrainConfig, batch: int
) -> Candidates:
    """Sweeps the users of a dataset.

    Args:
        users: the training split.
        services: S names of the run, those of the dataset among them.
        config: of the run.
        batch: users of one group of devices.

    Raises:
        ConfigError: no pair counts.
    """
    pairs = view_pairs(services, config.sampling)
    columns = [services.index(service) for service in users.services]
    having = np.zeros(len(pairs), np.int64)
    found, items, cut = Extremes(), 0, 0
    left = config.sampling.most_users or len(users)

    def members() -> Iterator[np.ndarray]:
        nonlocal having, found, items, cut, left
        for part in users.outlines():
            counts_NS = np.zeros((len(part.rows), len(services)), np.int64)
            counts_NS[:, columns] = part.counts
            has_pair_NP = _pairs_of(counts_NS, pairs, config.sampling.min_behaviours)
            rows = np.flatnonzero(has_pair_NP.any(axis=1))[:left]
            left -= len(rows)
            chosen = part.take(rows)
            having += has_pair_NP[rows].sum(axis=0)
            found = found.merge(extremes(chosen, config.encoder), batch)
            items += len(part.item_lengths)
            cut += int((part.item_lengths > config.encoder.max_item_tokens).sum())
            member = np.empty(len(chosen.rows), _MEMBER)
            member["row"], member["load"] = chosen.rows, user_loads(chosen, config.encoder)
            yield member

    gathered = users.gathered(members(), _MEMBER)
    had = frozenset(pair[:2] for pair, count in zip(pairs, having, strict=True) if count)
    return Candidates(users, gathered, had, found, items, cut)


def _pairs_of(counts_NS: np.ndarray, pairs: Sequence[ViewPair], min_behaviours: int) -> np.ndarray:
    """Whether users have both views of pairs [N, P]; a history of one has no two parts."""
    present = counts_NS >= min_behaviours
    halves = np.repeat(present & (counts_NS >= 2), 2, axis=1)
    has_view_NV = np.concatenate([present, halves], axis=1)
    first, second = np.array([pair[:2] for pair in pairs]).T
    return has_view_NV[:, first] & has_view_NV[:, second]
