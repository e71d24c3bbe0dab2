"""Opening a dataset: whatever is missing, damaged, swapped, newer or hostile is refused by name."""

import json
import pathlib
import random
import shutil

import numpy as np
import pytest
from etils import epath

from clue_jax import files
from clue_jax.data import manifest as manifests
from clue_jax.data.prepare import prepare
from clue_jax.data.records import encode_users
from clue_jax.data.shards import write_shard
from clue_jax.data.source import open_dataset
from clue_jax.errors import DataError
from tests.data.test_prepare import config_for, write_logs


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("source"))
    write_logs(folder / "logs")
    prepare(config_for(folder / "logs"), str(folder / "out"))
    return pathlib.Path(folder / "out")


@pytest.fixture
def copy(original, tmp_path):
    return pathlib.Path(shutil.copytree(original, tmp_path / "copy"))


def read_all(path, verify=False):
    """Every column of every split and of the items."""
    dataset = open_dataset(path, verify=verify)
    tables = [dataset.users(split) for split in dataset.manifest["splits"]] + [dataset.items()]
    return [np.asarray(column).tolist() for table in tables for column in vars(table).values()]


def train_shard(path, number=0):
    return sorted((path / "users").glob("users-train*"))[number]


def rewrite_manifest(path, change):
    """Changes the manifest and makes its fingerprint fit again."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    manifest["fingerprint"] = manifests.fingerprint(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def replace_shard(path, file, payload):
    """Puts other contents where a shard was, and their size and checksum in the manifest."""
    (path / file).write_bytes(payload)

    def change(manifest):
        for entry in manifests.shard_entries(manifest):
            if entry["file"] == file:
                entry |= {"bytes": len(payload), "sha256": files.sha256_file(path / file)}

    rewrite_manifest(path, change)


def test_an_untouched_copy_is_accepted(copy, original):
    read_all(copy, verify=True)
    assert open_dataset(copy).fingerprint == open_dataset(original).fingerprint
    users = open_dataset(copy).users("train")
    assert users is not open_dataset(copy).users("train")
    dataset = open_dataset(copy)
    assert dataset.users("train") is dataset.users("train")


def test_an_unknown_item_and_split_are_named(original):
    dataset = open_dataset(original)
    items = dataset.items()
    assert items.lookup(items.item_ids[::-1]).tolist() == list(range(len(items)))[::-1]
    with pytest.raises(DataError, match=r"item 0x[0-9a-f]{16}: not in this dataset"):
        items.lookup(items.item_ids[:3] + np.uint64(1))
    with pytest.raises(DataError, match="no split 'dev'; it has test, train, validation"):
        dataset.users("dev")


def test_a_folder_without_a_dataset(tmp_path):
    (tmp_path / "x.partial").mkdir()
    with pytest.raises(DataError, match="not a prepared dataset; prepare has not finished"):
        open_dataset(tmp_path / "x")


def test_a_shard_that_is_missing_or_cut_is_found_at_once(copy):
    shard = train_shard(copy)
    payload = shard.read_bytes()
    shard.write_bytes(payload[:-1])
    with pytest.raises(DataError, match=rf"{shard.name}: .* bytes, but manifest.json says"):
        open_dataset(copy)
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: missing"):
        open_dataset(copy)
    shard.write_bytes(payload)
    read_all(copy)


def flipped(payload, rng):
    place = rng.randrange(len(payload))
    changed = bytearray(payload)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_every_flipped_bit_is_found(copy):
    rng, whole = random.Random(0), read_all(copy)
    shards = [
        *sorted((copy / "users").glob("*array_record*")),
        next((copy / "items").glob("*array_record*")),
    ]
    named = 0
    for _ in range(30):
        shard = rng.choice(shards)
        payload = shard.read_bytes()
        shard.write_bytes(flipped(payload, rng))
        with pytest.raises(DataError, match=rf"{shard.name}: contents differ"):
            open_dataset(copy, verify=True)
        with pytest.raises(DataError, match=rf"{shard.name}: (damaged|contents)") as caught:
            read_all(copy)
        named += "damaged in record" in str(caught.value)
        shard.write_bytes(payload)
    assert named > 0
    assert read_all(copy, verify=True) == whole


def test_a_damaged_record_is_named(copy):
    shard = train_shard(copy)
    payload = bytearray(shard.read_bytes())
    users = open_dataset(copy).users("train")
    place = bytes(payload).index(users.item_ids[users.item_offsets[3] :][:2].tobytes())
    payload[place] ^= 1
    shard.write_bytes(bytes(payload))
    with pytest.raises(DataError, match=rf"{shard.name}: damaged in record 3;"):
        read_all(copy)


def test_a_shard_of_another_split_is_found(copy):
    one, other = train_shard(copy, 0), train_shard(copy, 1)
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) != len(second) or first != second
    replace_shard(copy, f"users/{one.name}", second)
    with pytest.raises(DataError, match="but manifest.json says"):
        read_all(copy)


def test_a_token_outside_the_vocabulary_names_shard_and_record(copy):
    dataset = open_dataset(copy)
    shard = dataset.manifest["splits"]["train"]["shards"][1]
    users = dataset.users("train").take(np.arange(8, 8 + shard["users"]))
    tokens = users.tokens.copy()
    last = users.token_offsets[users.item_offsets[3]] - 1  # the last token of record 2
    tokens[last] = dataset.tokenizer.vocab_size
    records = encode_users(type(users)(**{**vars(users), "tokens": tokens}))
    made = write_shard(records, copy.parent / "made")
    replace_shard(copy, shard["file"], made.path.read_bytes())
    with pytest.raises(DataError, match=r"train.*-00001-of.*: record 2: token id \d+ is not in"):
        read_all(copy, verify=True)


def test_a_newer_schema_is_refused_whatever_else_it_says(copy):
    (copy / "manifest.json").write_text(json.dumps({"schema_version": 99, "shape": "unknown"}))
    with pytest.raises(DataError, match="schema_version 99 is newer than 1.*update clue_jax"):
        open_dataset(copy)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("{", "not valid JSON"),
        ("[]", "no schema_version"),
        ('{"schema_version": 1}', "is missing"),
    ],
)
def test_a_manifest_that_is_none(copy, text, problem):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=rf"manifest\.json: .*{problem}"):
        open_dataset(copy)


def test_a_manifest_that_was_edited(copy):
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["users"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="do not match its fingerprint"):
        open_dataset(copy)
    rewrite_manifest(copy, lambda m: None)
    with pytest.raises(DataError, match="split 'train' holds"):
        read_all(copy)


def test_a_shard_outside_the_dataset_is_refused(copy):
    def change(manifest):
        manifest["items"]["shards"][0]["file"] = "../../etc/passwd"

    rewrite_manifest(copy, change)
    with pytest.raises(DataError, match="cannot be a shard"):
        open_dataset(copy)


def test_another_tokenizer_is_refused(copy):
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text + " ")
    with pytest.raises(DataError, match="belongs to another dataset"):
        open_dataset(copy)


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_features_that_name_a_module_are_refused_before_tfds_sees_them(copy, key, monkeypatch):
    path = copy / "users" / "features.json"
    features = json.loads(path.read_text())
    features["featuresDict"]["features"]["extra"] = {key: "evil_module.Feature"}
    path.write_text(json.dumps(features))
    with pytest.raises(DataError, match=r"features\.json: names the class 'evil_module\.Feature'"):
        open_dataset(copy)
