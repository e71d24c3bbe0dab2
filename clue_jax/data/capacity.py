"""How large a group's static buffers must be for any users it may be dealt.

Users are swept in parts, so that what this takes grows with a batch and never with the dataset.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from clue_jax.config import EncoderConfig
from clue_jax.data.outline import Outline
from clue_jax.data.records import UserTable
from clue_jax.data.rows import most_rows


@dataclass(frozen=True)
class Capacity:
    """Sizes of the static buffers: enough for any `users` users of the data they were made for."""

    users: int  # b
    views: int  # V
    items: int  # U: distinct items of a group
    item_chunks: int
    view_chunks: int


@dataclass(frozen=True)
class Extremes:
    """The heaviest of some users.

    Attributes:
        heaviest: distinct items, tokens of theirs, and behaviours, of the users with the most of
            each; descending, as many users as a batch may have.
        longest: item, in tokens.
        widest: history.
    """

    heaviest: tuple[np.ndarray, ...] = (np.zeros(0, np.int64),) * 3
    longest: int = 1
    widest: int = 1

    def merge(self, other: Extremes, batch: int) -> Extremes:
        """Of the users of both; `batch` are all that are wanted."""
        return Extremes(
            tuple(
                np.sort(np.concatenate(both))[::-1][:batch]
                for both in zip(self.heaviest, other.heaviest, strict=True)
            ),
            max(self.longest, other.longest),
            max(self.widest, other.widest),
        )

    def of(self, most: int) -> Extremes:
        """Of so many of the users at most."""
        return replace(self, heaviest=tuple(loads[:most] for loads in self.heaviest))


def extremes(users: Outline, config: EncoderConfig) -> Extremes:
    """Of the users of an outline, all of them."""
    seen = np.minimum(users.counts, config.max_history).sum(axis=1)
    distinct = np.minimum(np.diff(users.item_offsets), seen)
    return Extremes(
        (distinct, users.tokens(config.max_item_tokens), seen),
        max(1, min(int(users.item_lengths.max(initial=1)), config.max_item_tokens)),
        max(1, int(users.counts.max(initial=1))),
    )


def capacity_for(
    users: UserTable, config: EncoderConfig, batch: int, views: int, *, parts: bool = False
) -> Capacity:
    """Buffer sizes for any `batch` users of `users` in one group of devices; see `capacity_of`."""
    found = Extremes()
    for part in users.outlines():
        found = found.merge(extremes(part, config), batch)
    return capacity_of(found, users.outlines(), config, batch, views, parts=parts)


def capacity_of(
    found: Extremes,
    outlines: Iterable[Outline],
    config: EncoderConfig,
    batch: int,
    views: int,
    *,
    parts: bool = False,
) -> Capacity:
    """Buffer sizes for any `batch` users in one group of devices.

    The bounds are sums over the heaviest users, and no more than all distinct items there are, so
    nothing can overflow.

    Args:
        found: of all users who may be drawn.
        outlines: of the same users; swept as far as their items bound anything.
        config: caps on items and histories, sizes of chunks.
        batch: b, users of one group.
        views: V.
        parts: whether views repeat each history once more (within-service pairs).
    """
    distinct, tokens, behaviours = (int(loads[:batch].sum()) for loads in found.heaviest)
    catalogue, catalogue_tokens = _catalogue(outlines, config.max_item_tokens, distinct, tokens)
    items = min(distinct, catalogue)
    tokens = min(tokens, items * found.longest, catalogue_tokens)
    behaviours *= 2 if parts else 1
    return _buffers(found, config, batch, views, items, tokens, behaviours)


def capacity_for_any(
    config: EncoderConfig, batch: int, views: int, behaviours: int = 0
) -> Capacity:
    """Buffer sizes for any `batch` users whatever, within the caps of the config.

    Args:
        config: caps on items and histories, sizes of chunks.
        batch: b, users of one group.
        views: V.
        behaviours: that those users have together at most; 0: as many as the caps allow.
    """
    behaviours = behaviours or batch * views * config.max_history
    longest = Extremes(longest=config.max_item_tokens, widest=config.max_history)
    tokens = behaviours * config.max_item_tokens
    return _buffers(longest, config, batch, views, behaviours, tokens, behaviours)


def capacity_for_items(config: EncoderConfig, items: int, longest: int) -> Capacity:
    """Buffer sizes for any `items` items of at most `longest` tokens, and no histories."""
    longest = min(longest, config.max_item_tokens)
    return _buffers(Extremes(longest=longest), config, 1, 1, items, items * longest, 1)


def _buffers(
    found: Extremes,
    config: EncoderConfig,
    batch: int,
    views: int,
    items: int,
    tokens: int,
    behaviours: int,
) -> Capacity:
    """For so many distinct items, tokens of theirs, and behaviours at most."""
    return Capacity(
        users=batch,
        views=views,
        items=max(1, items),
        item_chunks=_most_chunks(
            most_rows(tokens, found.longest, config.row_tokens),
            config.item_rows,
            items,
            config.chunk_items,
        ),
        view_chunks=_most_chunks(
            most_rows(behaviours, min(config.max_history, found.widest), config.row_behaviours),
            config.history_rows,
            min(behaviours, batch * views),
            config.chunk_views,
        ),
    )


def _most_chunks(rows: int, chunk_rows: int, segments: int, chunk_segments: int) -> int:
    """Every chunk but the last is full of rows, or it and the next row exceed its segments."""
    return rows // chunk_rows + 2 * segments // chunk_segments + 1


def _catalogue(
    outlines: Iterable[Outline], longest: int, enough_items: int, enough_tokens: int
) -> tuple[int, int]:
    """Distinct items and the tokens of each once; no further than both are enough to tell.

    What is remembered is thus bounded by the items of a batch, since every item has a token.
    """
    known, tokens = np.zeros(0, np.uint64), 0
    for part in outlines:
        if len(known) >= enough_items and tokens >= enough_tokens:
            break
        items, first = np.unique(part.item_ids, return_index=True)
        place = np.searchsorted(known, items)
        new = np.ones(len(items), bool)
        inside = place < len(known)
        new[inside] = known[place[inside]] != items[inside]
        if new.any():
            tokens += int(np.minimum(part.item_lengths[first[new]], longest).sum())
            known = np.sort(np.concatenate([known, items[new]]))
    return len(known), tokens
