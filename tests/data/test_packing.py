"""Packed buffers hold exactly the views they were made from, within bounds that always suffice."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from clue_jax.config import EncoderConfig, SamplingConfig
from clue_jax.data.packing import capacity_for, pack_views
from clue_jax.data.sampling import full_views, num_views, token_draws, training_views
from clue_jax.data.tokenizer import GENERIC_GUIDE
from clue_jax.errors import ConfigError
from tests.samples import sample_users

USERS = sample_users(40, seed=2)
# Small groups and chunks: a batch needs several of each.
SMALL = EncoderConfig(
    max_items=14,
    max_item_tokens=6,
    max_history=5,
    row_tokens=12,
    item_rows=2,
    row_behaviours=8,
    history_rows=2,
)
WITHIN = SamplingConfig(within_service_weight=0.5, behaviours_kept=0.8)


def unpack(packed, config, users):
    """Views as lists of token tuples, [user][view], read the way the encoder reads buffers."""
    histories = {}
    for group in range(int(packed.num_groups)):
        items = _segments(
            packed.tokens_CRL,
            packed.token_item_CRL,
            packed.item_span_C2,
            packed.group_item_chunks_G2[group],
        )
        assert len(items) <= config.max_items
        views = _segments(
            packed.history_CRT,
            packed.history_view_CRT,
            packed.view_span_C2,
            packed.group_history_chunks_G2[group],
        )
        first, count = packed.group_view_span_G2[group]
        assert len(views) == count
        for place, view in enumerate(views):
            histories[first + place] = [items[item] for item in view]
    slots = packed.view_slot_Vb.T[: len(users)]
    assert sorted(slots[slots >= 0].tolist()) == sorted(histories)
    return [[histories[slot] if slot >= 0 else [] for slot in row] for row in slots.tolist()]


def _segments(values_CRL, owner_CRL, span_C2, chunks):
    """Values of each segment of the given chunks, in the order in which the chunks hold them."""
    segments = []
    for chunk in range(*chunks):
        start, count = span_C2[chunk]
        assert start == len(segments)
        for owner in range(count):
            rows, columns = np.nonzero(owner_CRL[chunk] == owner)
            assert len(set(rows.tolist())) == 1 and (np.diff(columns) == 1).all()
            segments.append(tuple(values_CRL[chunk][rows, columns].tolist()))
    return segments


def expected(users, views, config):
    """The same, straight from the users."""
    whole = []
    for n in range(len(users)):
        row = []
        for v in range(views.num_views):
            at = n * views.num_views + v
            items = views.items[views.offsets[at] : views.offsets[at + 1]]
            cuts = [users.token_offsets[[item, item + 1]] for item in items]
            row.append([tuple(users.tokens[a:b][: config.max_item_tokens]) for a, b in cuts])
        whole.append(row)
    return whole


def pack(users, config=SMALL, sampling=WITHIN, draws=None, capacity=None):
    views = training_views(users, np.arange(len(users)), sampling, config.max_history, 0, 1)
    parts = sampling.within_service_weight > 0
    if capacity is None:
        capacity = capacity_for(users, config, len(users), views.num_views, parts=parts)
    return views, *pack_views(users, views, capacity, config, draws)


@pytest.mark.parametrize("sampling", [SamplingConfig(), WITHIN], ids=["services", "parts"])
@pytest.mark.parametrize("max_items", [14, 25, 4_096])
def test_buffers_hold_the_views(sampling, max_items):
    config = dataclasses.replace(SMALL, max_items=max_items)
    views, packed, _ = pack(USERS, config, sampling)
    assert (int(packed.num_groups) > 1) == (max_items < 4_096)
    assert unpack(packed, config, USERS) == expected(USERS, views, config)


@given(st.lists(st.integers(0, 39), min_size=1, max_size=12, unique=True), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_capacity_for_all_users_suffices_for_any_of_them(chosen, step):
    capacity = capacity_for(USERS, SMALL, 12, num_views(2, WITHIN), parts=True)
    users = USERS.take(chosen)
    views = training_views(users, np.array(chosen), WITHIN, SMALL.max_history, 0, step)
    packed, _ = pack_views(users, views, capacity, SMALL)
    assert unpack(packed, SMALL, users) == expected(users, views, SMALL)


def test_shapes_do_not_depend_on_the_batch():
    capacity = capacity_for(USERS, SMALL, 10, 6, parts=True)
    few, many = (pack(USERS.take(range(n)), capacity=capacity)[1] for n in (1, 10))
    assert [a.shape for a in few] == [a.shape for a in many]
    assert all(array.dtype == np.int32 for array in many)


def test_an_item_is_stored_once_in_a_group():
    one_group = dataclasses.replace(SMALL, max_items=4_096)
    views, _, stats = pack(USERS, one_group)
    assert stats["items"] == len(np.unique(USERS.item_ids[views.items]))
    assert stats["items"] < pack(USERS, SMALL)[2]["items"] < len(views.items)


def test_counts_add_up():
    views, packed, stats = pack(USERS)
    assert stats["behaviours"] == len(views.items)
    assert stats["views"] == (packed.view_slot_Vb >= 0).sum()
    assert stats["tokens"] == (packed.token_item_CRL < SMALL.chunk_items).sum()
    assert stats["token_slots"] == int(packed.group_item_chunks_G2.max()) * 2 * 12
    assert stats["behaviour_slots"] == int(packed.group_history_chunks_G2.max()) * 2 * 8
    assert stats["behaviour_pairs"] == np.square(np.diff(views.offsets)).sum()
    assert stats["tokens"] <= stats["token_pairs"] <= stats["tokens"] * SMALL.max_item_tokens


def test_draws_drop_tokens_and_replace_guides():
    sampling = dataclasses.replace(WITHIN, token_dropout=0.5, generic_guide=0.5)
    views, packed, stats = pack(USERS, SMALL, sampling, draws=(sampling, 0, 1))
    items = np.unique(views.items)
    lengths = np.minimum(np.diff(USERS.token_offsets)[items], SMALL.max_item_tokens)
    kept, generic = token_draws(USERS.item_ids[items], lengths, sampling, 0, 1)
    texts = {}
    for item, part, general in zip(
        items, np.split(kept, np.cumsum(lengths)[:-1]), generic, strict=True
    ):
        tokens = USERS.tokens[USERS.token_offsets[item] :][: len(part)][part]
        guide = GENERIC_GUIDE if general else int(tokens[0])
        texts[item] = (guide, *tokens[1:].tolist())
    found = unpack(packed, SMALL, USERS)
    wanted = iter(views.items)
    assert found == [[[texts[next(wanted)] for _ in view] for view in row] for row in found]
    assert stats["tokens"] < pack(USERS)[2]["tokens"]


def test_users_without_behaviours_take_no_slot():
    users = sample_users(5, seed=0, empty=1.0)
    views = full_views(users, 5)
    packed, stats = pack_views(users, views, capacity_for(users, SMALL, 5, 2), SMALL)
    assert (packed.view_slot_Vb == -1).all() and stats["tokens"] == stats["views"] == 0


def test_a_user_too_large_for_a_group_is_refused_by_key():
    config = dataclasses.replace(SMALL, max_items=5)
    with pytest.raises(ConfigError, match="encoder.max_items: 5 is less than"):
        capacity_for(USERS, config, 4, 2)
