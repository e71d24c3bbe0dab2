"""The generator of synthetic logs: what it promises about wording, people, seeds and files."""

import dataclasses
import itertools
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax.config import SynthesizeConfig
from clue_jax.data import synthetic
from clue_jax.data.synthetic_text import SHARED_WORDS, invent_words
from clue_jax.data.synthetic_users import MONTH_DAYS, _repeats, first_second, live
from clue_jax.data.synthetic_world import build_world
from clue_jax.errors import ConfigError, StorageError

SMALL = SynthesizeConfig(
    num_users=600,
    num_topics=16,
    items_per_service=200,
    mean_behaviours=12.0,
    num_days=90,
    users_per_file=600,
)


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "logs"
    synthetic.synthesize(SMALL, str(out))
    return out


def read(out, folder):
    return pa.concat_tables(
        pq.read_table(path) for path in sorted((out / folder).glob("*.parquet"))
    )


def rows(out, service):
    """Every behaviour as a tuple, in an order that does not depend on the files."""
    return sorted(zip(*(column.to_pylist() for column in read(out, service).columns), strict=True))


def digests(out):
    manifest = json.loads((out / "manifest.json").read_text())
    entries = [entry for service in manifest["services"].values() for entry in service["files"]]
    return {entry["file"]: entry["sha256"] for entry in entries + manifest["latents"]}


def test_log_columns_and_manifest(logs):
    manifest = json.loads((logs / "manifest.json").read_text())
    assert manifest["seed"] == SMALL.seed and manifest["users"] == SMALL.num_users
    assert set(manifest["services"]) == set(SMALL.services)
    for name, entry in manifest["services"].items():
        table = read(logs, name)
        assert table.column_names == [
            "user_id",
            "timestamp",
            "item_id",
            "title",
            "brand",
            "category",
            "price",
        ]
        assert pa.types.is_timestamp(table.schema.field("timestamp").type)
        assert table.schema.field("timestamp").type.tz == "UTC"
        assert table.schema.field("price").type == pa.float64()
        assert table.num_rows == entry["behaviours"] and table.num_rows > 0
        assert len(set(table["user_id"].to_pylist())) == entry["users"]
        assert all(column.null_count == 0 for column in table.columns)
        assert min(table["price"].to_pylist()) > 0
        assert min(len(title) for title in table["title"].to_pylist()) > 0


def test_rows_are_ordered_by_time_not_by_user(logs):
    table = read(logs, "shop")
    times = np.array(table["timestamp"].cast(pa.int64()).to_pylist())
    assert (np.diff(times) >= 0).all()
    users = table["user_id"].to_pylist()
    assert sum(a != b for a, b in itertools.pairwise(users)) > 0.9 * len(users)
    span = np.datetime64(SMALL.first_day, "ms").astype(int) + np.array(
        [0, SMALL.num_days * 86_400_000]
    )
    assert span[0] <= times.min() and times.max() < span[1]


def test_same_seed_same_bytes_other_seed_other_logs(logs, tmp_path):
    synthetic.synthesize(SMALL, str(tmp_path / "again"))
    synthetic.synthesize(small(seed=1), str(tmp_path / "other"))
    assert digests(tmp_path / "again") == digests(logs)
    assert all(digests(tmp_path / "other")[name] != value for name, value in digests(logs).items())


def test_population_is_independent_of_chunks_and_size(tmp_path):
    # Blocks of random numbers hold 1,000 users: chunks both inside and across a block.
    config = small(num_users=1_300, mean_behaviours=4.0)
    for name, changes in {"one": {}, "many": {"users_per_file": 270}}.items():
        synthetic.synthesize(dataclasses.replace(config, **changes), str(tmp_path / name))
    synthetic.synthesize(dataclasses.replace(config, num_users=500), str(tmp_path / "fewer"))
    for service in config.services:
        whole = rows(tmp_path / "one", service)
        assert rows(tmp_path / "many", service) == whole
        assert rows(tmp_path / "fewer", service) == [row for row in whole if row[0] < "u000000500"]
    assert len(list((tmp_path / "many" / "shop").iterdir())) == 5
    latents = [
        pq.read_table(tmp_path / name / "latents" / "users-00000.parquet")
        for name in ("one", "many")
    ]
    assert latents[1].equals(latents[0].slice(0, latents[1].num_rows))


def test_wording_is_a_services_own(logs):
    words = {}
    for service in SMALL.services:
        table = read(logs, service)
        words[service] = set()
        for column in ("title", "brand", "category"):
            words[service].update(
                word for text in table[column].to_pylist() for word in text.split()
            )
    first, second, third = words.values()
    for a, b in ((first, second), (first, third), (second, third)):
        assert a & b and a & b <= set(SHARED_WORDS)
        assert len(a & b) < 0.1 * len(a | b)


def test_words_are_distinct_and_pronounceable():
    for count in (100, 40_000):
        words = invent_words(np.random.default_rng(0), count)
        assert len(set(words.tolist())) == count and not set(words.tolist()) & set(SHARED_WORDS)
        assert all(set(word) & set("aeiouy") for word in words)


def test_interests_show_in_every_service(logs):
    """The same user's topics agree across services far better than two users' topics do."""
    items = read_items(logs)
    users = [f"u{number:09d}" for number in range(SMALL.num_users)]
    profiles = []
    for service in ("search", "shop"):
        table = read(logs, service)
        counts = np.zeros((len(users), SMALL.num_topics))
        rows_M = [int(user[1:]) for user in table["user_id"].to_pylist()]
        np.add.at(counts, (rows_M, [items[item] for item in table["item_id"].to_pylist()]), 1)
        profiles.append(counts)
    both = np.flatnonzero((profiles[0].sum(1) >= 5) & (profiles[1].sum(1) >= 5))
    a, b = (
        profile[both] / np.linalg.norm(profile[both], axis=1, keepdims=True) for profile in profiles
    )
    similarity = a @ b.T
    recall = np.mean((similarity > np.diag(similarity)[:, None]).sum(1) < 10)
    assert recall > 0.6 > 10 * 10 / len(both)


def read_items(out):
    table = pq.read_table(out / "latents" / "items.parquet")
    return dict(zip(table["item_id"].to_pylist(), table["topic"].to_pylist(), strict=True))


def test_behaviours_follow_the_latents(logs):
    """What users do matches the interests of their month, but for noise and repeats."""
    items = read_items(logs)
    latents = pq.read_table(logs / "latents" / "users-00000.parquet")
    held = {
        (user, month): set(topics)
        for user, month, topics in zip(
            *(latents[name].to_pylist() for name in ("user_id", "month", "topics")), strict=True
        )
    }
    assert len(held) == SMALL.num_users * -(-SMALL.num_days // MONTH_DAYS)
    np.testing.assert_allclose(np.sum(latents["weights"].to_pylist(), axis=1), 1.0, atol=1e-5)
    table = read(logs, "news")
    seconds = np.array(table["timestamp"].cast(pa.int64()).to_pylist()) // 1000
    month = (seconds - seconds.min() // 86_400 * 86_400) // (MONTH_DAYS * 86_400)
    inside = [
        items[item] in held[user, int(m)]
        for user, item, m in zip(
            table["user_id"].to_pylist(), table["item_id"].to_pylist(), month, strict=True
        )
    ]
    assert 0.85 < np.mean(inside) < 0.97
    changed = [held[user, 0] != held[user, 2] for user, month in held if month == 0]
    assert 0.15 < np.mean(changed) < 0.4  # 1 - (1 - drift) ** 2 is 0.28


def test_behaviours_follow_the_interests_of_their_own_month():
    config = small(drift=1.0, noise=0.0, repeat=0.0)
    world = build_world(config)
    block = live(config, world, 0)
    for catalogue, behaviours in zip(world.catalogues, block.behaviours, strict=True):
        month = (behaviours.seconds - first_second(config)) // (MONTH_DAYS * 86_400)
        topic = catalogue.topic[behaviours.item][:, None]
        assert (topic == block.interests[behaviours.user, month]).any(axis=1).all()
        # Positive control: with an interest replaced every month, those of the start do not do.
        assert not (topic == block.interests[behaviours.user, 0]).any(axis=1).all()


def test_companies_of_a_seed_share_a_language_but_neither_items_nor_people(logs, tmp_path):
    synthetic.synthesize(small(company=2), str(tmp_path / "two"))
    synthetic.synthesize(small(seed=1), str(tmp_path / "stranger"))

    def words(out):
        titles = {
            title for name in SMALL.services for title in read(out, name)["title"].to_pylist()
        }
        return {word for title in titles for word in title.split()} - set(SHARED_WORDS), titles

    def topics(out):
        return pq.read_table(out / "latents" / "topics.parquet")

    (mine, own), (two, their) = words(logs), words(tmp_path / "two")
    stranger, _ = words(tmp_path / "stranger")
    assert topics(tmp_path / "two") == topics(logs) != topics(tmp_path / "stranger")
    assert len(mine & two) > 0.8 * len(mine | two)
    assert len(mine & stranger) < 0.2 * len(mine)
    assert len(own & their) < 0.2 * len(own)
    people, others = (
        set(read(out, "shop")["user_id"].to_pylist()) for out in (logs, tmp_path / "two")
    )
    assert not people & others


def test_the_seed_reaches_the_behaviours():
    # Lengths and world are the same, so that only the behaviours' own stream can differ.
    first, second = (
        live(config, build_world(SMALL), 0).behaviours[0].seconds
        for config in (
            small(behaviours_sigma=0.0, missing_service=0.0, seed=seed) for seed in (0, 1)
        )
    )
    assert first.shape == second.shape and (first != second).mean() > 0.9


def test_popularity_lengths_repeats_and_missing_services(logs):
    table = read(logs, "shop")
    topics = read_items(logs)
    counts = Counter(table["item_id"].to_pylist())
    largest = Counter(topics[item] for item in counts.elements()).most_common(1)[0][0]
    inside = sorted((n for item, n in counts.items() if topics[item] == largest), reverse=True)
    assert inside[0] > 3 * np.median(inside)
    lengths = np.array(list(Counter(table["user_id"].to_pylist()).values()))
    assert abs(lengths.mean() - SMALL.mean_behaviours) < 2.0
    assert np.percentile(lengths, 99) > 4 * np.median(lengths)
    pairs = Counter(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    assert sum(n - 1 for n in pairs.values()) > SMALL.repeat / 2 * table.num_rows
    present = [set(read(logs, service)["user_id"].to_pylist()) for service in SMALL.services]
    assert len(set.union(*present)) == SMALL.num_users
    for users in present:
        assert abs(1 - len(users) / SMALL.num_users - SMALL.missing_service) < 0.06


def test_repeats_point_to_the_same_user_and_to_originals():
    length = np.array([0, 1, 40, 0, 25])
    source = _repeats(np.random.default_rng(0), length, 0.7)
    owner = np.repeat(np.arange(5), length)
    assert (owner[source] == owner).all() and (source <= np.arange(66)).all()
    np.testing.assert_array_equal(source[source], source)
    assert (_repeats(np.random.default_rng(0), length, 0.0) == np.arange(66)).all()


def test_items_are_drawn_by_popularity_inside_their_topic():
    catalogue = build_world(SMALL).catalogues[0]
    rng = np.random.default_rng(0)
    topic = np.repeat(np.arange(SMALL.num_topics), 4_000)
    item = catalogue.draw(topic, rng.random(len(topic)))
    np.testing.assert_array_equal(catalogue.topic[item], topic)
    observed = np.bincount(item, minlength=len(catalogue.topic)) / 4_000
    np.testing.assert_allclose(observed, catalogue.popularity, atol=0.04)
    edges = catalogue.draw(
        np.arange(SMALL.num_topics), np.full(SMALL.num_topics, np.nextafter(1, 0))
    )
    np.testing.assert_array_equal(catalogue.topic[edges], np.arange(SMALL.num_topics))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_users", 0),
        ("services", ()),
        ("services", ("shop", "shop")),
        ("services", ("../shop",)),
        ("services", ("latents",)),
        ("services", ("labels",)),
        ("num_topics", 1),
        ("items_per_service", 15),
        ("interests_per_user", 17),
        ("drift", 1.5),
        ("noise", float("nan")),
        ("zipf_exponent", -1.0),
        ("mean_behaviours", 0.5),
        ("behaviours_sigma", -0.1),
        ("first_day", "2024-13-01"),
        ("num_days", 0),
        ("users_per_file", 0),
        ("seed", -1),
    ],
)
def test_bad_config_names_its_key_and_writes_nothing(tmp_path, key, value):
    with pytest.raises(ConfigError, match=f"config.{key}"):
        synthetic.synthesize(small(**{key: value}), str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_existing_output_is_kept_unless_told(tmp_path):
    out = tmp_path / "out"
    config = small(num_users=20)
    synthetic.synthesize(config, str(out))
    before = digests(out)
    with pytest.raises(StorageError, match="overwrite"):
        synthetic.synthesize(small(num_users=30), str(out))
    assert digests(out) == before
    synthetic.synthesize(small(num_users=30, overwrite=True), str(out))
    assert json.loads((out / "manifest.json").read_text())["users"] == 30


def test_leftovers_of_an_interrupted_run_do_not_survive(tmp_path):
    stray = tmp_path / "out.partial" / "shop"
    stray.mkdir(parents=True)
    (stray / "part-00099.parquet").write_bytes(b"half")
    synthetic.synthesize(small(num_users=20), str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out" / "shop").iterdir()] == ["part-00000.parquet"]
    assert not (tmp_path / "out.partial").exists()


def test_a_user_never_lacks_every_service(tmp_path):
    synthetic.synthesize(small(missing_service=1.0, num_users=50), str(tmp_path / "out"))
    users = [
        user
        for service in SMALL.services
        for user in set(read(tmp_path / "out", service)["user_id"].to_pylist())
    ]
    assert sorted(users) == [f"u{number:09d}" for number in range(50)]
