"""Grouping events into users: order, caps, drops, splits and item identity, each by brute force."""

import dataclasses
import hashlib

import numpy as np
import pytest

from clue_jax.config import PrepareConfig, SplitConfig
from clue_jax.data import tokenizer as bpe
from clue_jax.data.events import Events
from clue_jax.data.histories import SPLITS, group, tokenize, users_between
from clue_jax.errors import DataError

SERVICES = ("shop", "news")
ALL_TRAIN = SplitConfig(validation=0.0, test=0.0)


def make_events(rows, splits=None) -> Events:
    """Events of rows (user, service, text, time); the id at the source is the row's number."""
    users = list(dict.fromkeys(row[0] for row in rows))
    texts = list(dict.fromkeys(row[2] for row in rows))
    return Events(
        user_ids=np.array(users, object),
        users=np.array([users.index(row[0]) for row in rows], np.int32),
        services=SERVICES,
        service=np.array([SERVICES.index(row[1]) for row in rows], np.int16),
        texts=np.array(texts, object),
        text=np.array([texts.index(row[2]) for row in rows], np.int32),
        source_ids=np.array([f"s{n}" for n in range(len(rows))], object),
        source_id=np.arange(len(rows), dtype=np.int32),
        times=np.array([row[3] for row in rows], np.int64),
        splits=np.array([(splits or {}).get(user, "train" if splits else "") for user in users]),
        has_times=True,
        rejects={},
        filtered={},
    )


def random_rows(seed, users=30, rows=400):
    rng = np.random.default_rng(seed)
    return [
        (f"u{rng.integers(users)}", SERVICES[rng.integers(2)], f"t{rng.integers(20)}", t)
        for t in rng.integers(0, 50, rows).tolist()
    ]


def listed(histories):
    """{user: {service: [(time, text)]}} of what was grouped."""
    found = {}
    for n, user in enumerate(histories.user_ids):
        items = histories.item_rows[slice(*histories.item_offsets[n : n + 2])]
        for s, service in enumerate(histories.services):
            row = n * len(SERVICES) + s
            span = slice(*histories.behaviour_offsets[row : row + 2])
            texts = histories.items.texts[items[histories.behaviour_items[span]]]
            times = histories.behaviour_times[span].tolist()
            services = set(histories.items.services[items[histories.behaviour_items[span]]])
            assert services <= {service}
            found.setdefault(user, {})[service] = list(zip(times, texts, strict=True))
    return found


@pytest.mark.parametrize("max_history, min_behaviours", [(4096, 1), (3, 1), (5, 14)])
def test_grouping_equals_a_loop_over_rows(max_history, min_behaviours):
    rows = random_rows(0)
    expected = {}
    for user, service, text, time in rows:
        mine = expected.setdefault(user, {name: [] for name in SERVICES})
        mine[service].append((time, text))
    expected = {
        user: {s: sorted(h, key=lambda e: e[0])[-max_history:] for s, h in histories.items()}
        for user, histories in expected.items()
        if sum(map(len, histories.values())) >= min_behaviours
    }
    config = PrepareConfig(max_history=max_history, min_behaviours=min_behaviours)
    histories = group(make_events(rows), config)
    assert listed(histories) == expected
    total = sum(len(h) for mine in expected.values() for h in mine.values())
    lost = histories.dropped.get("behaviours of users below min_behaviours", 0)
    lost += histories.dropped.get("behaviours beyond max_history", 0)
    assert total + lost == len(rows)


def test_equal_times_keep_the_order_of_appearance():
    rows = [("u", "shop", text, 7) for text in "dbeac"] + [("u", "news", "n", 1)]
    found = listed(group(make_events(rows), PrepareConfig(split=ALL_TRAIN)))
    assert [text for _, text in found["u"]["shop"]] == list("dbeac")


def test_repeats_are_counted_and_kept():
    rows = [("u", "shop", "a", 1)] * 3 + [("u", "news", "a", 1), ("u", "shop", "a", 2)]
    histories = group(make_events(rows), PrepareConfig(split=ALL_TRAIN))
    assert histories.dropped["repeated behaviours (kept)"] == 2
    assert histories.counts().tolist() == [[4, 1]]


def test_an_item_is_its_service_and_text_with_the_first_id_at_the_source():
    rows = [("u", "shop", "pen", 1), ("v", "shop", "pen", 2), ("v", "news", "pen", 3)]
    items = group(make_events(rows), PrepareConfig(split=ALL_TRAIN)).items
    expected = {
        int.from_bytes(hashlib.blake2b(f"{s}\0pen".encode(), digest_size=8).digest(), "little"): s
        for s in SERVICES
    }
    assert dict(zip(items.item_ids.tolist(), items.services, strict=True)) == expected
    assert dict(zip(items.services, items.source_ids, strict=True)) == {"shop": "s0", "news": "s2"}
    assert (np.diff(items.item_ids.astype(float)) > 0).all()


def test_items_of_dropped_behaviours_are_left_out():
    rows = [("u", "shop", "old", 1), ("u", "shop", "new", 2), ("u", "news", "n", 1)]
    items = group(make_events(rows), PrepareConfig(max_history=1, split=ALL_TRAIN)).items
    assert sorted(items.texts) == ["n", "new"]


def test_splits_by_hash_depend_on_the_user_and_salt_alone():
    rows = [(f"u{n}", service, "t", 0) for n in range(2000) for service in SERVICES]
    split = SplitConfig(validation=0.1, test=0.3)

    def dealt(rows, split):
        histories = group(make_events(rows), PrepareConfig(split=split))
        cuts = histories.split_offsets
        return {s: set(histories.user_ids[cuts[i] : cuts[i + 1]]) for i, s in enumerate(SPLITS)}

    splits = dealt(rows, split)
    sizes = [len(splits[s]) / 2000 for s in SPLITS]
    np.testing.assert_allclose(sizes, [0.6, 0.1, 0.3], atol=0.04)
    assert len(set.union(*splits.values())) == 2000
    half = dealt(rows[:2000][::-1], split)
    assert all(half[s] <= splits[s] for s in SPLITS)
    assert dealt(rows, dataclasses.replace(split, salt="other")) != splits


def test_given_splits_are_obeyed_and_others_dealt():
    given = {f"u{n}": SPLITS[n % 3] for n in range(9)}
    rows = [(user, service, "t", 0) for user in given for service in SERVICES]
    histories = group(make_events(rows, given), PrepareConfig(split=ALL_TRAIN))
    assert np.diff(histories.split_offsets).tolist() == [3, 3, 3]
    for i, split in enumerate(SPLITS):
        users = histories.user_ids[slice(*histories.split_offsets[i : i + 2])]
        assert {given[user] for user in users} == {split}


def test_no_training_user_is_an_error():
    rows = [("u", service, "t", 0) for service in SERVICES]
    with pytest.raises(DataError, match="in the training split"):
        group(make_events(rows, {"u": "test"}), PrepareConfig())


def test_a_service_nobody_uses_any_more_is_named():
    rows = [("u", "shop", "t", 0)] * 5 + [("v", "news", "t", 0)]
    assert len(group(make_events(rows), PrepareConfig(split=ALL_TRAIN)).user_ids) == 2
    with pytest.raises(DataError, match="service 'news': nobody uses it.*min_behaviours=2"):
        group(make_events(rows), PrepareConfig(min_behaviours=2, split=ALL_TRAIN))


def test_items_start_with_their_guide_and_are_cut():
    rows = [("u", "shop", "red pen red pen", 1), ("u", "news", "red pen red pen", 1)]
    histories = group(make_events(rows), PrepareConfig(split=ALL_TRAIN))
    tokenizer = bpe.train(["red pen"], SERVICES, 400)
    full = tokenizer.encode(["red pen red pen"])[0].tolist()
    assert len(full) == 4
    for limit, truncated in ((5, 0), (3, 2)):
        tokens = tokenize(histories.items, tokenizer, limit)
        assert tokens.truncated == truncated
        for row, service in enumerate(histories.items.services):
            ids = tokens.tokens[slice(*tokens.offsets[row : row + 2])].tolist()
            assert ids == [tokenizer.guide(service), *full[: limit - 1]]


def test_users_between_is_a_part_of_all():
    histories = group(make_events(random_rows(1)), PrepareConfig(split=ALL_TRAIN))
    tokenizer = bpe.train(["t1 t2"], SERVICES, 400)
    tokens = tokenize(histories.items, tokenizer, 8)
    everyone = users_between(histories, tokens, 0, len(histories.user_ids))
    part = users_between(histories, tokens, 4, 9)
    for name, column in vars(everyone.take(np.arange(4, 9))).items():
        np.testing.assert_array_equal(getattr(part, name), column, err_msg=name)
