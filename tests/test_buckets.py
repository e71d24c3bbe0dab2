"""Folders in buckets: published by their manifest, made by `prepare` and `export`, read again."""

import functools
import json
from pathlib import Path

import pytest
from etils import epath

from clue_jax import buckets, files, leases, publishing
from clue_jax.errors import LockedError, StorageError
from clue_jax.training.log import Log, read_rows
from tests.buckets import bucket
from tests.stages import run_stage

ROOT = Path(__file__).parents[1]


@pytest.fixture
def objects():
    with bucket() as found:
        yield found


def test_a_url_is_whole_as_it_is_and_no_other_path_is_made_whole_otherwise():
    assert str(buckets.absolute("gs://bucket/runs")) == "gs://bucket/runs"
    assert str(buckets.absolute("runs")) == str(Path.cwd() / "runs")
    # `resolve` and `absolute` of etils make a folder `gs:` here, where a pod's results would go.
    assert str(epath.Path("gs://bucket/runs").resolve()) != "gs://bucket/runs"
    for file in (ROOT / "clue_jax").rglob("*.py"):
        calls = file.read_text().count(".resolve()")
        assert calls == (1 if file.name == "buckets.py" else 0), file


def test_files_are_written_whole_and_leases_exclude(objects):
    files.write_json("gs://bucket/a/b.json", {"x": 1})
    files.write_json("gs://bucket/a/b.json", {"x": 2})
    assert files.read_json("gs://bucket/a/b.json") == {"x": 2}
    assert list(objects) == ["gs://bucket/a/b.json"]
    lease = functools.partial(leases.lease, "gs://bucket/lock")
    with lease(), pytest.raises(LockedError, match="held by process"), lease():
        pass
    assert "gs://bucket/lock" not in objects


def test_rows_are_added_to_a_log(objects):
    path = epath.Path("gs://bucket/run/metrics.jsonl")
    for step in (1, 2):
        Log(path, 10).write({"step": step})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    log = Log(path, 1)
    log.write({"step": 3})
    assert [row["step"] for row in read_rows(path)] == [1, 3]


def staged(texts, **more):
    with publishing.staged_directory("gs://bucket/out", **more) as folder:
        for name, text in texts.items():
            files.write_text(folder / name, text)


def test_a_folder_is_published_with_its_manifest_last(objects):
    staged({"manifest.json": "m", "part/a": "1", "_SUCCESS": "", "z": "2"})
    names = [name.removeprefix("gs://bucket/out/") for name in objects]
    assert names == ["part/a", "z", "manifest.json", "_SUCCESS"]
    with pytest.raises(StorageError, match="already there"):
        staged({"other": "3"})
    staged({"manifest.json": "n", "other": "3"}, overwrite=True)
    assert sorted(objects) == ["gs://bucket/out/manifest.json", "gs://bucket/out/other"]


def test_a_checkpoint_counts_once_it_says_that_it_is_whole(objects, tmp_path):
    from launch.supervise import newest_step

    for step in (10, 5, 15):
        files.write_text(f"gs://bucket/run/checkpoints/{step}/params/d/0", "bits")
    assert newest_step("gs://bucket/run") is None
    for step in (10, 5):
        files.write_text(f"gs://bucket/run/checkpoints/{step}/commit_success.txt", "")
    assert buckets.checkpoint_steps("gs://bucket/run/checkpoints") == [5, 10]
    assert newest_step("gs://bucket/run") == 10
    (tmp_path / "10").mkdir()  # renamed when it was whole
    assert buckets.checkpoint_steps(tmp_path) == [10]


def test_a_failure_leaves_nothing_under_the_final_name(objects):
    with pytest.raises(ZeroDivisionError), publishing.staged_directory("gs://bucket/out") as folder:
        files.write_text(folder / "a", "1")
        _ = 1 / 0
    assert list(objects) == ["gs://bucket/out.partial/a"]
    assert buckets.listed("gs://bucket/out") == []


def test_stages_write_the_same_into_a_bucket(objects, smoke_data, smoke_run, tmp_path):
    run_stage("synthesize", "--config=configs/synthesize.py:smoke", f"--out={tmp_path}/logs")
    arguments = ["--config=configs/data/synthetic.py:smoke", f"--config.source={tmp_path}/logs"]
    run_stage("prepare", *arguments, "--out=gs://bucket/data")
    here = json.loads((smoke_data / "manifest.json").read_text())
    there = files.read_json("gs://bucket/data/manifest.json")
    assert there["fingerprint"] == here["fingerprint"]
    for path in smoke_data.rglob("*.array_record*"):
        name = f"gs://bucket/data/{path.relative_to(smoke_data)}"
        assert objects[name].getvalue() == path.read_bytes()
    run_stage("export", f"--workdir={smoke_run}", f"--data={smoke_data}", "--out=gs://bucket/users")
    run_stage("embeddings", "verify", "gs://bucket/users")
    assert not [name for name in objects if ".partial" in name or name.endswith(".lock")]
