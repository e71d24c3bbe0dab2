"""Packed buffers hold exactly the views they were made from, within bounds that always suffice."""

import dataclasses
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from clue_jax.config import EncoderConfig, SamplingConfig
from clue_jax.data.capacity import capacity_for
from clue_jax.data.packing import Draws, pack_views
from clue_jax.data.pairs import num_views
from clue_jax.data.sampling import block_draws, full_views, token_draws, training_views, view_keys
from clue_jax.data.tokenizer import GENERIC_GUIDE
from tests.samples import sample_users

USERS = sample_users(40, seed=2)
# Small chunks: a batch needs several of each kind.
SMALL = EncoderConfig(
    max_item_tokens=6,
    max_history=5,
    row_tokens=12,
    item_rows=2,
    row_behaviours=8,
    history_rows=2,
)
WITHIN = SamplingConfig(within_service_weight=0.5, behaviours_kept=0.8)


def unpack(packed, users, *, skips=False):
    """Views as lists of token tuples, [user][view], read the way the encoder reads buffers.

    Args:
        packed: of one device.
        users: those it was made from.
        skips: whether each item becomes (tokens, bits) and each view (bits, items), with the bits
            of the blocks that they skip.
    """
    items = _segments(
        packed.tokens_CRL, packed.token_item_CRL, packed.item_span_C2, packed.num_item_chunks
    )
    views = _segments(
        packed.history_CRT, packed.history_view_CRT, packed.view_span_C2, packed.num_view_chunks
    )
    if skips:
        item_bits = _bits(packed.item_skips_CU, packed.item_span_C2, packed.num_item_chunks)
        items = list(zip(items, item_bits, strict=True))
    histories = [[items[item] for item in view] for view in views]
    if skips:
        view_bits = _bits(packed.view_skips_CU, packed.view_span_C2, packed.num_view_chunks)
        histories = list(zip(view_bits, histories, strict=True))
    slots = packed.view_slot_Vb.T[: len(users)]
    assert sorted(slots[slots >= 0].tolist()) == list(range(len(histories)))
    return [[histories[slot] if slot >= 0 else [] for slot in row] for row in slots.tolist()]


def _segments(values_CRL, owner_CRL, span_C2, chunks):
    """Values of each segment of the chunks in use, in the order in which they hold them."""
    segments = []
    for chunk in range(chunks):
        start, count = span_C2[chunk]
        assert start == len(segments)
        for owner in range(count):
            rows, columns = np.nonzero(owner_CRL[chunk] == owner)
            assert len(set(rows.tolist())) == 1 and (np.diff(columns) == 1).all()
            segments.append(tuple(values_CRL[chunk][rows, columns].tolist()))
    return segments


def _bits(skips_CU, span_C2, chunks):
    return [bits for c in range(chunks) for bits in skips_CU[c, : span_C2[c, 1]].tolist()]


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
@pytest.mark.parametrize("rows", [1, 2, 64])
def test_buffers_hold_the_views(sampling, rows):
    config = dataclasses.replace(SMALL, item_rows=rows, history_rows=rows)
    views, packed, _ = pack(USERS, config, sampling)
    several = packed.num_item_chunks > 2 and packed.num_view_chunks > 2
    assert several == (rows < 64)
    assert unpack(packed, USERS) == expected(USERS, views, config)


@given(st.lists(st.integers(0, 39), min_size=1, max_size=12, unique=True), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_capacity_for_all_users_suffices_for_any_of_them(chosen, step):
    capacity = capacity_for(USERS, SMALL, 12, num_views(2, WITHIN), parts=True)
    users = USERS.take(chosen)
    views = training_views(users, np.array(chosen), WITHIN, SMALL.max_history, 0, step)
    packed, _ = pack_views(users, views, capacity, SMALL)
    assert unpack(packed, users) == expected(users, views, SMALL)


def test_shapes_do_not_depend_on_the_batch():
    capacity = capacity_for(USERS, SMALL, 10, 6, parts=True)
    few, many = (pack(USERS.take(range(n)), capacity=capacity)[1] for n in (1, 10))
    assert [a.shape for a in few] == [a.shape for a in many]
    types = {name: array.dtype for name, array in many._asdict().items()}
    assert types.pop("item_skips_CU") == types.pop("view_skips_CU") == np.uint32
    assert types.pop("history_weight_CRT") == np.float32
    assert set(types.values()) == {np.dtype(np.int32)}


def test_an_item_is_stored_once_for_all_users():
    views, packed, stats = pack(USERS)
    assert stats["items"] == len(np.unique(USERS.item_ids[views.items])) < len(views.items)
    assert stats["items"] == packed.item_span_C2[:, 1].sum()


def test_counts_add_up():
    views, packed, stats = pack(USERS)
    assert stats["behaviours"] == len(views.items)
    lengths = np.minimum(np.diff(USERS.token_offsets), SMALL.max_item_tokens)[views.items]
    assert stats["dense_tokens"] == lengths.sum() > stats["tokens"]
    assert stats["dense_token_pairs"] == np.square(lengths).sum() > stats["token_pairs"]
    assert stats["views"] == (packed.view_slot_Vb >= 0).sum()
    assert stats["tokens"] == (packed.token_item_CRL < SMALL.chunk_items).sum()
    assert stats["token_slots"] == packed.num_item_chunks * 2 * 12
    assert stats["behaviour_slots"] == packed.num_view_chunks * 2 * 8
    assert stats["behaviour_pairs"] == np.square(np.diff(views.offsets)).sum()
    assert stats["tokens"] <= stats["token_pairs"] <= stats["tokens"] * SMALL.max_item_tokens


def test_longer_items_are_cut_and_counted_once_each():
    views, packed, stats = pack(USERS)
    items = np.unique(USERS.item_ids[views.items], return_index=True)[1]
    lengths = np.diff(USERS.token_offsets)[views.items[items]]
    longer = lengths > SMALL.max_item_tokens
    assert stats["truncated"] == longer.sum() and 0 < longer.sum() < len(items)
    longest = max(len(item) for row in unpack(packed, USERS) for view in row for item in view)
    assert longest == SMALL.max_item_tokens
    whole = dataclasses.replace(SMALL, max_item_tokens=int(lengths.max()))
    assert pack(USERS, whole)[2]["truncated"] == 0


def test_draws_drop_tokens_and_replace_guides():
    sampling = dataclasses.replace(WITHIN, token_dropout=0.5, generic_guide=0.5)
    views, packed, stats = pack(USERS, SMALL, sampling, draws=Draws(sampling, 0, 1, np.arange(40)))
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
    found = unpack(packed, USERS)
    wanted = iter(views.items)
    assert found == [[[texts[next(wanted)] for _ in view] for view in row] for row in found]
    assert stats["tokens"] < pack(USERS)[2]["tokens"]


def test_skipped_blocks_stay_with_items_and_with_views_of_users():
    sampling = dataclasses.replace(WITHIN, layer_dropout=0.5)
    identities = 11 * np.arange(40) + 5
    drawn = partial(block_draws, sampling, 0, 1, 4)
    views, packed, _ = pack(USERS, sampling=sampling, draws=Draws(sampling, 0, 1, identities))
    of_item = dict(zip(views.items, drawn(USERS.item_ids[views.items]), strict=True))
    wanted = iter(views.items)
    for user, row in enumerate(unpack(packed, USERS, skips=True)):
        for number, view in enumerate(row):
            if not view:
                continue
            bits, items = view
            assert bits == drawn(identities[[user]], np.array([number]))[0]
            assert [bits for _, bits in items] == [of_item[next(wanted)] for _ in items]
    assert next(wanted, None) is None


def test_keys_of_views_stand_beside_their_slots():
    views, packed, _ = pack(USERS)
    np.testing.assert_array_equal(packed.keys_Kb.T, view_keys(USERS, views))
    few = np.array([30, 2, 17])
    drawn = training_views(USERS.take(few), few, WITHIN, SMALL.max_history, 0, 1)
    capacity = capacity_for(USERS, SMALL, 5, 6, parts=True)
    again, _ = pack_views(USERS.take(few), drawn, capacity, SMALL)
    np.testing.assert_array_equal(again.keys_Kb[:, :3], packed.keys_Kb[:, few])
    assert (again.view_slot_Vb[:, 3:] == -1).all()  # so that their keys do not count


def test_users_without_behaviours_take_no_slot():
    users = sample_users(5, seed=0, empty=1.0)
    views = full_views(users, 5)
    packed, stats = pack_views(users, views, capacity_for(users, SMALL, 5, 2), SMALL)
    assert (packed.view_slot_Vb == -1).all() and stats["tokens"] == stats["views"] == 0
    assert packed.num_item_chunks == packed.num_view_chunks == 0


@given(
    st.integers(1, 12),
    st.sampled_from([(12, 2), (7, 1), (40, 3)]),
    st.sampled_from([(8, 2), (5, 1), (30, 4)]),
    st.integers(0, 20),
)
@settings(deadline=None, max_examples=30)
def test_the_heaviest_users_fit_whatever_the_rows(batch, item_rows, view_rows, seed):
    """All users at once in the buffers that are made for as many: no slack but the bounds'."""
    users = sample_users(batch, seed=seed, catalogue=200, longest_item=6, longest_history=5)
    config = dataclasses.replace(
        SMALL,
        row_tokens=item_rows[0],
        item_rows=item_rows[1],
        row_behaviours=view_rows[0],
        history_rows=view_rows[1],
    )
    views, packed, _ = pack(users, config)
    assert unpack(packed, users) == expected(users, views, config)
