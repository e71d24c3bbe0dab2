"""What is older than a retention window is neither prepared nor exported."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax.data import retention
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.reader import read_embeddings, read_manifest
from tests.faults.logs import prepare, write
from tests.stages import run_stage, train_arguments

DAY = 86_400
BEGAN = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def day(monkeypatch):
    """Sets what today is: so many days after the logs began."""

    def set_to(number):
        date = (BEGAN + datetime.timedelta(days=number)).date()
        monkeypatch.setattr(retention, "today", lambda: date)
        return date.isoformat()

    set_to(20)
    return set_to


def data(folder, name, *overrides, code=0):
    """A dataset of 60 users with a behaviour on each of 20 days, at noon."""
    first = int(BEGAN.timestamp()) + DAY // 2
    rows = [
        (f"user-{user}", first + n * DAY, f"a pen {n % 7} of {user % 5}")
        for user in range(60)
        for n in range(20)
    ]
    for service in ("shop", "news"):
        write(folder / "logs" / f"{service}.csv", rows)
    sources = (("shop*", "shop"), ("news*", "news"))
    prepare(folder / "logs", folder / name, *overrides, sources=sources, code=code)
    return folder / name


def days_of(dataset):
    times = dataset.users("train").behaviour_times
    return sorted(set(((times - BEGAN.timestamp()) // DAY).astype(int).tolist()))


def test_prepare_keeps_the_window_alone_and_says_so(tmp_path, day):
    all_of_it = open_dataset(data(tmp_path, "all"))
    assert days_of(all_of_it) == list(range(20)) and all_of_it.manifest["retention"] is None
    day(19)
    some = open_dataset(data(tmp_path, "some", "--config.retention_days=5"))
    assert days_of(some) == [15, 16, 17, 18, 19]
    assert some.manifest["retention"] == {"days": 5, "start": "2024-01-16"}
    assert some.manifest["filtered"] == {
        "news: before 2024-01-16": 60 * 15,
        "shop: before 2024-01-16": 60 * 15,
    }
    assert some.manifest["config"]["start"] == ""
    later = "--config.start=2024-01-18"
    assert days_of(open_dataset(data(tmp_path, "later", later, "--config.retention_days=5"))) == [
        17,
        18,
        19,
    ]


def test_an_export_enforces_the_window_of_the_dataset_or_a_shorter_one(tmp_path, day):
    day(19)
    kept = data(tmp_path, "kept", "--config.retention_days=10")
    run_stage("train", *train_arguments(kept, tmp_path / "run", "--config.train.steps=2"))
    arguments = ("export", f"--workdir={tmp_path / 'run'}", f"--data={kept}")

    def exported(name, *overrides, code=0):
        run_stage(*arguments, f"--out={tmp_path / name}", *overrides, code=code)
        return tmp_path / name

    whole = read_embeddings(exported("whole"))
    day(24)  # five of the ten days are over by now
    for name, overrides, left in (
        ("later", (), 5),
        ("longer", ("--config.retention_days=100",), 5),
        ("shorter", ("--config.retention_days=6",), 1),
    ):
        folder = exported(name, *overrides)
        manifest = read_manifest(folder)
        first = {5: "2024-01-16", 1: "2024-01-20"}[left]
        assert (manifest["start"], manifest["retention_days"]) == (first, {5: 10, 1: 6}[left])
        rows = read_embeddings(folder)
        parts = [pq.ParquetFile(part).read() for part in folder.rglob("*.parquet")]
        counts = pa.concat_tables(parts)["num_behaviours_shop"]
        assert set(counts.to_pylist()) == {left}
        assert not np.allclose(rows.embedding_NE, whole.embedding_NE, atol=1e-4)
    exported("cut", "--config.cutoff=2024-01-15", code=2)
    day(40)
    exported("over", code=3)  # nobody has anything left


def test_a_window_needs_dates(tmp_path, smoke_data, smoke_run):
    table = json.loads((smoke_data / "manifest.json").read_text())
    assert table["has_times"] and table["retention"] is None  # the control
    data(tmp_path, "no", "--config.retention_days=-1", code=2)
    overrides = ("--config.retention_days=3", "--config.sources[0].timestamp=")
    data(tmp_path, "no", *overrides, "--config.sources[1].timestamp=", code=2)


def test_windows():
    assert retention.later("", "2024-01-02") == "2024-01-02" == retention.later("2024-01-02", "")
    assert retention.later("2024-01-02T12:00:00+02:00", "2024-01-02").endswith("+02:00")
    assert retention.shortest(0, {}) == 0 == retention.shortest(0, {"retention": None})
    assert retention.shortest(9, {"retention": {"days": 5}}) == 5
    assert retention.shortest(3, {"retention": {"days": 5}}) == 3
    assert retention.window_start(1) == retention.today().isoformat()
    assert retention.window_start(10**7) == "0001-01-01"
