"""Views of a group's users -> distinct items, packed rows in static buffers.

Logs repeat items, and item texts are short and uneven; a padded [users, behaviours, tokens] tensor
is mostly padding. Here each distinct item of a group's users is stored once, its tokens lie end to
end with others' in rows of `L` slots, and histories are packed the same way over positions in the
item table. Rows are computed in chunks; the buffers hold the worst case, but only the chunks in use
are computed (model/chunked.py), so shapes never change during a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from clue_jax.config import EncoderConfig, SamplingConfig
from clue_jax.data.capacity import Capacity
from clue_jax.data.ragged import distinct, ranges, row_sums
from clue_jax.data.recency import view_weights
from clue_jax.data.records import Users
from clue_jax.data.rows import Placement, place, slots
from clue_jax.data.sampling import Views, block_draws, token_draws, view_keys
from clue_jax.data.tokenizer import GENERIC_GUIDE

Array = Any  # NumPy on the host, jax.Array on devices


class PackedViews(NamedTuple):
    """The views of one group's users in static buffers (leading dimension: chunk).

    Items and views are numbered in the order in which chunks hold them, so that a chunk writes one
    contiguous stretch of its table.
    """

    tokens_CRL: Array  # int32, padding 0
    token_item_CRL: Array  # int32, item within the chunk; `chunk_items` where padding
    item_skips_CU: Array  # uint32, bit l: the item skips block l; one column where none may
    item_span_C2: Array  # first item of the chunk, and their number
    num_item_chunks: Array  # scalar: chunks in use
    history_CRT: Array  # int32, item
    history_view_CRT: Array  # int32, view within the chunk; `chunk_views` where padding
    history_weight_CRT: Array  # float32, in the mean over a view; one slot where all weigh alike
    view_skips_CU: Array  # as item_skips_CU, of views
    view_span_C2: Array  # first view of the chunk, and their number
    num_view_chunks: Array  # scalar
    view_slot_Vb: Array  # number of the view; -1 where a user lacks it
    keys_Kb: Array  # int32: V rows of what is in each view (sampling.view_keys), more of the user


class Draws(NamedTuple):
    """What random choices within items and blocks are keyed by."""

    sampling: SamplingConfig
    seed: int
    step: int
    identities: np.ndarray  # [N] integers that stay with a user, whatever the batch


def pack_views(
    users: Users,
    views: Views,
    capacity: Capacity,
    config: EncoderConfig,
    draws: Draws | None = None,
    half_life_days: float = 0.0,
) -> tuple[PackedViews, dict[str, int]]:
    """Packs one group's views into static buffers.

    Args:
        users: at most b users.
        views: their views.
        capacity: buffer sizes, from `capacity_for` over a superset of these users.
        config: caps, and sizes of chunks.
        draws: keys of token dropout, generic guides and skipped blocks; None: none of them.
        half_life_days: see `recency.view_weights`; 0: all behaviours weigh alike.

    Returns:
        The buffers, and counts: real `tokens`, distinct `items` and those `truncated` to the cap,
        `behaviours`, `views`, pairs that attend to each other, and the slots that are computed,
        `token_slots` and `behaviour_slots`; `dense_tokens` and their pairs are those of an encoder
        that reads every behaviour anew.
    """
    packed = empty_views(capacity, config, skips=_skips(draws), weights=half_life_days > 0)
    identities, where, slot = distinct(users.item_ids[views.items])
    items = views.items[where]
    texts, lengths = _texts(users, items, config, draws)
    placed_items = _lay_items(packed, lengths, texts, config)
    number = np.empty(len(items), np.int64)
    number[placed_items.order] = np.arange(len(items))

    placed_views, owner = _lay_views(packed, views, number[slot], config, half_life_days)
    user, view = owner // views.num_views, owner % views.num_views
    packed.keys_Kb[:, : len(users)] = view_keys(users, views).T
    if draws and _skips(draws):
        in_order = identities[placed_items.order], draws.identities[user], view
        _draw_skips(packed, config, draws, placed_items, placed_views, *in_order)
    truncated = np.diff(users.token_offsets)[items] > config.max_item_tokens
    return packed, {
        **_counts(packed, lengths, np.diff(views.offsets)[owner]),
        "truncated": int(truncated.sum()),
        "dense_tokens": int(lengths[slot].sum()),
        "dense_token_pairs": int(np.square(lengths[slot], dtype=np.int64).sum()),
    }


def pack_items(
    tokens: np.ndarray, lengths: np.ndarray, capacity: Capacity, config: EncoderConfig
) -> tuple[PackedViews, np.ndarray]:
    """Packs items alone, without histories.

    Args:
        tokens: [sum(lengths)] of the items, end to end, no item longer than `max_item_tokens`.
        lengths: [n] of the items.
        capacity: of the buffers; `items` of it is at least n.
        config: sizes of chunks.

    Returns:
        The buffers, and which row of the table of vectors each item has, [n].
    """
    packed = empty_views(capacity, config, skips=False)
    placed = _lay_items(packed, lengths, tokens, config)
    row = np.empty(len(lengths), np.int64)
    row[placed.order] = np.arange(len(lengths))
    return packed, row


def pack_histories(
    users: Users,
    views: Views,
    capacity: Capacity,
    config: EncoderConfig,
    half_life_days: float = 0.0,
) -> tuple[PackedViews, np.ndarray]:
    """Packs histories of items whose vectors are known already.

    Args:
        users: at most b users.
        views: their views.
        capacity: of the buffers.
        config: caps, and sizes of chunks.
        half_life_days: see `recency.view_weights`; 0: all behaviours weigh alike.

    Returns:
        The buffers, and the identities [u] uint64 of the items, in the order of the rows of the
        table of vectors that the histories refer to.
    """
    packed = empty_views(capacity, config, skips=False, weights=half_life_days > 0)
    identities, _, slot = distinct(users.item_ids[views.items])
    _lay_views(packed, views, slot, config, half_life_days)
    return packed, identities


def _lay_items(
    packed: PackedViews, lengths: np.ndarray, texts: np.ndarray, config: EncoderConfig
) -> Placement:
    buffers = packed.token_item_CRL, packed.item_span_C2, packed.num_item_chunks
    return _lay(buffers, lengths, [(packed.tokens_CRL, texts)], config.chunk_items)


def _lay_views(
    packed: PackedViews,
    views: Views,
    numbers: np.ndarray,
    config: EncoderConfig,
    half_life_days: float,
) -> tuple[Placement, np.ndarray]:
    """Lays histories of numbered items; also gives whose they are (user * V + view), as placed."""
    sizes = np.diff(views.offsets)
    owner = np.flatnonzero(sizes)
    values = [(packed.history_CRT, numbers)]
    if half_life_days:
        values.append((packed.history_weight_CRT, view_weights(views, half_life_days)))
    buffers = packed.history_view_CRT, packed.view_span_C2, packed.num_view_chunks
    placed = _lay(buffers, sizes[owner], values, config.chunk_views)
    owner = owner[placed.order]
    packed.view_slot_Vb[owner % views.num_views, owner // views.num_views] = np.arange(len(owner))
    return placed, owner


def _counts(packed: PackedViews, tokens: np.ndarray, behaviours: np.ndarray) -> dict[str, int]:
    """What is in the buffers, from the lengths of items and of views, and what is computed."""
    return {
        "tokens": int(tokens.sum()),
        "token_pairs": int(np.square(tokens).sum()),
        "items": len(tokens),
        "behaviours": int(behaviours.sum()),
        "behaviour_pairs": int(np.square(behaviours).sum()),
        "views": len(behaviours),
        "token_slots": int(packed.num_item_chunks) * packed.tokens_CRL[0].size,
        "behaviour_slots": int(packed.num_view_chunks) * packed.history_CRT[0].size,
    }


def _texts(
    users: Users, items: np.ndarray, config: EncoderConfig, draws: Draws | None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of items, end to end, truncated and drawn; and their lengths."""
    lengths = np.minimum(np.diff(users.token_offsets)[items], config.max_item_tokens)
    texts = users.tokens[ranges(users.token_offsets[items], lengths)]
    if draws is None:
        return texts, lengths
    kept, generic = token_draws(
        users.item_ids[items], lengths, draws.sampling, draws.seed, draws.step
    )
    texts[(np.cumsum(lengths) - lengths)[generic]] = GENERIC_GUIDE
    return texts[kept], row_sums(kept, lengths)


def _lay(
    buffers: tuple[np.ndarray, np.ndarray, np.ndarray],
    lengths: np.ndarray,
    values: Sequence[tuple[np.ndarray, np.ndarray]],
    chunk_segments: int,
) -> Placement:
    """Lays segments into the chunks of one level.

    Args:
        buffers: whose slots are, owner_CRL, span_C2 and the number of chunks.
        lengths: [n] of the segments.
        values: buffers_CRL, and what is laid into each, [sum(lengths)], end to end.
        chunk_segments: segments of one chunk at most.
    """
    owner_CRL, span_C2, num_chunks = buffers
    _, rows, row = owner_CRL.shape
    placed = place(lengths, row, rows, chunk_segments)
    where = slots(placed, lengths, row, rows)
    in_order = lengths[placed.order]
    source = ranges((np.cumsum(lengths) - lengths)[placed.order], in_order)
    for buffer_CRL, flat in values:
        buffer_CRL.reshape(-1)[where] = flat[source]
    owner_CRL.reshape(-1)[where] = np.repeat(placed.within, in_order)
    span_C2[: len(placed.spans)] = placed.spans
    span_C2[len(placed.spans) :, 0] = len(lengths)  # a chunk not in use fills nothing, at the end
    num_chunks[...] = len(placed.spans)
    return placed


def _skips(draws: Draws | None) -> bool:
    return draws is not None and draws.sampling.layer_dropout > 0


def _draw_skips(
    packed: PackedViews,
    config: EncoderConfig,
    draws: Draws,
    placed_items: Placement,
    placed_views: Placement,
    item: np.ndarray,
    user: np.ndarray,
    view: np.ndarray,
) -> None:
    """Draws the blocks that items and views (identities in placed order) skip."""
    keys = draws.sampling, draws.seed, draws.step
    for skips_CU, placed, stack, identity in (
        (packed.item_skips_CU, placed_items, config.item, (item,)),
        (packed.view_skips_CU, placed_views, config.service, (user, view)),
    ):
        bits = block_draws(*keys, stack.num_layers, *identity)
        skips_CU[placed.chunk, placed.within] = bits


def empty_views(
    capacity: Capacity, config: EncoderConfig, *, skips: bool, weights: bool = False
) -> PackedViews:
    """Buffers of no users; with room for the blocks that items and views leave out, and for the
    weights of behaviours, only where there are any."""

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int32)

    def bits(chunks: int, segments: int) -> np.ndarray:
        # Never empty: compiling sharded arrays without elements kills jaxlib 0.11.2 on CPUs.
        return np.zeros((chunks, segments if skips else 1), np.uint32)

    item_shape = capacity.item_chunks, config.item_rows, config.row_tokens
    view_shape = capacity.view_chunks, config.history_rows, config.row_behaviours
    return PackedViews(
        tokens_CRL=zeros(*item_shape),
        token_item_CRL=np.full(item_shape, config.chunk_items, np.int32),
        item_skips_CU=bits(capacity.item_chunks, config.chunk_items),
        item_span_C2=zeros(capacity.item_chunks, 2),
        num_item_chunks=zeros(),
        history_CRT=zeros(*view_shape),
        history_view_CRT=np.full(view_shape, config.chunk_views, np.int32),
        history_weight_CRT=np.ones(view_shape if weights else (view_shape[0], 1, 1), np.float32),
        view_skips_CU=bits(capacity.view_chunks, config.chunk_views),
        view_span_C2=zeros(capacity.view_chunks, 2),
        num_view_chunks=zeros(),
        view_slot_Vb=np.full((capacity.views, capacity.users), -1, np.int32),
        keys_Kb=zeros(capacity.views, capacity.users),
    )
