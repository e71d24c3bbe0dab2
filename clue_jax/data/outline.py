"""How much there is of each user, without what it is: all that planning batches needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.data.ragged import offsets_of, rows_at

CHUNK_USERS = 4_096  # of one outline: tens of MB at most, whatever the dataset


@dataclass(frozen=True)
class Outline:
    """Sizes of `N` users, some of a table's.

    Attributes:
        rows: [N] their indices in the table.
        services: S names.
        counts: [N, S] behaviours.
        item_ids: [I] uint64, distinct per user, users end to end.
        item_offsets: [N + 1] into `item_ids`, from 0.
        item_lengths: [I] tokens of each item.
    """

    rows: np.ndarray
    services: tuple[str, ...]
    counts: np.ndarray
    item_ids: np.ndarray
    item_offsets: np.ndarray
    item_lengths: np.ndarray

    def take(self, indices: np.ndarray) -> Outline:
        """The users at these positions of `rows`."""
        items, lengths = rows_at(self.item_offsets, indices)
        return Outline(
            rows=self.rows[indices],
            services=self.services,
            counts=self.counts[indices],
            item_ids=self.item_ids[items],
            item_offsets=offsets_of(lengths),
            item_lengths=self.item_lengths[items],
        )

    def tokens(self, most: int) -> np.ndarray:
        """Tokens of each user's items [N], no item having more than `most`."""
        totals = offsets_of(np.minimum(self.item_lengths, most))
        return totals[self.item_offsets[1:]] - totals[self.item_offsets[:-1]]
