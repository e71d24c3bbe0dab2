"""Users who are erased from a dataset are gone with what they alone had; the rest stays."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from clue_jax import files, leases
from clue_jax.config import DataConfig
from clue_jax.data import source
from clue_jax.data.erase import erase
from clue_jax.data.erasures import AUDIT, erasures
from clue_jax.errors import DataError, LockedError
from tests.embeddings.exports import killed_at_each_operation
from tests.faults.logs import prepare, write

USERS = 40
SECRET = "harpsichord"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """40 users in shards of 8; each has a word of their own beside those that all have."""
    folder = tmp_path_factory.mktemp("erase")
    rows = [
        (f"user-{n % USERS}", 1_600_000_000 + n, f"{SECRET} {n % USERS}" if n < USERS else "a pen")
        for n in range(6 * USERS)
    ]
    for service in ("shop", "news"):
        write(folder / "logs" / f"{service}.csv", rows)
    sources = (("shop*", "shop"), ("news*", "news"))
    splits = "--config.split.validation=0.2", "--config.split.test=0.2"
    prepare(folder / "logs", folder / "data", *splits, sources=sources)
    return folder / "data"


@pytest.fixture
def data(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data"


def everyone(path):
    dataset = source.open_dataset(path, verify=True)
    return {
        user_id: dataset.users(split).take([n])
        for split in dataset.manifest["splits"]
        for n, user_id in enumerate(dataset.users(split).user_ids.tolist())
    }


def contents(path):
    """Everything there, records out of their compression."""
    found = []
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        found.append(file.read_bytes())
        if ".array_record" in file.name:
            reader = ArrayRecordReader(str(file))
            found += reader.read_all() if reader.num_records() else []
            reader.close()
    return b"\n".join(found)


def named(path, users):
    """Those of the users whose id is anywhere there."""
    found = contents(path)
    return [user for user in users if re.search(rf"{user}(?!\d)".encode(), found)]


def one_of_each_split(path):
    dataset = source.open_dataset(path)
    return [dataset.users(split).user_ids[0] for split in ("train", "validation", "test")]


def test_they_and_what_they_alone_had_are_gone_and_the_rest_is_as_it_was(data):
    before, manifest = everyone(data), source.open_dataset(data).manifest
    gone = one_of_each_split(data)
    source.open_dataset(data).table("train", DataConfig(in_memory_mb=0))  # makes a cache
    assert (data / "cache").exists()
    words = [f"{SECRET} {user.removeprefix('user-')}".encode() for user in gone]
    # The control: all of it is there before.
    texts = source.open_dataset(data).items().texts.tolist()
    assert all(word.decode() in texts for word in words) and named(data, gone) == gone
    done = erase(data, [*gone, "nobody"])
    assert (done.users, done.unknown) == (sorted(gone), ["nobody"])
    assert done.items == 2 * len(gone)  # in either service
    assert not (data / "cache").exists()
    rest, now = everyone(data), source.open_dataset(data)
    assert set(rest) == set(before) - set(gone)
    for user_id, users in rest.items():
        for name, value in vars(users).items():
            np.testing.assert_array_equal(value, getattr(before[user_id], name), err_msg=user_id)
    assert {text for text in now.items().texts.tolist() if text.encode() in words} == set()
    assert now.items().lookup(np.unique(np.concatenate([u.item_ids for u in rest.values()]))).size
    assert named(data, gone) == []
    card = (data / "card.md").read_text()
    assert now.fingerprint[:12] in card and "| users erased since | 3 |" in card
    assert now.fingerprint != manifest["fingerprint"] and now.manifest["users_erased"] == 3
    assert (
        sum(now.manifest["splits"]["train"]["behaviours"].values())
        == sum(manifest["splits"]["train"]["behaviours"].values()) - 2 * 6
    )
    builder = tfds.builder_from_directory(str(data / "users"))
    assert builder.info.splits["train"].num_examples == now.manifest["splits"]["train"]["users"]
    assert sorted(p.name for p in data.parent.iterdir()) == ["data"]


def test_shards_without_them_keep_their_bytes(data):
    user = one_of_each_split(data)[0]
    before = {p.name: p.read_bytes() for p in (data / "users").iterdir()}
    (written, *items) = erase(data, [user]).shards
    after = {p.name: p.read_bytes() for p in (data / "users").iterdir()}
    assert after.keys() == before.keys() and len(before) > 6 and len(items) == 1
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {written.removeprefix("users/"), "dataset_info.json"}


def test_a_whole_shard_and_a_whole_split_may_go_but_not_all_of_training(data):
    dataset = source.open_dataset(data)
    splits = dataset.manifest["splits"]
    train, test = (dataset.users(split).user_ids.tolist() for split in ("train", "test"))
    with pytest.raises(DataError, match="all .* training users are to be erased"):
        erase(data, train)
    first = splits["train"]["shards"][0]["users"]
    erase(data, [*train[:first], *test])
    now = source.open_dataset(data, verify=True)
    assert now.users("train").user_ids.tolist() == train[first:]
    assert now.manifest["splits"]["test"] == {
        "users": 0,
        "behaviours": {"news": 0, "shop": 0} | dict.fromkeys(now.services, 0),
        "shards": [],
    }
    count = len(splits["train"]["shards"]) - 1
    names = [entry["file"] for entry in now.manifest["splits"]["train"]["shards"]]
    assert names[-1].endswith(f"-{count - 1:05d}-of-{count:05d}")


def test_the_record_has_hashes_and_fingerprints_alone(data):
    one, two, _ = one_of_each_split(data)
    first = source.open_dataset(data).fingerprint
    erase(data, [one])
    second = source.open_dataset(data).fingerprint
    erase(data, [one, two])
    lines = erasures(data)
    digests = list(map(files.sha256_text, (one, two)))
    assert [line["erased_sha256"] for line in lines] == [
        {"train": digests[:1]},
        {"validation": digests[1:]},
    ]
    assert lines[1]["unknown_sha256"] == digests[:1]
    chain = [(line["fingerprint_before"], line["fingerprint"]) for line in lines]
    assert chain == [(first, second), (second, source.open_dataset(data).fingerprint)]
    assert one not in (data / AUDIT).read_text()
    (data / AUDIT).write_text((data / AUDIT).read_text().replace("train", "test"))
    with pytest.raises(DataError, match=f"{AUDIT}: missing or changed"):
        erase(data, ["user-9"])


def test_nobody_to_erase_changes_nothing_but_the_record(data):
    before = source.open_dataset(data)
    assert erase(data, ["nobody"]).shards == []
    after = source.open_dataset(data, verify=True)
    assert after.fingerprint == before.fingerprint and len(erasures(data)) == 1
    assert erasures(before.path)[0]["erased_sha256"] == {}


def test_what_is_refused_leaves_the_dataset_as_it_was(data, tmp_path):
    manifest = (data / "manifest.json").read_bytes()
    (data / "copy.parquet").write_bytes(b"users")
    with pytest.raises(DataError, match="copy.parquet: not a file of this dataset"):
        erase(data, ["user-1"])
    (data / "copy.parquet").unlink()
    with leases.lease(epath.Path(tmp_path / "data.lock")), pytest.raises(LockedError):
        erase(data, ["user-1"])
    shard = next((data / "users").glob("users-train*"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"users-train.*(damaged|differ)"):
        erase(data, ["user-1"])
    assert (data / "manifest.json").read_bytes() == manifest
    shard.write_bytes(content)
    assert erase(data, ["user-1"]).users == ["user-1"]  # and removes what was left of the tries
    assert sorted(p.name for p in data.parent.iterdir()) == ["data"]


def test_killed_at_every_operation_it_is_the_old_dataset_or_the_new_one(prepared, tmp_path):
    user = one_of_each_split(prepared)[0]
    copies = killed_at_each_operation(prepared, tmp_path, user)
    assert len(copies) > 20
    there = []
    for copy in copies:
        dataset = source.open_dataset(copy, verify=True)
        there.append(user in dataset.users("train").user_ids.tolist())
    assert there == sorted(there, reverse=True) and there[0] and not there[-1]
    for copy in copies[:: len(copies) // 4]:
        erase(copy, [user])
        assert [p.name for p in copy.parent.iterdir()] == [copy.name]
        assert json.loads((copy / "manifest.json").read_text())["users_erased"] == 1
