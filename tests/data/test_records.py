"""Users as flat columns: selections, observers, and records that come back as they went in."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from clue_jax.data.ragged import offsets_of, ranges
from clue_jax.data.records import (
    ARRAYS,
    Users,
    concatenate,
    decode_features,
    decode_users,
    encode_record,
    encode_users,
    user_features,
    visible,
)
from clue_jax.errors import DataError

SERVICES = ("a", "b")


def random_users(seed: int, users: int = 6) -> Users:
    """Users with uneven histories, some of them empty in a service."""
    rng = np.random.default_rng(seed)
    items = rng.integers(1, 4, users)
    lengths = rng.integers(1, 5, items.sum())
    counts = rng.integers(0, 4, users * len(SERVICES))
    owner = np.repeat(np.arange(users), counts.reshape(users, -1).sum(axis=1))
    times = rng.integers(0, 100, counts.sum())
    row = np.repeat(np.arange(len(counts)), counts)
    return Users(
        user_ids=np.array([f"ü{n}" for n in range(users)], object),
        services=SERVICES,
        item_ids=rng.integers(0, 2**64, items.sum(), np.uint64),
        item_offsets=offsets_of(items),
        tokens=rng.integers(1, 50, lengths.sum()).astype(np.int32),
        token_offsets=offsets_of(lengths),
        behaviour_items=rng.integers(0, items[owner]).astype(np.int32),
        behaviour_times=times[np.lexsort((times, row))],
        behaviour_offsets=offsets_of(counts),
    )


def plain(users: Users) -> list:
    """One user after the other, by loops: what the flat columns mean."""
    found = []
    for n in range(len(users)):
        items = range(users.item_offsets[n], users.item_offsets[n + 1])
        texts = [
            (int(users.item_ids[i]), users.tokens[slice(*users.token_offsets[i : i + 2])].tolist())
            for i in items
        ]
        histories = []
        for s in range(len(users.services)):
            row = n * len(users.services) + s
            span = slice(*users.behaviour_offsets[row : row + 2])
            times = users.behaviour_times[span].tolist()
            histories.append(list(zip(times, users.behaviour_items[span].tolist(), strict=True)))
        found.append((users.user_ids[n], texts, histories))
    return found


def test_ranges_concatenates_arange():
    assert ranges(np.array([5, 0, 7]), np.array([2, 0, 3])).tolist() == [5, 6, 7, 8, 9]
    assert ranges(np.zeros(0, int), np.zeros(0, int)).tolist() == []


@hypothesis.given(st.integers(0, 1000), st.lists(st.integers(0, 5), max_size=8))
@hypothesis.settings(max_examples=50, deadline=None)
def test_take_is_selection_in_order(seed, indices):
    users = random_users(seed)
    whole = plain(users)
    assert plain(users.take(indices)) == [whole[i] for i in indices]


@hypothesis.given(st.integers(0, 1000), st.integers(0, 6))
@hypothesis.settings(max_examples=50, deadline=None)
def test_records_and_shards_come_back(seed, cut):
    users = random_users(seed)
    records = list(encode_users(users))
    parts = [decode_users(part, SERVICES) for part in (records[:cut], records[cut:])]
    assert plain(concatenate(parts, SERVICES)) == plain(users)


def test_no_users_are_users_too():
    none = concatenate([], SERVICES)
    assert len(none) == 0 and none.counts().shape == (0, 2) and plain(none) == []
    assert plain(random_users(0).take([])) == []


@pytest.mark.parametrize("cutoff", [None, 0, 40, 1000])
@pytest.mark.parametrize("last", [0, 1, 9])
def test_visible_leaves_out_what_comes_later(cutoff, last):
    users = random_users(3)
    expected = []
    for user_id, texts, histories in plain(users):
        seen = [[e for e in h if cutoff is None or e[0] < cutoff] for h in histories]
        expected.append((user_id, texts, [h[: max(0, len(h) - last)] for h in seen]))
    assert plain(visible(users, cutoff, last)) == expected


@pytest.mark.parametrize("start", [None, 0, 40, 1000])
@pytest.mark.parametrize("newest", [0, 1, 3])
def test_visible_leaves_out_what_came_earlier(start, newest):
    users = random_users(30)
    expected = []
    for user_id, texts, histories in plain(users):
        seen = [[e for e in h if e[0] < 60][:-1] for h in histories]
        seen = [[e for e in h if start is None or e[0] >= start] for h in seen]
        expected.append((user_id, texts, [h[-newest:] if newest else h for h in seen]))
    assert plain(visible(users, 60, 1, start, newest)) == expected
    assert any(h for _, _, histories in expected for h in histories) == (start != 1000)


def test_tfds_reads_a_record_without_tensorflow():
    users = random_users(1)
    record = next(encode_users(users))
    example = user_features().deserialize_example_np(record)
    assert example["user_id"] == b"\xc3\xbc0"
    np.testing.assert_array_equal(example["item_ids"], users.item_ids[: users.item_offsets[1]])
    np.testing.assert_array_equal(example["behaviour_counts"], users.counts()[0])
    assert {name: example[name].dtype for name in ARRAYS} == ARRAYS


def test_equal_records_are_equal_bytes():
    values = {f"f{n}": bytes([n]) for n in range(20)}
    backwards = dict(reversed(values.items()))
    assert encode_record(values) == encode_record(backwards)


@pytest.mark.parametrize(
    "name, change, problem",
    [
        ("item_lengths", lambda a: a[:-1], "item_ids and item_lengths"),
        ("behaviour_times", lambda a: np.append(a, 1), "behaviour items and times"),
        ("behaviour_counts", lambda a: np.append(a, 0), "not about 2 services"),
        ("behaviour_counts", lambda a: a + np.array([1, -2]), "negative number|do not add up"),
        ("behaviour_items", lambda a: a + 99, "an item the record does not have"),
        ("behaviour_items", lambda a: a - 99, "an item the record does not have"),
        ("tokens", lambda a: a[:-1], "token lengths do not add up"),
        ("item_lengths", lambda a: a * 0, "an item has no token"),
    ],
)
def test_a_record_that_contradicts_itself_is_named(name, change, problem):
    users = random_users(2)
    assert users.counts()[3].sum() > 0
    records = list(encode_users(users))
    names = ("user_id", *ARRAYS)
    values = {n: column[3] for n, column in decode_features(records, names).items()}
    assert encode_record(values) == records[3]
    array = np.frombuffer(values[name], ARRAYS[name])
    values[name] = np.asarray(change(array)).astype(ARRAYS[name]).tobytes()
    with pytest.raises(DataError, match=f"^record 3: .*({problem})"):
        decode_users([*records[:3], encode_record(values), *records[4:]], SERVICES)


@pytest.mark.parametrize("record", [b"\xff\xff", b"", encode_record({"user_id": b"u"})])
def test_bytes_that_are_no_record_are_named(record):
    good = list(encode_users(random_users(0)))
    with pytest.raises(DataError, match="record 1: "):
        decode_users([good[0], record], SERVICES)


@pytest.mark.parametrize("size", [0, 1, 40, *range(110, 135), 300, *range(16_370, 16_390), 70_000])
def test_a_record_has_the_bytes_that_protobuf_gives(size):
    rng = np.random.default_rng(size)
    features = {"user_id": b"u" * 5, "tokens": rng.bytes(size), "a": b"", "b": rng.bytes(size // 2)}
    example = tf_example_pb2.Example()
    for name, value in features.items():
        example.features.feature[name].bytes_list.value.append(value)
    assert encode_record(features) == example.SerializeToString(deterministic=True)
