"""`prepare` end to end on small logs: contents, determinism, resuming, and what it refuses."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from etils import epath

from clue_jax import leases
from clue_jax.config import PrepareConfig, PseudonymConfig, SourceConfig, TokenizerConfig
from clue_jax.data import prepare as stage
from clue_jax.data import writing
from clue_jax.data.prepare import prepare
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError, DataError, LockedError, StorageError

WORDS = ("red", "blue", "pen", "ruler", "lamp", "table", "news", "match")


def write_logs(folder: epath.Path, users: int = 40, seed: int = 0) -> list[dict]:
    """Two services' tables, `shop` in two files; returns the rows."""
    rng = np.random.default_rng(seed)
    everything = []
    for service, parts in (("shop", 2), ("news", 1)):
        (folder / service).mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "user_id": f"person {rng.integers(users)}",
                "timestamp": int(rng.integers(1_600_000_000, 1_700_000_000)),
                "item_id": f"{service}-{n}",
                "title": " ".join(rng.choice(WORDS, 3)),
                "service": service,
            }
            for n in range(6 * users)
        ]
        for part in range(parts):
            table = pa.Table.from_pylist(rows[part::parts])
            pq.write_table(table, folder / service / f"part-{part}.parquet")
        everything += rows
    return everything


def config_for(folder: epath.Path, **changes) -> PrepareConfig:
    sources = tuple(
        SourceConfig(path=f"{s}/*.parquet", service=s, text="{title}", item_id="item_id")
        for s in ("shop", "news")
    )
    config = PrepareConfig(
        name="small",
        source=str(folder),
        sources=sources,
        tokenizer=TokenizerConfig(vocab_size=360),
        users_per_shard=8,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture
def logs(tmp_path):
    folder = epath.Path(tmp_path) / "logs"
    write_logs(folder)
    return folder


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_dataset_holds_the_logs(tmp_path, logs):
    prepare(config_for(logs), str(tmp_path / "out"))
    dataset = open_dataset(tmp_path / "out", verify=True)
    items = dataset.items()
    found = set()
    for split in ("train", "validation", "test"):
        users = dataset.users(split)
        owner = np.repeat(np.arange(len(users)), users.counts().sum(axis=1))
        where = users.item_offsets[owner] + users.behaviour_items
        texts = items.texts[items.lookup(users.item_ids[where])]
        services = items.services[items.lookup(users.item_ids[where])]
        found |= set(
            zip(users.user_ids[owner], services, texts, users.behaviour_times.tolist(), strict=True)
        )
    rows = write_logs(logs)
    assert found == {(r["user_id"], r["service"], r["title"], r["timestamp"]) for r in rows}
    manifest = dataset.manifest
    assert sum(s["users"] for s in manifest["splits"].values()) == len({r[0] for r in found})
    assert dataset.services == ("shop", "news") and dataset.has_times
    assert manifest["quantiles"]["behaviours"]["shop"]["max"] >= 6
    assert manifest["rejects"] == {} and manifest["pseudonym_key_id"] is None
    assert not (tmp_path / "out.partial").exists()


def test_tokens_are_the_guide_and_the_text(tmp_path, logs):
    prepare(config_for(logs), str(tmp_path / "out"))
    dataset = open_dataset(tmp_path / "out")
    users, items = dataset.users("train"), dataset.items()
    rows = items.lookup(users.item_ids)
    for i in range(0, len(rows), 7):
        ids = users.tokens[slice(*users.token_offsets[i : i + 2])]
        assert ids[0] == dataset.tokenizer.guide(items.services[rows[i]])
        assert dataset.tokenizer.decode(ids) == items.texts[rows[i]]


def test_tfds_reads_it_without_tensorflow(tmp_path, logs):
    prepare(config_for(logs), str(tmp_path / "out"))
    users = open_dataset(tmp_path / "out").users("train")
    source = tfds.builder_from_directory(tmp_path / "out" / "users").as_data_source("train")
    assert len(source) == len(users)
    for n in (0, len(users) - 1):
        assert source[n]["user_id"].decode() == users.user_ids[n]
        expected = users.item_ids[slice(*users.item_offsets[n : n + 2])]
        np.testing.assert_array_equal(source[n]["item_ids"], expected)
        np.testing.assert_array_equal(source[n]["behaviour_counts"], users.counts()[n])
    table = tfds.builder_from_directory(tmp_path / "out" / "items").as_data_source("items")
    assert table[0]["item_id"] == open_dataset(tmp_path / "out").items().item_ids[0]
    assert "tensorflow" not in sys.modules


def test_equal_logs_give_equal_bytes_wherever_they_are(tmp_path, logs):
    prepare(config_for(logs), str(tmp_path / "one"))
    moved = epath.Path(tmp_path) / "moved"
    logs.rename(moved)
    prepare(config_for(moved), str(tmp_path / "two"))
    one, two = (contents(tmp_path / name) for name in ("one", "two"))
    differ = {name for name in one if one[name] != two.get(name)} | (set(two) - set(one))
    assert differ == {"manifest.json"}  # it says where the logs were
    prints = {open_dataset(tmp_path / name).fingerprint for name in ("one", "two")}
    assert len(prints) == 1
    write_logs(moved, seed=1)
    prepare(config_for(moved), str(tmp_path / "three"))
    assert open_dataset(tmp_path / "three").fingerprint not in prints


def test_the_vocabulary_sees_training_users_only(tmp_path):
    folder = epath.Path(tmp_path) / "logs"
    for service in ("shop", "news"):
        (folder / service).mkdir(parents=True)
        rows = [
            {
                "user_id": f"{split}{n}",
                "timestamp": n,
                "item_id": n,
                "title": word,
                "split": split,
            }
            for n in range(20)
            for split, word in (("train", "seenword"), ("test", "secretword"))
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / service / "part.parquet")
    config = config_for(folder)
    for source in config.sources:
        source.split = "split"
    prepare(config, str(tmp_path / "out"))
    tokenizer = open_dataset(tmp_path / "out").tokenizer
    seen, secret = tokenizer.encode(["seenword", "secretword"])
    assert len(seen) == 1 and len(secret) > 4


def test_a_given_tokenizer_is_used_as_it_is(tmp_path, logs):
    prepare(config_for(logs), str(tmp_path / "one"))
    given = TokenizerConfig(path=str(tmp_path / "one" / "tokenizer.json"), vocab_size=999)
    write_logs(logs, seed=5)
    prepare(config_for(logs, tokenizer=given), str(tmp_path / "two"))
    one, two = (open_dataset(tmp_path / name) for name in ("one", "two"))
    assert one.tokenizer.identity == two.tokenizer.identity
    missing = config_for(logs, tokenizer=TokenizerConfig(path=str(tmp_path / "no.json")))
    with pytest.raises(ConfigError, match=r"config\.tokenizer\.path.*no\.json"):
        prepare(missing, str(tmp_path / "three"))


def test_pseudonyms_replace_ids_everywhere(tmp_path, logs, monkeypatch):
    monkeypatch.setenv("CLUE_TEST_KEY", "0123456789abcdef0123")
    config = config_for(logs, pseudonym=PseudonymConfig(key_env="CLUE_TEST_KEY"))
    prepare(config, str(tmp_path / "out"))
    dataset = open_dataset(tmp_path / "out")
    assert len(dataset.manifest["pseudonym_key_id"]) == 16
    assert {len(user) for user in dataset.users("train").user_ids} == {64}
    for payload in contents(tmp_path / "out").values():
        assert b"person 1" not in payload and b"0123456789abcdef0123" not in payload


# --------------------------------------------------------------------------- interrupted builds


class Killed(BaseException):
    """Stands for a kill: nothing in the stage may catch it."""


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_a_rerun_reuses_what_is_finished(tmp_path, logs, monkeypatch, after):
    prepare(config_for(logs), str(tmp_path / "undisturbed"))
    written = []
    real = writing.write_shard

    def dying(*args):
        if len(written) == after:
            raise Killed
        written.append(1)
        return real(*args)

    monkeypatch.setattr(writing, "write_shard", dying)
    with pytest.raises(Killed):
        prepare(config_for(logs), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "out.partial" / "users").mkdir(exist_ok=True)
    (tmp_path / "out.partial" / "users" / ".half.tmp").write_bytes(b"half")
    made = []
    monkeypatch.setattr(writing, "write_shard", lambda *a: made.append(1) or real(*a))
    prepare(config_for(logs), str(tmp_path / "out"))
    out, undisturbed = (contents(tmp_path / n) for n in ("out", "undisturbed"))
    assert out == undisturbed
    shards = [name for name in out if "array_record" in name]
    assert len(made) == len(shards) - after and len(shards) > 6


def test_a_damaged_or_foreign_leftover_is_made_again(tmp_path, logs, monkeypatch):
    prepare(config_for(logs), str(tmp_path / "undisturbed"))
    real = stage.write_items

    def dying(*args):
        raise Killed

    for change in ("flip", "other config"):
        monkeypatch.setattr(stage, "write_items", dying)
        config = config_for(logs, max_history=1) if change == "other config" else config_for(logs)
        with pytest.raises(Killed):
            prepare(config, str(tmp_path / "out"))
        shard = next((tmp_path / "out.partial" / "users").glob("users-train*"))
        if change == "flip":
            payload = bytearray(shard.read_bytes())
            payload[len(payload) // 2] ^= 1
            shard.write_bytes(bytes(payload))
        monkeypatch.setattr(stage, "write_items", real)
        prepare(config_for(logs, overwrite=True), str(tmp_path / "out"))
        out, undisturbed = (contents(tmp_path / n) for n in ("out", "undisturbed"))
        assert {n for n in undisturbed if out[n] != undisturbed[n]} == {"manifest.json"}
        open_dataset(tmp_path / "out", verify=True)
        epath.Path(tmp_path / "out").rmtree()


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        ("writing", "write_shard", 3),
        ("spill.Spill", "_flush", 2),  # while logs are read
        ("user_store.UserStore", "write", 1),  # while users are grouped
        ("catalogue.ItemFiles", "save", 1),
    ],
)
def test_kill_minus_nine_and_again(tmp_path, logs, owner, name, at):
    program = f"""
import os, signal
from clue_jax.data import catalogue, prepare as stage, spill, user_store, writing
from tests.data.test_prepare import config_for
from etils import epath
real, count = {owner}.{name}, []
def dying(*args):
    count.append(1)
    if len(count) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
{owner}.{name} = dying
stage.prepare(config_for(epath.Path({str(logs)!r})), {str(tmp_path / "out")!r})
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out.partial").exists() and not (tmp_path / "out").exists()
    assert list((tmp_path / "out.partial").glob(".spill.*"))
    prepare(config_for(logs), str(tmp_path / "out"))
    prepare(config_for(logs), str(tmp_path / "undisturbed"))
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_rerun_in_other_memory_reuses_what_is_finished(tmp_path, logs, monkeypatch, capsys):
    def dying(*args):
        raise Killed

    real = stage.write_items
    monkeypatch.setattr(stage, "write_items", dying)
    with pytest.raises(Killed):
        prepare(config_for(logs), str(tmp_path / "out"))
    monkeypatch.setattr(stage, "write_items", real)
    prepare(config_for(logs, memory_mb=512), str(tmp_path / "out"))
    users = len(list((tmp_path / "out" / "users").glob("*array_record*")))
    assert f"{users + 1} finished files reused" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="memory_mb: 100 is too little"):
        prepare(config_for(logs, memory_mb=100), str(tmp_path / "more"))


# ------------------------------------------------------------------------------ several processes


def test_the_number_of_processes_changes_no_byte(tmp_path, logs):
    for path in logs.glob("*/*"):  # equal times, and rows without a user in each file
        columns = pq.read_table(path).to_pydict()
        columns["timestamp"] = [time // 10**7 * 10**7 for time in columns["timestamp"]]
        columns["user_id"][5:100:40] = [None] * 3
        pq.write_table(pa.table(columns), path)
    first = next(logs.glob("shop/*-0*"))  # smaller than the second, so that it is dealt after it
    pq.write_table(pq.read_table(first).slice(0, 100), first)
    for count in (1, 2, 3):
        config = config_for(logs, processes=count, max_bad_rows=9)
        prepare(config, str(tmp_path / str(count)))
    one, two, three = (contents(tmp_path / str(n)) for n in (1, 2, 3))
    differ = {name for name in one if not one[name] == two.get(name) == three.get(name)}
    assert differ == {"manifest.json"} and set(one) == set(two) == set(three)  # it has the config
    prints = {open_dataset(tmp_path / str(n)).fingerprint for n in (1, 2, 3)}
    assert len(prints) == 1 and len(one["rejects.jsonl"].splitlines()) == 9


@pytest.mark.parametrize(("count", "memory_mb", "room"), [(2, 512, 1), (9, 2_048, 4)])
def test_processes_that_do_not_fit_are_refused(logs, tmp_path, count, memory_mb, room):
    config = config_for(logs, processes=count, memory_mb=memory_mb)
    with pytest.raises(ConfigError, match=rf"processes: {count} do not fit .*room for {room}$"):
        prepare(config, str(tmp_path / "out"))


def test_small_logs_are_read_by_one_process(logs, monkeypatch):
    monkeypatch.setattr(stage.os, "sched_getaffinity", lambda pid: range(16), raising=False)

    def processes(log_bytes, **given):
        return stage._processes(config_for(logs, **given), log_bytes)

    assert processes(10**6) == 1 and processes(10**6, processes=3) == 3
    assert processes(10**10) == 4  # what memory_mb has room for
    assert processes(10**10, memory_mb=64_000) == 16


# ------------------------------------------------------------------------------------- refusals


def test_an_output_is_never_replaced_silently(tmp_path, logs):
    prepare(config_for(logs), str(tmp_path / "out"))
    before = contents(tmp_path / "out")
    with pytest.raises(StorageError, match="overwrite=true"):
        prepare(config_for(logs, max_history=1), str(tmp_path / "out"))
    assert contents(tmp_path / "out") == before
    prepare(config_for(logs, max_history=1, overwrite=True), str(tmp_path / "out"))
    assert contents(tmp_path / "out") != before


def test_a_second_writer_is_turned_away(tmp_path, logs):
    with leases.lease(tmp_path / "out.lock"), pytest.raises(LockedError, match="held by process"):
        prepare(config_for(logs), str(tmp_path / "out"))


def test_bad_rows_are_tolerated_up_to_a_number(tmp_path, logs):
    path = logs / "news" / "part-1.parquet"
    rows = [{"user_id": None, "timestamp": 5, "item_id": "x", "title": "secret words"}] * 3
    kinds = pa.schema(
        [
            ("user_id", pa.string()),
            ("timestamp", pa.int64()),
            ("item_id", pa.string()),
            ("title", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, kinds), path)
    with pytest.raises(DataError, match=r"part-1\.parquet:1: column 'user_id'"):
        prepare(config_for(logs, max_bad_rows=2), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    prepare(config_for(logs, max_bad_rows=3), str(tmp_path / "out"))
    assert sum(open_dataset(tmp_path / "out").manifest["rejects"].values()) == 3
    listed = (tmp_path / "out" / "rejects.jsonl").read_text()
    assert listed.count("\n") == 3 and "secret" not in listed


def test_what_is_wrong_with_the_config_is_said_before_anything_is_read(tmp_path):
    config = PrepareConfig(source=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="sources"):
        prepare(config, str(tmp_path / "out"))
    with pytest.raises(DataError, match="no such folder"):
        prepare(config_for(epath.Path(tmp_path) / "nowhere"), str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())
