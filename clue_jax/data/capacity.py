"""How large a group's static buffers must be for any users it may be dealt.

Users are swept in parts, so that what this takes grows with a batch and never with the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


def capacity_for(
    users: UserTable,
    config: EncoderConfig,
    batch: int,
    views: int,
    *,
    rows: np.ndarray | None = None,
    parts: bool = False,
) -> Capacity:
    """Buffer sizes for any `batch` users of `users` in one group of devices.

    The bounds are sums over the `batch` heaviest users, and no more than all distinct items there
    are, so nothing can overflow.

    Args:
        users: holds every user that may be drawn.
        config: caps on items and histories, sizes of chunks.
        batch: b, users of one group.
        views: V.
        rows: ascending indices of those who may be drawn; None: all.
        parts: whether views repeat each history once more (within-service pairs).
    """
    found = _extremes(_outlines(users, rows), config, batch)
    catalogue, catalogue_tokens = _catalogue(
        _outlines(users, rows), config.max_item_tokens, found.distinct, found.tokens
    )
    items = min(found.distinct, catalogue)
    tokens = min(found.tokens, items * found.longest, catalogue_tokens)
    behaviours = found.behaviours * (2 if parts else 1)
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


def _outlines(users: UserTable, rows: np.ndarray | None) -> Iterator[Outline]:
    for part in users.outlines():
        if rows is None:
            yield part
        else:
            first, last = part.rows[0], part.rows[-1]
            begin, end = np.searchsorted(rows, [first, last + 1])
            yield part.take(rows[begin:end] - first)


@dataclass(frozen=True)
class _Extremes:
    distinct: int  # items of the heaviest users of a batch
    tokens: int  # of theirs
    behaviours: int
    longest: int  # item, in tokens
    widest: int  # history


def _extremes(outlines: Iterator[Outline], config: EncoderConfig, batch: int) -> _Extremes:
    heaviest = [np.zeros(0, np.int64)] * 3
    longest = widest = 1
    for part in outlines:
        seen = np.minimum(part.counts, config.max_history).sum(axis=1)
        distinct = np.minimum(np.diff(part.item_offsets), seen)
        loads = distinct, part.tokens(config.max_item_tokens), seen
        heaviest = [
            np.sort(np.concatenate([most, load]))[::-1][:batch]
            for most, load in zip(heaviest, loads, strict=True)
        ]
        longest = max(longest, min(int(part.item_lengths.max(initial=1)), config.max_item_tokens))
        widest = max(widest, int(part.counts.max(initial=1)))
    distinct_sum, tokens, behaviours = (int(most.sum()) for most in heaviest)
    return _Extremes(distinct_sum, tokens, behaviours, longest, widest)


def _catalogue(
    outlines: Iterator[Outline], longest: int, enough_items: int, enough_tokens: int
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
