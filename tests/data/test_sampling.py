"""Views are pure functions of (seed, step, identity)."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from clue_jax.config import HistorySchedule, Parts, SamplingConfig
from clue_jax.config.training import MAX_LAYERS
from clue_jax.data.sampling import (
    block_draws,
    full_views,
    history_length,
    token_draws,
    training_views,
    view_keys,
)
from tests.samples import sample_users

USERS = sample_users(60, seed=1)
WITHIN = SamplingConfig(within_service_weight=0.5)
WINDOWS = dataclasses.replace(WITHIN, parts=Parts.WINDOWS)
LONGEST = 7  # of the sample's histories


def drawn(config, users=USERS, identities=None, *, length=LONGEST, seed=5, step=3):
    """Views as lists of item identities, by user and view."""
    identities = np.arange(len(users)) if identities is None else identities
    return as_lists(users, training_views(users, identities, config, length, seed, step))


def as_lists(users, views):
    cut = np.split(users.item_ids[views.items], views.offsets[1:-1])
    return [
        [part.tolist() for part in cut[n * views.num_views : (n + 1) * views.num_views]]
        for n in range(len(users))
    ]


def history(users, n, s):
    row = n * len(users.services) + s
    entries = slice(*users.behaviour_offsets[[row, row + 1]])
    return users.item_ids[users.item_offsets[n] + users.behaviour_items[entries]].tolist()


# ---------------------------------------------------------------------------------------- views


def test_a_whole_view_is_the_newest_behaviours_in_order():
    views = drawn(SamplingConfig(), length=4)
    assert views == as_lists(USERS, full_views(USERS, 4))
    for n in range(len(USERS)):
        for s in range(2):
            assert views[n][s] == history(USERS, n, s)[-4:]


@pytest.mark.parametrize("config", [WITHIN, WINDOWS], ids=["random", "windows"])
def test_a_users_views_do_not_depend_on_the_batch(config):
    config = dataclasses.replace(config, behaviours_kept=0.5)
    alone = np.array([7, 31, 4])
    together = drawn(config)
    assert drawn(config, USERS.take(alone), alone) == [together[n] for n in alone]


def test_views_change_with_step_and_seed():
    config = SamplingConfig(behaviours_kept=0.5)
    assert drawn(config) == drawn(config)
    assert drawn(config) != drawn(config, step=4)
    assert drawn(config) != drawn(config, seed=6)


def test_behaviours_are_kept_at_their_rate_and_in_order():
    config = SamplingConfig(behaviours_kept=0.5)
    kept = total = 0
    for step in range(30):
        for n, views in enumerate(drawn(config, step=step)):
            for s in range(2):
                whole = iter(history(USERS, n, s))
                assert all(item in whole for item in views[s])  # a subsequence
                kept, total = kept + len(views[s]), total + USERS.counts()[n, s]
    # A view is never emptied, which adds a little for short histories.
    assert 0.5 < kept / total < 0.6


def test_a_view_is_empty_only_where_the_user_lacks_the_service():
    views = drawn(SamplingConfig(behaviours_kept=0.05))
    for n in range(len(USERS)):
        for s in range(2):
            assert (len(views[n][s]) > 0) == (USERS.counts()[n, s] > 0)


def test_histories_lengthen_linearly_and_then_are_whole():
    config = SamplingConfig(history_schedule=HistorySchedule(start=2, steps=10))
    lengths = [history_length(config, LONGEST, step) for step in range(12)]
    assert lengths == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    assert {history_length(SamplingConfig(), LONGEST, step) for step in range(3)} == {LONGEST}
    assert history_length(config, 2, 0) == history_length(config, 2, 5) == 2


def test_rare_services_of_a_user_take_no_part():
    views = drawn(SamplingConfig(min_behaviours=3))
    for n in range(len(USERS)):
        for s in range(2):
            assert (len(views[n][s]) > 0) == (USERS.counts()[n, s] >= 3)


def test_services_not_named_take_no_part():
    shop = USERS.services.index("shop")
    everything = drawn(WITHIN)
    alone = drawn(dataclasses.replace(WITHIN, services=("shop",)))
    parts = {shop, 2 + 2 * shop, 3 + 2 * shop}
    for n in range(len(USERS)):
        for v, view in enumerate(alone[n]):
            assert view == (everything[n][v] if v in parts else [])
    assert drawn(dataclasses.replace(WITHIN, services=USERS.services)) == everything


def parted(views):
    """Each history that can be parted, and its two parts; the others have none."""
    for n in range(len(USERS)):
        for s in range(2):
            first, second = views[n][2 + 2 * s], views[n][3 + 2 * s]
            whole = history(USERS, n, s)
            if len(whole) < 2:
                assert first == second == []
            else:
                yield whole, first, second


def test_parts_of_a_history_are_disjoint_and_together_all_of_it():
    for whole, first, second in parted(drawn(WITHIN)):
        assert sorted(first + second) == sorted(whole)
        assert abs(len(first) - len(second)) <= 1


def test_windows_part_a_history_in_time_leaving_a_quarter_to_each():
    cuts = Counter()
    for step in range(40):
        for whole, first, second in parted(drawn(WINDOWS, step=step)):
            assert first + second == whole
            assert min(len(first), len(second)) >= max(1, len(whole) // 4)
            cuts[len(whole), len(first)] += 1
    # 7 behaviours: 2 to 5 come first, as often each.
    drawn_cuts = {older: n for (size, older), n in cuts.items() if size == 7}
    assert set(drawn_cuts) == {2, 3, 4, 5}
    expected = sum(drawn_cuts.values()) / 4
    assert all(abs(n - expected) < 5 * np.sqrt(expected) for n in drawn_cuts.values())


def test_windows_are_of_the_newest_behaviours():
    for n, views in enumerate(drawn(WINDOWS, length=4)):
        for s in range(2):
            newest = history(USERS, n, s)[-4:]
            assert views[2 + 2 * s] + views[3 + 2 * s] == (newest if len(newest) > 1 else [])


def test_how_histories_are_parted_leaves_whole_views_alone():
    random, windows = (
        drawn(dataclasses.replace(config, behaviours_kept=0.5)) for config in (WITHIN, WINDOWS)
    )
    assert [row[:2] for row in random] == [row[:2] for row in windows]
    assert [row[2:] for row in random] != [row[2:] for row in windows]


@pytest.mark.parametrize("config", [WITHIN, WINDOWS], ids=["random", "windows"])
def test_parts_are_dealt_anew_at_each_step_and_seed(config):
    parts = [row[2:] for row in drawn(config)]
    assert parts == [row[2:] for row in drawn(config)]
    assert parts != [row[2:] for row in drawn(config, step=4)]
    assert parts != [row[2:] for row in drawn(config, seed=6)]


def test_single_item_steps_show_one_item_and_then_end():
    config = dataclasses.replace(WITHIN, item_steps=4)
    single, whole = drawn(config, step=3), drawn(config, step=4)
    for n in range(len(USERS)):
        assert [len(view) for view in single[n]] == [min(1, len(view)) for view in whole[n]]
    chosen = {drawn(config, step=step)[1][0][0] for step in range(4)}
    assert chosen <= set(history(USERS, 1, 0)) and len(history(USERS, 1, 0)) > 1


# ----------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("item_steps", [0, 4])
def test_views_have_equal_keys_where_they_hold_the_same_items(item_steps):
    users = sample_users(200, seed=3, catalogue=4, longest_history=3)
    config = dataclasses.replace(WITHIN, item_steps=item_steps)
    views = training_views(users, np.arange(200), config, LONGEST, 5, 3)
    keys = view_keys(users, views)
    assert keys.shape == (200, 6) and keys.dtype == np.int32
    contents = [tuple(sorted(view)) for row in as_lists(users, views) for view in row]
    by_content = dict(zip(contents, keys.ravel().tolist(), strict=True))
    assert [by_content[content] for content in contents] == keys.ravel().tolist()
    assert len(set(by_content.values())) == len(by_content) < len(contents) / 4


def test_a_views_key_does_not_depend_on_the_batch():
    config = dataclasses.replace(WINDOWS, behaviours_kept=0.5)
    alone = np.array([7, 31, 4])
    of = lambda users, who: view_keys(users, training_views(users, who, config, LONGEST, 5, 3))  # noqa: E731
    np.testing.assert_array_equal(
        of(USERS.take(alone), alone), of(USERS, np.arange(len(USERS)))[alone]
    )


# --------------------------------------------------------------------------------------- tokens


LENGTHS = np.random.default_rng(0).integers(1, 9, 4_000)
ITEMS = np.arange(4_000, dtype=np.uint64) * 77


def token_lists(config, items=ITEMS, lengths=LENGTHS, step=2):
    kept, generic = token_draws(items, lengths, config, 0, step)
    return [part.tolist() for part in np.split(kept, np.cumsum(lengths)[:-1])], generic.tolist()


def test_token_dropout_spares_the_guide_and_one_more():
    kept, _ = token_lists(SamplingConfig(token_dropout=0.9))
    for part in kept:
        assert part[0] and sum(part) >= min(2, len(part))
    assert all(all(part) for part in token_lists(SamplingConfig())[0])


def test_tokens_and_guides_are_dropped_at_their_rate():
    kept, generic = token_lists(SamplingConfig(token_dropout=0.3, generic_guide=0.1))
    longer = np.concatenate([part[1:] for part in kept if len(part) > 5])
    assert np.mean(longer) == pytest.approx(0.7, abs=0.03)
    assert np.mean(generic) == pytest.approx(0.1, abs=0.02)


def test_an_items_draws_depend_on_its_identity_not_its_place():
    config = SamplingConfig(token_dropout=0.5, generic_guide=0.5)
    some = np.array([900, 3, 77])
    all_kept, all_generic = token_lists(config)
    kept, generic = token_lists(config, ITEMS[some], LENGTHS[some])
    assert kept == [all_kept[n] for n in some] and generic == [all_generic[n] for n in some]
    assert token_lists(config, step=3)[0] != all_kept


# --------------------------------------------------------------------------------------- blocks


def skipped(rate=0.3, seed=0, step=2, layers=6, identity=(ITEMS,)):
    """[U, layers] bool."""
    bits = block_draws(SamplingConfig(layer_dropout=rate), seed, step, layers, *identity)
    assert bits.dtype == np.uint32 and (bits >> np.uint32(layers) == 0).all()
    return (bits[:, None] >> np.arange(layers, dtype=np.uint32)) & 1 == 1


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.9])
def test_blocks_are_skipped_at_their_rate_each_for_itself(rate):
    drawn = skipped(rate)
    # Four standard errors of a mean over the items.
    limit = 4 * np.sqrt(rate * (1 - rate) / len(ITEMS))
    assert (np.abs(drawn.mean(axis=0) - rate) <= limit).all()
    if rate:
        apart = np.corrcoef(drawn.T)[~np.eye(6, dtype=bool)]
        assert np.abs(apart).max() < 4 / np.sqrt(len(ITEMS))


def test_skipped_blocks_follow_seed_step_and_identity():
    drawn, views = skipped(), skipped(identity=(ITEMS, ITEMS % 3))
    np.testing.assert_array_equal(drawn, skipped())
    others = [skipped(seed=1), skipped(step=3), skipped(identity=(ITEMS + 1,)), views]
    # Two draws agree by chance in .7^2 + .3^2 of the blocks.
    assert [np.mean(other == drawn) for other in others] == pytest.approx([0.58] * 4, abs=0.02)
    some = np.array([900, 3, 77])
    np.testing.assert_array_equal(skipped(identity=(ITEMS[some],)), drawn[some])
    one_view = skipped(identity=(ITEMS[some], ITEMS[some] % 3))
    np.testing.assert_array_equal(one_view, views[some])


def test_a_word_holds_as_many_blocks_as_a_config_may_have():
    config = SamplingConfig(layer_dropout=0.5)
    bits = block_draws(config, 0, 0, MAX_LAYERS, ITEMS)
    assert ((bits >> np.uint32(MAX_LAYERS - 1)) & 1).mean() == pytest.approx(0.5, abs=0.04)
    assert not block_draws(config, 0, 0, 0, ITEMS).any()
