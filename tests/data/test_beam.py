"""`prepare` on Beam makes the dataset that one machine makes, byte for byte.

By Beam's runner in memory where `apache_beam` is installed (docs/beam.md), and always by a double
that runs every step twice on elements in any order.
"""

import dataclasses
import gzip
import json
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax.config import (
    Comparison,
    NewServices,
    PrepareConfig,
    PseudonymConfig,
    RowFilter,
    SourceConfig,
    SplitConfig,
    TokenizerConfig,
)
from clue_jax.data import behaviour_rows
from clue_jax.data.beam import engine, items, plan, reading, users
from clue_jax.data.beam.engine import prepare_on_beam
from clue_jax.data.prepare import prepare
from clue_jax.errors import ClueError, ConfigError, DataError, LostPeerError, StorageError
from tests.data import beam_double
from tests.stages import run_stage

RUNNER = ["--runner=DirectRunner"]
FIRST = 1_600_000_000
WORDS = ("pen", "pencil", "pens", "lamp", "lamps", "map", "mapping")


@pytest.fixture(params=["double", "beam"])
def beam(request, small):
    """Beam itself, or the double."""
    monkeypatch = small
    if request.param == "double":
        beam_double.install(monkeypatch)
    else:
        pytest.importorskip("apache_beam", reason="needs the extra beam in its own environment")
    return request.param


@pytest.fixture
def small(monkeypatch):
    """Many buckets and chunks, however small the logs are."""
    monkeypatch.setattr(plan, "BYTES_PER_LOG_BYTE", 1 << 18)
    monkeypatch.setattr(reading, "CHUNK_ROWS", 50)
    monkeypatch.setattr(users, "CHUNK_USERS", 3)
    monkeypatch.setattr(items, "CHUNK_ITEMS", 5)
    return monkeypatch


@pytest.fixture
def double(small):
    beam_double.install(small)


def contents(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write_logs(folder, count=400, most_users=30):
    """Shop: two Parquet files; search: CSV; others: JSON lines that name their service.

    Every kind has duplicates and rows that are malformed, late or early; a few users have far more
    behaviours than others; texts are shared by services and have several ids at their source, and
    some are those of one user.
    """
    draw = random.Random(3)
    (folder / "shop").mkdir(parents=True)

    def row(n):
        user = f"u{min(int(draw.expovariate(0.15)), most_users)}"
        time = FIRST + 60 * draw.randrange(count // 4)
        text = f"only of {user}" if n % 10 == 0 else f"{WORDS[n % 7]} {n % 9}"
        return {"user_id": user, "timestamp": time, "item_id": f"i{n % 50}", "text": text}

    rows = [row(n) for n in range(count)]
    rows += [*rows[:20], {**row(1), "timestamp": FIRST + 10**7}]
    for part in range(2):
        pq.write_table(pa.Table.from_pylist(rows[part::2]), folder / "shop" / f"{part}.parquet")
    lines = [b"user_id,timestamp,item_id,text"]
    for n in range(count):
        lines.append(",".join(map(str, row(n).values())).encode())
    lines[7] += b",too,many"
    lines[9] = b"u1,not a time,i1,pen"
    lines[30] = b"u2,1600000000,i2,caf\xe9 au lait"
    lines[31] = b"u2,1600000000,i2," + b"long " * 40
    (folder / "search.csv").write_bytes(b"\n".join(lines))
    with gzip.open(folder / "others.jsonl.gz", "wt") as stream:
        for n in range(count // 2):
            service = ("news", "maps")[n % 3 > 0]
            stream.write(json.dumps({**row(n), "service": service}) + "\n")
        stream.write('{"user_id": broken\n')
        stream.write(json.dumps({**row(0), "service": "no name!"}) + "\n")
    return folder


def config_for(folder, **changes):
    common = {"item_id": "item_id"}
    config = PrepareConfig(
        name="mixed",
        source=str(folder),
        sources=(
            SourceConfig(path="shop/*.parquet", service="shop", **common),
            SourceConfig(path="search.csv", service="search", **common),
            SourceConfig(path="others.jsonl.gz", service_column="service", **common),
        ),
        tokenizer=TokenizerConfig(vocab_size=360),
        split=SplitConfig(validation=0.2, test=0.2),
        max_text_bytes=100,
        max_bad_rows=10,
        users_per_shard=5,
    )
    return dataclasses.replace(config, **changes)


RULES = {
    "rejects": {},
    "replaced": {"replace_bad_text": True, "max_item_tokens": 3},
    "window": {"end": "2020-09-14", "drop_repeats": True, "max_history": 4},
    "robots": {"max_behaviours": 100, "min_service_behaviours": 2, "min_behaviours": 5},
    "sample": {"tokenizer": TokenizerConfig(vocab_size=350, max_training_texts=6)},
    "share": {"max_user_share": 0.1, "memory_mb": 512, "max_history": 2},
}


@pytest.mark.parametrize("rules", RULES)
def test_both_engines_make_the_same_bytes(tmp_path, beam, rules):
    config = config_for(write_logs(tmp_path / "logs"), **RULES[rules])
    prepare(config, str(tmp_path / "here"))
    prepare_on_beam(config, str(tmp_path / "beam"), RUNNER)
    here, there = contents(tmp_path / "here"), contents(tmp_path / "beam")
    assert here == there
    manifest = json.loads(here["manifest.json"])
    assert manifest["rejects"] and "rejects.jsonl" in here
    assert len(manifest["services"]) == 4
    assert all(split["shards"] for split in manifest["splits"].values())
    assert len(manifest["splits"]["train"]["shards"]) > 1
    told = {
        "rejects": manifest["duplicates"],
        "replaced": manifest["replaced"] and manifest["truncated_items"],
        "window": manifest["filtered"] and manifest["dropped"].get("repeated behaviours"),
        "robots": manifest["dropped"].get("users above max_behaviours"),
        "sample": manifest["items"]["count"] > 6,
        "share": manifest["dropped"].get("users above max_user_share"),
    }
    assert told[rules], "the rule had nothing to do"


def test_a_bucket_beyond_memory_is_read_in_parts(tmp_path, double, monkeypatch):
    config = config_for(write_logs(tmp_path / "logs"), max_history=3, drop_repeats=True)
    prepare(config, str(tmp_path / "here"))
    in_parts, read = [], behaviour_rows._read_cut

    def read_cut(*arguments):
        in_parts.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(behaviour_rows, "_read_cut", read_cut)
    monkeypatch.setattr(users, "rows_at_once", lambda config, processes: 20)
    prepare_on_beam(config, str(tmp_path / "beam"), RUNNER)
    assert in_parts
    assert contents(tmp_path / "here") == contents(tmp_path / "beam")


def test_a_given_tokenizer_splits_and_pseudonyms_are_kept(tmp_path, beam, monkeypatch):
    monkeypatch.setenv("CLUE_TEST_KEY", "0123456789abcdef")
    logs = tmp_path / "logs"
    logs.mkdir()
    for service in ("shop", "news"):
        with open(logs / f"{service}.jsonl", "w") as stream:
            for n in range(90):
                split = ("train", "validation", "test")[n % 9 % 3]
                row = {"user_id": f"u{n % 9}", "timestamp": FIRST + n, "text": f"pen {n % 13}"}
                stream.write(json.dumps({**row, "split": split}) + "\n")
    sources = [SourceConfig(path=f"{s}.jsonl", service=s, split="split") for s in ("shop", "news")]
    config = PrepareConfig(
        source=str(logs),
        sources=tuple(sources),
        tokenizer=TokenizerConfig(vocab_size=340),
        pseudonym=PseudonymConfig(key_env="CLUE_TEST_KEY"),
    )
    prepare(config, str(tmp_path / "first"))
    sources[1] = dataclasses.replace(sources[1], service="web")  # unknown to this tokenizer
    config = dataclasses.replace(
        config,
        sources=tuple(sources),
        tokenizer=TokenizerConfig(str(tmp_path / "first"), NewServices.RESERVED),
    )
    prepare(config, str(tmp_path / "here"))
    prepare_on_beam(config, str(tmp_path / "beam"), RUNNER)
    here = contents(tmp_path / "here")
    assert here == contents(tmp_path / "beam")
    assert json.loads(here["manifest.json"])["guides"] == {"web": 2}
    assert not any(b"u1" in payload for payload in here.values())


def test_rows_without_a_time_keep_their_order_through_all_files(tmp_path, double):
    logs = tmp_path / "logs"
    logs.mkdir()
    keep = RowFilter("text", Comparison.NOT_EQUAL, "skip")
    for part in range(4):
        texts = [f"item {part * 7 + n}" for n in range(7)]
        lines = [json.dumps({"user_id": f"u{n % 3}", "text": t}) for n, t in enumerate(texts)]
        lines[2] = json.dumps({"user_id": "u1", "text": "skip"})
        (logs / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    sources = tuple(
        SourceConfig(path=path, service=service, timestamp="", keep=(keep,))
        for path, service in (("[01].jsonl", "shop"), ("[23].jsonl", "news"))
    )
    split, tokenizer = SplitConfig(validation=0.0, test=0.0), TokenizerConfig(vocab_size=340)
    config = PrepareConfig(source=str(logs), sources=sources, split=split, tokenizer=tokenizer)
    prepare(config, str(tmp_path / "here"))
    prepare_on_beam(config, str(tmp_path / "beam"), RUNNER)
    assert contents(tmp_path / "here") == contents(tmp_path / "beam")


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "changes",
    [
        {"max_bad_rows": 3},
        {"min_behaviours": 10_000},
        {"max_history": 1, "split": SplitConfig(validation=0.0, test=0.999)},
        {"sources": (SourceConfig(path="empty.csv", service="shop"),)},
        {"sources": (SourceConfig(path="shop/*", service="shop", text="{title}"),)},
        {"sources": (SourceConfig(path="shop/*", service="shop", start="2030-01-01"),)},
        {"sources": (SourceConfig(path="two*.csv", service="shop", split="split"),)},
    ],
    ids=["bad rows", "no user", "no training", "empty", "column", "no row", "two splits"],
)
def test_workers_refuse_in_the_words_of_one_machine(tmp_path, beam, changes):
    logs = write_logs(tmp_path / "logs")
    (logs / "empty.csv").write_text("user_id,timestamp,text\n")
    for part, split in enumerate(["train"] * 6 + ["test", "validation"]):
        rows = [f"u{part},1600000000,pen,train", f"u9,1600000000,pen,{split}"]
        text = "\n".join(["user_id,timestamp,text,split", *rows])
        (logs / f"two_{part}.csv").write_text(text)
    config = config_for(logs, **changes)
    with pytest.raises(ClueError) as here:
        prepare(config, str(tmp_path / "here"))
    with pytest.raises(ClueError) as there:
        prepare_on_beam(config, str(tmp_path / "beam"), RUNNER)
    assert type(there.value) is type(here.value) is DataError
    assert str(there.value) == str(here.value)
    assert not (tmp_path / "beam").exists()


def test_what_failed_can_be_run_again(tmp_path, double, monkeypatch):
    config = config_for(write_logs(tmp_path / "logs"))
    with monkeypatch.context() as broken:
        broken.setattr("clue_jax.data.beam.conclusion.contents_of", lambda *_: 1 / 0)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):  # of another kind: as it is
            prepare_on_beam(config, str(tmp_path / "beam"), RUNNER)
    left = tmp_path / "beam.partial" / "users"
    assert list(left.iterdir()) and not (tmp_path / "beam").exists()
    (left / "users-train.array_record-00000-of-00077").write_text("of another config")
    prepare_on_beam(config, str(tmp_path / "beam"), RUNNER)
    prepare(config, str(tmp_path / "here"))
    assert contents(tmp_path / "beam") == contents(tmp_path / "here")


def test_a_pipeline_that_was_stopped_is_no_dataset(tmp_path, double):
    config = config_for(write_logs(tmp_path / "logs"))
    with pytest.raises(LostPeerError, match="ended as CANCELLED"):
        prepare_on_beam(config, str(tmp_path / "out"), [*RUNNER, "--state=CANCELLED"])
    assert not (tmp_path / "out").exists()


def test_workers_that_write_elsewhere_are_noticed(tmp_path, double, monkeypatch):
    monkeypatch.setattr(engine, "build", lambda *_: None)
    with pytest.raises(StorageError, match=r"contents.json: the workers have written elsewhere"):
        prepare_on_beam(config_for(write_logs(tmp_path / "logs")), str(tmp_path / "out"), RUNNER)


def test_a_worker_with_another_key_is_refused(tmp_path, double, monkeypatch):
    monkeypatch.setenv("CLUE_TEST_KEY", "0123456789abcdef")
    run = engine._run

    def run_elsewhere(*arguments):
        monkeypatch.setenv("CLUE_TEST_KEY", "another 0123456789")
        run(*arguments)

    monkeypatch.setattr(engine, "_run", run_elsewhere)
    logs = write_logs(tmp_path / "logs")
    config = config_for(logs, pseudonym=PseudonymConfig(key_env="CLUE_TEST_KEY"))
    with pytest.raises(ConfigError, match="a worker finds another key"):
        prepare_on_beam(config, str(tmp_path / "out"), RUNNER)


def test_leftovers_of_stopped_workers_are_not_published(tmp_path, double, monkeypatch):
    contents_of = engine._contents

    def leave(staged):
        (staged / "users" / ".users-train.array_record-00000-of-00002.0a.tmp").write_text("half")
        return contents_of(staged)

    monkeypatch.setattr(engine, "_contents", leave)
    logs = write_logs(tmp_path / "logs")
    prepare_on_beam(config_for(logs), str(tmp_path / "beam"), RUNNER)
    prepare(config_for(logs), str(tmp_path / "here"))
    assert contents(tmp_path / "beam") == contents(tmp_path / "here")


def test_options_that_beam_does_not_take_are_refused(tmp_path, double):
    config = config_for(write_logs(tmp_path / "logs"))
    with pytest.raises(ConfigError, match="--beam: --bad: not options of Apache Beam"):
        prepare_on_beam(config, str(tmp_path / "out"), ["--bad"])


def test_without_beam_the_command_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.partition(".")[0] == "apache_beam"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    run_stage(
        "prepare",
        "--config=configs/data/synthetic.py:smoke",
        f"--config.source={tmp_path}",
        f"--out={tmp_path}/out",
        "--beam=--runner=DirectRunner",
        code=2,
    )
    assert "pip install '.[beam]'" in capsys.readouterr().err


def test_many_logs_have_many_buckets(tmp_path):
    config = config_for(tmp_path, memory_mb=2_048)
    assert plan.buckets_for(config, 0) == 1
    assert plan.buckets_for(config, 10**10) == 512
    assert plan.buckets_for(config, 10**18) == 1 << 16
