"""Views of one device's users -> groups, distinct items, packed rows in static buffers.

Logs repeat items, and item texts are short and uneven; a padded [users, behaviours, tokens] tensor
is mostly padding. Here users are taken in groups, each distinct item of a group is stored once, its
tokens lie end to end with others' in rows of `L` slots, and histories are packed the same way over
positions in the group's item table. Rows are computed in chunks; the buffers hold the worst case,
but only the chunks in use are computed (model/chunked.py), so shapes never change during a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clue_jax.config import EncoderConfig, SamplingConfig
from clue_jax.data.ragged import ranges
from clue_jax.data.records import Users
from clue_jax.data.rows import Placement, most_rows, place, slots
from clue_jax.data.sampling import Views, token_draws
from clue_jax.data.tokenizer import GENERIC_GUIDE
from clue_jax.errors import ConfigError

Array = Any  # NumPy on the host, jax.Array on devices


class PackedViews(NamedTuple):
    """The views of one device's users in static buffers (leading dimension: chunk or group).

    Items are numbered within their group and views within the device, in the order in which chunks
    hold them, so that a chunk writes one contiguous stretch of the table.
    """

    tokens_CRL: Array  # int32, padding 0
    token_item_CRL: Array  # int32, item within the chunk; `chunk_items` where padding
    item_span_C2: Array  # first item of the chunk within its group, and their number
    history_CRT: Array  # int32, item within the group
    history_view_CRT: Array  # int32, view within the chunk; `chunk_views` where padding
    view_span_C2: Array  # first view of the chunk within its group, and their number
    group_item_chunks_G2: Array  # first item chunk of each group, and one past the last
    group_history_chunks_G2: Array
    group_view_span_G2: Array  # first view of the group within the device, and their number
    num_groups: Array  # scalar
    view_slot_Vb: Array  # where the device's table holds a view; -1 where a user lacks it


@dataclass(frozen=True)
class Capacity:
    """Sizes of the static buffers: enough for any `users` users of the data they were made for."""

    users: int  # b
    views: int  # V
    groups: int
    item_chunks: int
    history_chunks: int


def capacity_for(
    users: Users, config: EncoderConfig, batch: int, views: int, *, parts: bool = False
) -> Capacity:
    """Buffer sizes for any `batch` users of `users` on one device.

    The bounds are sums over the `batch` heaviest users, so nothing can overflow.

    Args:
        users: every user that may be drawn.
        config: caps on items and histories, sizes of groups and chunks.
        batch: b, users on one device.
        views: V.
        parts: whether views repeat each history once more (within-service pairs).

    Raises:
        ConfigError: a single user may exceed a group.
    """
    counts = users.counts()
    behaviours = np.minimum(counts, config.max_history).sum(axis=1) * (2 if parts else 1)
    distinct = np.minimum(
        np.diff(users.item_offsets), np.minimum(counts, config.max_history).sum(axis=1)
    )
    lengths = np.minimum(np.diff(users.token_offsets), config.max_item_tokens)
    longest = int(lengths.max(initial=1))
    widest = min(config.max_history, int(counts.max(initial=1)))
    if (
        distinct.max(initial=0) > config.max_items
        or behaviours.max(initial=0) > config.max_behaviours
    ):
        raise ConfigError(
            f"config.encoder.max_items: {config.max_items} is less than the"
            f" {distinct.max(initial=0)} distinct items one user may bring; raise it, or lower"
            f" config.encoder.max_history ({config.max_history})"
        )
    items = _heaviest(distinct, batch)
    tokens = min(_heaviest(_token_sums(users, lengths), batch), items * longest)
    histories = _heaviest(behaviours, batch)
    # Two neighbouring groups together exceed a limit, or they would have been one.
    crowds = items // config.max_items + histories // config.max_behaviours
    groups = min(batch, 1 + 2 * crowds)
    item_rows = most_rows(tokens, longest, config.row_tokens, groups)
    history_rows = most_rows(histories, widest, config.row_behaviours, groups)
    return Capacity(
        users=batch,
        views=views,
        groups=groups,
        item_chunks=item_rows // config.item_rows + 2 * items // config.chunk_items + 2 * groups,
        history_chunks=history_rows // config.history_rows
        + 2 * min(histories, batch * views) // config.chunk_views
        + 2 * groups,
    )


def _heaviest(loads: np.ndarray, count: int) -> int:
    return int(np.sort(loads)[::-1][:count].sum())


def _token_sums(users: Users, lengths: np.ndarray) -> np.ndarray:
    totals = np.concatenate([[0], np.cumsum(lengths)])
    return totals[users.item_offsets[1:]] - totals[users.item_offsets[:-1]]


def pack_views(
    users: Users,
    views: Views,
    capacity: Capacity,
    config: EncoderConfig,
    draws: tuple[SamplingConfig, int, int] | None = None,
) -> tuple[PackedViews, dict[str, int]]:
    """Packs one device's views into static buffers.

    Args:
        users: at most b users.
        views: their views.
        capacity: buffer sizes, from `capacity_for` over a superset of these users.
        config: caps, and sizes of groups and chunks.
        draws: (sampling, seed, step) for token dropout and generic guides; None: none.

    Returns:
        The buffers, and counts: real `tokens`, distinct `items`, `behaviours`, `views`, pairs that
        attend to each other, and the slots that are computed, `token_slots` and `behaviour_slots`.
    """
    packed = _empty(capacity, config)
    item_chunks = history_chunks = group_view = 0
    stats = dict.fromkeys(("tokens", "token_pairs", "items"), 0)
    for group, (first, last) in enumerate(_groups(users, views, config)):
        entries = slice(*views.offsets[[first * views.num_views, last * views.num_views]])
        _, where, slot = np.unique(
            users.item_ids[views.items[entries]], return_index=True, return_inverse=True
        )
        texts, lengths = _texts(users, views.items[entries][where], config, draws)
        placed_items, rank = _pack_items(packed, config, texts, lengths, item_chunks)
        owners = np.arange(first * views.num_views, last * views.num_views)
        sizes = np.diff(views.offsets[owners[0] : owners[-1] + 2])
        placed_views = _pack_histories(packed, config, rank[slot], sizes, history_chunks)

        owner = owners[np.flatnonzero(sizes)[placed_views.order]]
        slots_in_device = group_view + np.arange(len(owner))
        packed.view_slot_Vb[owner % views.num_views, owner // views.num_views] = slots_in_device
        packed.group_view_span_G2[group] = group_view, len(owner)
        for span, start, placed in (
            (packed.group_item_chunks_G2, item_chunks, placed_items),
            (packed.group_history_chunks_G2, history_chunks, placed_views),
        ):
            span[group] = start, start + len(placed.spans)
        packed.num_groups[...] = group + 1
        item_chunks += len(placed_items.spans)
        history_chunks += len(placed_views.spans)
        group_view += len(owner)
        stats["tokens"] += len(texts)
        stats["token_pairs"] += int(np.square(lengths).sum())
        stats["items"] += len(lengths)
    sizes = np.diff(views.offsets)
    return packed, {
        **stats,
        "behaviours": len(views.items),
        "behaviour_pairs": int(np.square(sizes).sum()),
        "views": int((sizes > 0).sum()),
        "token_slots": item_chunks * config.item_rows * config.row_tokens,
        "behaviour_slots": history_chunks * config.history_rows * config.row_behaviours,
    }


def _groups(users: Users, views: Views, config: EncoderConfig) -> Iterator[tuple[int, int]]:
    """Splits users, in order, into ranges whose distinct items and behaviours fit a group."""
    identities = users.item_ids[views.items]
    order = np.argsort(identities, kind="stable")
    previous = np.full(len(identities), -1)
    same = identities[order][1:] == identities[order][:-1]
    previous[order[1:][same]] = order[:-1][same]
    ends = views.offsets[views.num_views :: views.num_views]
    first, start = 0, 0
    while first < len(ends):
        last = int(np.searchsorted(ends, start + config.max_behaviours, side="right"))
        # An entry is new to the group when its item occurred before the group or never.
        new = np.cumsum(previous[start : ends[last - 1]] < start)
        distinct = np.concatenate([[0], new])[ends[first:last] - start]
        last = first + max(1, int(np.searchsorted(distinct, config.max_items, side="right")))
        yield first, last
        first, start = last, int(ends[last - 1])


def _texts(
    users: Users,
    items: np.ndarray,
    config: EncoderConfig,
    draws: tuple[SamplingConfig, int, int] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of items, end to end, truncated and drawn; and their lengths."""
    lengths = np.minimum(np.diff(users.token_offsets)[items], config.max_item_tokens)
    texts = users.tokens[ranges(users.token_offsets[items], lengths)]
    if draws is None:
        return texts, lengths
    kept, generic = token_draws(users.item_ids[items], lengths, *draws)
    texts[(np.cumsum(lengths) - lengths)[generic]] = GENERIC_GUIDE
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return texts[kept], np.bincount(owner[kept], minlength=len(lengths))


def _pack_items(
    packed: PackedViews, config: EncoderConfig, texts: np.ndarray, lengths: np.ndarray, chunk: int
) -> tuple[Placement, np.ndarray]:
    """Lays items into chunks from `chunk` on; also returns each item's number in the group."""
    placed = place(lengths, config.row_tokens, config.item_rows, config.chunk_items)
    where = slots(placed, lengths, config.row_tokens, config.item_rows)
    in_order = lengths[placed.order]
    source = ranges((np.cumsum(lengths) - lengths)[placed.order], in_order)
    packed.tokens_CRL[chunk:].reshape(-1)[where] = texts[source]
    packed.token_item_CRL[chunk:].reshape(-1)[where] = np.repeat(placed.within, in_order)
    packed.item_span_C2[chunk : chunk + len(placed.spans)] = placed.spans
    rank = np.empty(len(lengths), np.int64)
    rank[placed.order] = np.arange(len(lengths))
    return placed, rank


def _pack_histories(
    packed: PackedViews, config: EncoderConfig, items: np.ndarray, sizes: np.ndarray, chunk: int
) -> Placement:
    """Lays the views that are not empty into chunks from `chunk` on."""
    lengths = sizes[sizes > 0]
    placed = place(lengths, config.row_behaviours, config.history_rows, config.chunk_views)
    where = slots(placed, lengths, config.row_behaviours, config.history_rows)
    in_order = lengths[placed.order]
    source = ranges((np.cumsum(lengths) - lengths)[placed.order], in_order)
    packed.history_CRT[chunk:].reshape(-1)[where] = items[source]
    packed.history_view_CRT[chunk:].reshape(-1)[where] = np.repeat(placed.within, in_order)
    packed.view_span_C2[chunk : chunk + len(placed.spans)] = placed.spans
    return placed


def _empty(capacity: Capacity, config: EncoderConfig) -> PackedViews:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int32)

    item_shape = capacity.item_chunks, config.item_rows, config.row_tokens
    history_shape = capacity.history_chunks, config.history_rows, config.row_behaviours
    return PackedViews(
        tokens_CRL=zeros(*item_shape),
        token_item_CRL=np.full(item_shape, config.chunk_items, np.int32),
        item_span_C2=zeros(capacity.item_chunks, 2),
        history_CRT=zeros(*history_shape),
        history_view_CRT=np.full(history_shape, config.chunk_views, np.int32),
        view_span_C2=zeros(capacity.history_chunks, 2),
        group_item_chunks_G2=zeros(capacity.groups, 2),
        group_history_chunks_G2=zeros(capacity.groups, 2),
        group_view_span_G2=zeros(capacity.groups, 2),
        num_groups=zeros(),
        view_slot_Vb=np.full((capacity.views, capacity.users), -1, np.int32),
    )
