"""The cache of a split: the users of the shards, complete or absent, no flipped bit unseen."""

import errno
import pathlib
import random
import signal
import subprocess
import sys
import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from etils import epath

from clue_jax.config import DataConfig, EncoderConfig, PretrainConfig, TrainConfig
from clue_jax.data import blocks, cache, source
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.cache import StoredUsers, open_or_build
from clue_jax.data.records import Users
from clue_jax.data.source import open_dataset
from clue_jax.errors import DataError, StorageError
from clue_jax.parallel.mesh import single_device_mesh
from tests.data.test_records import plain, random_users
from tests.samples import sample_users

IDENTITY = {"fingerprint": "f" * 64, "split": "train", "services": ["a", "b"]}
ON_DISK = DataConfig(in_memory_mb=0)


def stored(folder, users, parts=3):
    """A cache of these users, written in parts."""
    cuts = np.array_split(np.arange(len(users)), parts)
    identity = IDENTITY | {"services": list(users.services)}
    return open_or_build(epath.Path(folder), identity, lambda: (users.take(c) for c in cuts))


def same_columns(one: Users, other: Users):
    for name, values in vars(one).items():
        np.testing.assert_array_equal(values, getattr(other, name), err_msg=name)


# --------------------------------------------------------------------------------------- contents


@hypothesis.given(st.integers(0, 1000), st.lists(st.integers(0, 5), max_size=9))
@hypothesis.settings(max_examples=40, deadline=None)
def test_taking_is_that_of_users_in_memory(tmp_path_factory, seed, indices):
    users = random_users(seed)
    table = stored(tmp_path_factory.mktemp("cache") / "c", users)
    assert len(table) == len(users) and table.services == users.services
    same_columns(table.take(indices), users.take(indices))
    for ours, theirs in zip(table.outlines(2), users.outlines(2), strict=True):
        for name, values in vars(theirs).items():
            np.testing.assert_array_equal(getattr(ours, name), values, err_msg=name)


def test_rows_across_blocks_and_after_pages_were_handed_back(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_MAPPED_BYTES", 1)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 24)
    monkeypatch.setattr(cache, "BLOCK_BYTES", 24)
    users = sample_users(50, seed=2)
    table = stored(tmp_path / "c", users, parts=7)
    rng = np.random.default_rng(0)
    for size in (1, 5, 50, 200):
        rows = rng.integers(0, 50, size)
        same_columns(table.take(rows), users.take(rows))


def test_no_users_and_wrong_users(tmp_path):
    none = stored(tmp_path / "none", random_users(0).take([]))
    assert len(none) == 0 and plain(none.take([])) == [] and list(none.outlines()) == []
    assert len(none.gathered([], np.int64)) == 0
    table = stored(tmp_path / "some", random_users(0))
    for wrong in ([6], [-1]):
        with pytest.raises(IndexError, match="of 6"):
            table.take(wrong)


def test_what_is_gathered_over_users_lies_on_disk(tmp_path):
    table = stored(tmp_path / "c", random_users(0))
    before = set((tmp_path / "c").iterdir())
    found = table.gathered((np.arange(n) for n in (3, 0, 2)), np.float64)
    assert isinstance(found, np.memmap) and found.tolist() == [0, 1, 2, 0, 1]
    assert set((tmp_path / "c").iterdir()) == before  # without a name, so nothing is left behind


# ----------------------------------------------------------------------------------------- damage


def test_every_flipped_bit_is_found_or_made_anew(tmp_path):
    users = sample_users(400, seed=1)
    everyone = np.arange(len(users))
    stored(tmp_path / "c", users)
    rng = random.Random(0)
    contents = sorted((tmp_path / "c").iterdir())
    found = {"read": 0, "open": 0}
    for n in range(60):
        path = contents[n % len(contents)]
        payload = path.read_bytes()
        place, bit = rng.randrange(len(payload)), rng.randrange(8)
        flipped = bytearray(payload)
        flipped[place] ^= 1 << bit
        path.write_bytes(bytes(flipped))
        table = stored(tmp_path / "c", users)
        if path.name in (cache.INDEX, cache.CHECKSUMS):
            same_columns(table.take(everyone), users)
            found["open"] += 1
            continue
        with pytest.raises(DataError, match=rf"c/{path.name}: damaged in block 0.*made anew"):
            table.take(everyone)
        if path.name in ("tokens", "item_ids", "behaviour_items", "behaviour_times"):
            # The control: unchecked, other users would come out.
            table._columns[path.name]._checked[:] = True
            unchecked = getattr(table.take(everyone), path.name)
            assert (unchecked != getattr(users, path.name)).sum() == 1
        found["read"] += 1
        path.write_bytes(payload)
    assert found["read"] >= 40 and found["open"] >= 10
    same_columns(stored(tmp_path / "c", users).take(everyone), users)


def test_only_what_is_read_is_checked_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    monkeypatch.setattr(cache, "BLOCK_BYTES", 64)
    users = sample_users(200, seed=1)
    stored(tmp_path / "c", users)
    path = tmp_path / "c" / "tokens"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(bytes(payload))
    table = stored(tmp_path / "c", users)
    sums = []
    whole = blocks.zlib.crc32
    monkeypatch.setattr(blocks.zlib, "crc32", lambda *a: sums.append(a) or whole(*a))
    same_columns(table.take([3]), users.take([3]))
    assert len(sums) < 40
    sums.clear()
    same_columns(table.take([3]), users.take([3]))
    assert not sums
    with pytest.raises(DataError, match=r"tokens: damaged in block \d+"):
        table.take([199])


@pytest.mark.parametrize("name", ["tokens", "item_offsets", "checksums", "cache.json"])
def test_a_file_that_is_cut_or_missing_is_made_anew(tmp_path, name, capsys):
    users = sample_users(20)
    for damage in (lambda p: p.write_bytes(p.read_bytes()[:-2]), pathlib.Path.unlink):
        stored(tmp_path / "c", users)
        damage(tmp_path / "c" / name)
        same_columns(stored(tmp_path / "c", users).take(range(20)), users)
        assert "building the cache anew" in capsys.readouterr().out


def test_a_cache_of_other_contents_is_made_anew(tmp_path):
    users, others = sample_users(20), sample_users(20, seed=9)
    stored(tmp_path / "c", others)
    identity = IDENTITY | {"services": list(users.services), "fingerprint": "0" * 64}
    table = open_or_build(epath.Path(tmp_path / "c"), identity, lambda: [users])
    same_columns(table.take(range(20)), users)


def test_a_shard_that_is_damaged_leaves_nothing(tmp_path):
    def parts():
        yield sample_users(5)
        raise DataError("shard 2: damaged")

    with pytest.raises(DataError, match="shard 2: damaged"):
        open_or_build(epath.Path(tmp_path / "c"), IDENTITY, parts)
    assert not (tmp_path / "c").exists() and not list((tmp_path / "c.partial").iterdir())


# -------------------------------------------------------------------------------------- processes

BUILDER = """
import sys, time, numpy as np
from etils import epath
from clue_jax.data.cache import open_or_build
from tests.samples import sample_users
folder, pause = sys.argv[1], float(sys.argv[2])
users = sample_users(40, seed=3)
def parts():
    print("building", flush=True)
    for cut in np.array_split(np.arange(40), 8):
        time.sleep(pause)
        yield users.take(cut)
identity = {"fingerprint": "f", "split": "train", "services": list(users.services)}
table = open_or_build(epath.Path(folder), identity, parts)
same = all(np.array_equal(a, getattr(users, n)) for n, a in vars(table.take(range(40))).items()
           if n != "services")
print("same" if same else "other", flush=True)
"""


def builder(folder, pause=0.0):
    command = [sys.executable, "-c", BUILDER, str(folder), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_processes_that_build_at_once_one_does(tmp_path):
    processes = [builder(tmp_path / "c", pause=0.2) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0].split("\n") for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("building" in output for output in outputs) == 1
    assert all("same" in output for output in outputs)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_kill_leaves_no_cache_and_the_next_builds_it(tmp_path):
    process = builder(tmp_path / "c", pause=0.3)
    deadline = time.monotonic() + 60
    while not (tmp_path / "c.partial" / "tokens").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "c").exists()
    again = builder(tmp_path / "c")
    assert again.communicate(timeout=60)[0].split() == ["building", "same"]
    assert builder(tmp_path / "c").communicate(timeout=60)[0].split() == ["same"]


SWEEP = """
import pathlib, re, sys, numpy as np
from etils import epath
from clue_jax.config import EncoderConfig, PretrainConfig, TrainConfig
from clue_jax.data import blocks
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.cache import open_or_build
from clue_jax.parallel.mesh import single_device_mesh
from tests.samples import sample_users
blocks._MAPPED_BYTES = 1 << 20  # small beside the smaller of the datasets
folder, parts, whole = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "whole"
users = sample_users(1_000, seed=3, longest_item=60, longest_history=20, catalogue=500)
identity = {"fingerprint": "f", "split": "train", "services": list(users.services)}
table = open_or_build(epath.Path(folder), identity, lambda: (users for _ in range(parts)))
config = PretrainConfig(encoder=EncoderConfig(), train=TrainConfig(batch_users=64))
batches = TrainBatches([Source("users", "0" * 64, table)], config, single_device_mesh())
for step in range(30):
    batches.host_batch(step)
if whole:
    table.take(np.arange(len(table)))
# Of this program alone: ru_maxrss starts with what the parent had when it forked.
status = pathlib.Path("/proc/self/status").read_text()
print(sum(p.stat().st_size for p in pathlib.Path(folder).iterdir()),
      1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]))
"""


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    """Building, sweeping and drawing; the control, which takes everyone, does grow."""

    def peak(parts, mode="batches"):
        command = [sys.executable, "-c", SWEEP, str(tmp_path / str(parts)), str(parts), mode]
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return np.array(output.stdout.split(), int)

    (size, small), (larger, large) = peak(32), peak(96)
    assert larger - size > 150e6
    assert large - small < 0.3 * (larger - size)
    assert peak(96, "whole")[1] - small > 0.5 * (larger - size)


# --------------------------------------------------------------------------------------- datasets


@pytest.fixture
def data(smoke_data, tmp_path):
    """A dataset folder of one's own."""
    import shutil

    return pathlib.Path(shutil.copytree(smoke_data, tmp_path / "data"))


def test_a_small_split_stays_in_memory(data):
    dataset = open_dataset(data)
    assert dataset.table("train", DataConfig()) is dataset.users("train")
    assert not (data / "cache").exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_batches_do_not_depend_on_where_users_are(data, tmp_path, elsewhere, monkeypatch):
    config = PretrainConfig(
        data=DataConfig(in_memory_mb=0, cache=str(tmp_path / "elsewhere") if elsewhere else ""),
        encoder=EncoderConfig(max_history=6),
        train=TrainConfig(batch_users=16),
    )
    dataset, mesh = open_dataset(data), single_device_mesh()
    table = dataset.table("train", config.data)
    assert isinstance(table, StoredUsers)
    assert table.folder.parent == epath.Path(
        tmp_path / "elsewhere" if elsewhere else data / "cache"
    )
    on_disk, in_memory = (
        TrainBatches([Source("users", dataset.fingerprint, users)], config, mesh)
        for users in (table, dataset.users("train"))
    )
    assert on_disk.capacity == in_memory.capacity
    for step in (0, 7):
        pair = on_disk.host_batch(step)[0], in_memory.host_batch(step)[0]
        for ours, theirs in zip(*pair, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # A second opening reads no shard.
    monkeypatch.setattr(source.shards, "read_records", None)
    again = open_dataset(data).table("train", config.data)
    same_columns(again.take([3, 1]), table.take([3, 1]))


def test_where_no_cache_can_be_written_users_are_held_in_memory(
    data, tmp_path, monkeypatch, capsys
):
    def full(array, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blocks.ArrayWriter, "append", full)
    dataset = open_dataset(data)
    assert dataset.table("train", ON_DISK) is dataset.users("train")
    said = capsys.readouterr().out
    assert "no cache of the train users" in said and "free some space" in said
    assert not any(path.is_file() for path in (data / "cache").rglob("*"))
    with pytest.raises(StorageError, match="free some space"):
        dataset.table("train", DataConfig(in_memory_mb=0, cache=str(tmp_path / "elsewhere")))


def test_a_cache_in_a_bucket_is_refused(data):
    with pytest.raises(StorageError, match="cannot be memory-mapped"):
        open_dataset(data).table("train", DataConfig(in_memory_mb=0, cache="gs://bucket/cache"))
