"""Grouping logs into users: order, caps, drops, splits and item identity, each by brute force."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from clue_jax.config import PrepareConfig, SourceConfig, SplitConfig
from clue_jax.data import grouping, intake
from clue_jax.data import tokenizer as bpe
from clue_jax.data.items import ItemTable
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.records import concatenate
from clue_jax.data.workers import Workers
from clue_jax.errors import DataError

SERVICES = ("news", "shop")
ALONE = Workers(1)
ALL_TRAIN = SplitConfig(validation=0.0, test=0.0)


@dataclasses.dataclass
class Found:
    """What `group_logs` made of some rows."""

    users: list  # of each split
    items: ItemTable
    dropped: dict
    repeats: int
    texts: list

    def listed(self):
        """{user: {service: [(time, text)]}}"""
        found = {}
        for users in self.users:
            for n, user in enumerate(users.user_ids):
                items = users.item_ids[slice(*users.item_offsets[n : n + 2])]
                assert (items[1:] > items[:-1]).all()
                for s, service in enumerate(SERVICES):
                    span = slice(*users.behaviour_offsets[n * 2 + s : n * 2 + s + 2])
                    rows = self.items.lookup(items[users.behaviour_items[span]])
                    assert set(self.items.services[rows]) <= {service}
                    times = users.behaviour_times[span].tolist()
                    history = list(zip(times, self.items.texts[rows], strict=True))
                    found.setdefault(user, {})[service] = history
        return found


@pytest.fixture
def group(tmp_path):
    """Groups rows (user, service, text, time); the id at the source is the row's number."""
    numbers = itertools.count()

    def run(rows, config=None, splits=None):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        user, service, text, time = zip(*rows, strict=True)
        columns = {"user": user, "service": service, "text": text, "time": time}
        columns["id"] = [f"s{n}" for n in range(len(rows))]
        columns["split"] = [(splits or {}).get(u, "") for u in user]
        pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), folder / "x.parquet")
        source = SourceConfig(
            path="x.parquet",
            user_id="user",
            service_column="service",
            timestamp="",
            order="time",
            item_id="id",
            split="split" if splits else "",
        )
        config = config or PrepareConfig(split=ALL_TRAIN)
        config = dataclasses.replace(config, source=str(folder), sources=(source,))
        grouped = grouping.group_logs(config, folder, epath.Path(folder) / "rejects", None, ALONE)
        tokenizer = bpe.train(["t1 t2"], grouped.reading.services, 400)
        grouped.catalogue.tokenize(tokenizer, 8, ALONE)
        totals = np.sum(grouped.store.split_counts, axis=0)
        parts = [list(grouped.store.users(s, 0, int(totals[s]))) for s in range(3)]
        tables = list(grouped.catalogue.files.items(0, grouped.catalogue.count))
        items = ItemTable(
            *(np.concatenate([vars(t)[name] for t in tables]) for name in vars(tables[0]))
        )
        users = [concatenate(part, grouped.reading.services) for part in parts]
        tallies = grouped.tallies
        return Found(users, items, tallies.dropped, tallies.repeats, grouped.texts)

    return run


def random_rows(seed, users=30, rows=400):
    rng = np.random.default_rng(seed)
    return [
        (f"u{rng.integers(users)}", SERVICES[rng.integers(2)], f"t{rng.integers(20)}", t)
        for t in rng.integers(0, 50, rows).tolist()
    ]


def by_loop(rows, config):
    """{user: {service: [(time, text)]}} after all rules, a row at a time."""
    expected, behaviours = {}, len(rows)
    if config.drop_repeats:
        # The last of equal rows stays.
        rows = [row for n, row in enumerate(rows) if row not in rows[n + 1 :]]
    for user, service, text, time in rows:
        mine = expected.setdefault(user, {name: [] for name in SERVICES})
        mine[service].append((time, text))
    for user, histories in list(expected.items()):
        total = sum(map(len, histories.values()))
        robot = config.max_behaviours and total > config.max_behaviours
        if robot or total > config.max_user_share * behaviours:
            del expected[user]
            continue
        for service, history in histories.items():
            if len(history) < config.min_service_behaviours:
                histories[service] = []
        if sum(map(len, histories.values())) < config.min_behaviours:
            del expected[user]
            continue
        for service, history in histories.items():
            histories[service] = sorted(history, key=lambda e: e[0])[-config.max_history :]
    return {user: histories for user, histories in expected.items() if any(histories.values())}


RULES = [
    {},
    {"max_history": 3},
    {"max_history": 5, "min_behaviours": 14},
    {"min_service_behaviours": 7},
    {"min_service_behaviours": 6, "min_behaviours": 9, "max_history": 8},
    {"max_behaviours": 14, "min_behaviours": 3},
    {"max_user_share": 0.04},
    {"max_user_share": 0.035, "max_behaviours": 17, "drop_repeats": True, "min_behaviours": 9},
    {"drop_repeats": True},
    {"drop_repeats": True, "max_history": 4, "min_behaviours": 8, "min_service_behaviours": 5},
    {"drop_repeats": True, "max_behaviours": 12},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("limit", [None, 200, 60, 7])
def test_grouping_equals_a_loop_over_rows(group, monkeypatch, rules, limit):
    if limit:  # rows in memory; the smallest is less than a user has
        monkeypatch.setattr(grouping, "rows_at_once", lambda config, processes: limit)
    rows = random_rows(0)
    rows += [rows[n] for n in range(0, 400, 9)] + [("u1", "shop", "t1", 7)] * 9
    config = PrepareConfig(**rules)
    found, expected = group(rows, config), by_loop(rows, config)
    assert found.listed() == expected
    total = sum(len(h) for mine in expected.values() for h in mine.values())
    lost = [n for rule, n in found.dropped.items() if "behaviours" in rule.split(" ")[:2]]
    assert total + sum(lost) == len(rows)
    if "max_user_share" in rules:
        assert 0 < found.dropped["users above max_user_share"] < 10
    if not rules:
        assert found.repeats == len(rows) - len(set(rows)) and not found.dropped


def test_equal_times_keep_the_order_of_appearance(group):
    rows = [("u", "shop", text, 7) for text in "dbeac"] + [("u", "news", "n", 1)]
    assert [text for _, text in group(rows).listed()["u"]["shop"]] == list("dbeac")


def test_repeats_are_counted_and_kept_or_dropped(group):
    rows = [("u", "shop", "a", 1)] * 3 + [("u", "news", "a", 1), ("u", "shop", "a", 2)]
    kept = group(rows)
    assert kept.repeats == 2 and kept.users[0].counts().tolist() == [[1, 4]]
    dropped = group(rows, PrepareConfig(split=ALL_TRAIN, drop_repeats=True))
    assert dropped.repeats == 0 and dropped.dropped == {"repeated behaviours": 2}
    assert dropped.users[0].counts().tolist() == [[1, 2]]


def test_an_item_is_its_service_and_text_with_the_first_id_at_the_source(group):
    rows = [("u", "shop", "pen", 1), ("v", "shop", "pen", 2), ("v", "news", "pen", 3)]
    items = group(rows).items
    expected = {
        int.from_bytes(hashlib.blake2b(f"{s}\0pen".encode(), digest_size=8).digest(), "little"): s
        for s in SERVICES
    }
    assert dict(zip(items.item_ids.tolist(), items.services, strict=True)) == expected
    assert dict(zip(items.services, items.source_ids, strict=True)) == {"shop": "s0", "news": "s2"}
    assert (np.diff(items.item_ids.astype(float)) > 0).all()


def test_the_first_id_is_that_of_a_behaviour_that_stays(group):
    rows = [("w", "shop", "pen", 1)] + [("u", s, "pen", t) for t in (5, 9) for s in SERVICES]
    items = group(rows, PrepareConfig(split=ALL_TRAIN, min_behaviours=2, max_history=1)).items
    assert dict(zip(items.services, items.source_ids, strict=True)) == {"shop": "s4", "news": "s3"}


def test_items_of_dropped_behaviours_are_left_out(group):
    rows = [("u", "shop", "old", 1), ("u", "shop", "new", 2), ("u", "news", "n", 1)]
    items = group(rows, PrepareConfig(max_history=1, split=ALL_TRAIN)).items
    assert sorted(items.texts) == ["n", "new"]


def test_splits_by_hash_depend_on_the_user_and_salt_alone(group):
    rows = [(f"u{n}", service, "t", 0) for n in range(2000) for service in SERVICES]
    split = SplitConfig(validation=0.1, test=0.3)

    def dealt(rows, split):
        found = group(rows, PrepareConfig(split=split)).users
        return {s: set(users.user_ids) for s, users in zip(SPLITS, found, strict=True)}

    splits = dealt(rows, split)
    sizes = [len(splits[s]) / 2000 for s in SPLITS]
    np.testing.assert_allclose(sizes, [0.6, 0.1, 0.3], atol=0.04)
    assert len(set.union(*splits.values())) == 2000
    half = dealt(rows[:2000][::-1], split)
    assert all(half[s] <= splits[s] for s in SPLITS)
    assert dealt(rows, dataclasses.replace(split, salt="other")) != splits


def test_given_splits_are_obeyed(group):
    given = {f"u{n}": SPLITS[n % 3] for n in range(9)}
    rows = [(user, service, "t", 0) for user in given for service in SERVICES]
    found = group(rows, PrepareConfig(split=ALL_TRAIN), given).users
    assert [len(users) for users in found] == [3, 3, 3]
    for split, users in zip(SPLITS, found, strict=True):
        assert {given[user] for user in users.user_ids} == {split}


def test_texts_to_train_on_are_of_training_users(group):
    given = {"u": "train", "v": "test"}
    rows = [(user, s, f"text of {user}", 0) for user in given for s in SERVICES]
    assert group(rows, PrepareConfig(), given).texts == ["text of u"]


def test_no_training_user_is_an_error(group):
    rows = [("u", service, "t", 0) for service in SERVICES]
    with pytest.raises(DataError, match="in the training split"):
        group(rows, PrepareConfig(), {"u": "test"})


def test_a_service_nobody_uses_any_more_is_named(group):
    rows = [("u", "shop", "t", 0)] * 5 + [("v", "news", "t", 0)]
    assert len(group(rows).users[0]) == 2
    with pytest.raises(DataError, match="service 'news': nobody uses it.*min_behaviours=2"):
        group(rows, PrepareConfig(min_behaviours=2, split=ALL_TRAIN))


@pytest.mark.parametrize("what", ["users", "items"])
def test_two_of_one_hash_are_refused(group, monkeypatch, what):
    prefix = {"users": "order\0", "items": "shop\0"}[what]
    real = intake.hashes64

    def colliding(texts):
        texts = list(texts)
        return np.where([t.startswith(prefix) for t in texts], np.uint64(7), real(texts))

    monkeypatch.setattr(intake, "hashes64", colliding)
    rows = [(f"u{n}", service, f"t{n}", 0) for n in range(3) for service in SERVICES]
    with pytest.raises(DataError, match="share (a|this) 64-bit"):
        group(rows)


def test_a_part_of_a_split_is_a_part_of_all(tmp_path):
    rng = np.random.default_rng(0)
    table = {"user_id": rng.integers(0, 3_000, 9_000), "timestamp": np.arange(9_000)}
    table["text"] = [f"t{n % 50}" for n in range(9_000)]
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    config = PrepareConfig(
        source=str(tmp_path), sources=(SourceConfig(path="x.parquet", service="shop"),)
    )
    grouped = grouping.group_logs(config, tmp_path, epath.Path(tmp_path) / "rejects", None, ALONE)
    tokenizer = bpe.train(["t1 t2"], ("shop",), 400)
    grouped.catalogue.tokenize(tokenizer, 8, ALONE)
    total = int(np.sum(grouped.store.split_counts, axis=0)[0])
    everyone = concatenate(list(grouped.store.users(0, 0, total)), ("shop",))
    assert len(everyone) == total > 2_000
    for first, last in ((0, 1), (400, 1_300), (total - 700, total)):
        part = concatenate(list(grouped.store.users(0, first, last)), ("shop",))
        for name, column in vars(everyone.take(np.arange(first, last))).items():
            np.testing.assert_array_equal(getattr(part, name), column, err_msg=name)
