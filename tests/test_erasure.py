"""`erase`: people are gone from datasets and exports, and it is known which models saw them."""

import json
import re
import shutil

import pytest

from clue_jax import files
from clue_jax.config import DataConfig
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.index import IndexSettings, open_index
from clue_jax.embeddings.index_build import build_index
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.embeddings.verify import verify
from tests.data.test_erase import contents
from tests.stages import run_stage, train_arguments


@pytest.fixture
def world(tmp_path, smoke_data, smoke_run):
    """A dataset, a run on it with a cache apart, an export with an index, and two more runs."""
    shutil.copytree(smoke_data, tmp_path / "data")
    shutil.copytree(smoke_run, tmp_path / "run")
    change(tmp_path / "run/config.json", data={"cache": str(tmp_path / "cache")})
    config = DataConfig(in_memory_mb=0, cache=str(tmp_path / "cache"))
    open_dataset(tmp_path / "data").table("train", config)
    for name, origin in (("heir", "run"), ("apart", "")):
        (tmp_path / name).mkdir()
        for file in ("config.json", "dataset.json", "guides.json"):
            shutil.copy(smoke_run / file, tmp_path / name / file)
        change(tmp_path / name / "config.json", init_from=origin and str(tmp_path / origin))
        change(tmp_path / name / "dataset.json", fingerprint="e" * 64)
    where = (f"--workdir={tmp_path}/run", f"--data={tmp_path}/data", f"--out={tmp_path}/users")
    run_stage("export", *where)
    build_index(tmp_path / "users", IndexSettings())
    return tmp_path


def change(path, **values):
    before = json.loads(path.read_text())
    merged = {k: {**before[k], **v} if isinstance(v, dict) else v for k, v in values.items()}
    path.write_text(json.dumps({**before, **merged}))


def listed(world):
    """One user of each split, in a file with somebody who is nowhere."""
    dataset = open_dataset(world / "data")
    ids = [str(dataset.users(split).user_ids[3]) for split in ("train", "validation", "test")]
    (world / "forget.txt").write_text("\n".join([*ids, "nobody"]))
    return ids


def erase(world, *more, record="record.json", code=0):
    arguments = (f"--ids={world}/forget.txt", f"--record={world / record}", *more)
    run_stage("erase", *arguments, code=code)


EVERYWHERE = ("data", "embeddings", "workdir", "workdir", "workdir")
NAMES = ("data", "users", "heir", "run", "apart")


def everywhere(world):
    return [f"--{flag}={world / name}" for flag, name in zip(EVERYWHERE, NAMES, strict=True)]


def test_they_are_gone_from_all_and_the_record_says_what_saw_them(world, capsys):
    ids = listed(world)
    before = open_dataset(world / "data").fingerprint
    versions = [read_embeddings(world / "users").manifest["model_version"]]
    # The control: they are there before, in the index and the cache as well.
    places = [world / name for name in ("data", "users", "cache")]
    assert [len(holding(place, ids)) for place in places] == [3, 3, 1]
    erase(world, *everywhere(world))
    assert [holding(place, ids) for place in places] == [[], [], []]
    assert verify(world / "users") and open_dataset(world / "data", verify=True)
    assert not set(open_index(world / "users").ids.to_pylist()) & set(ids)
    record = json.loads((world / "record.json").read_text())
    assert record["ids_sha256"] == sorted(map(files.sha256_text, [*ids, "nobody"]))
    assert holding(world / "record.json", [*ids, "nobody"]) == []
    (data,), (export,) = record["datasets"], record["exports"]
    for place in (data, export):
        assert (place["erased"], place["erased_before"], place["unknown"]) == (3, 0, 1)
    assert data["fingerprint_before"] == before != data["fingerprint"]
    assert data["splits"] == {"train": 1, "validation": 1, "test": 1}
    assert export["indexes"] == ["embedding"]
    now = read_embeddings(world / "users").manifest["dataset"]["fingerprint"]
    assert (export["dataset"], now) == (before, data["fingerprint"])
    saw = {model["path"]: model for model in record["models"]}
    run, heir, apart = (saw[str(world / name)] for name in ("run", "heir", "apart"))
    assert (run["saw"], run["users"], len(run["versions"])) == ("trained on", 2, 2)
    assert run["versions"][-1:] == versions
    assert (heir["saw"], heir["from"]) == ("descends from", str(world / "run"))
    assert (apart["saw"], apart["users"]) == ("not seen", 0)
    printed = capsys.readouterr().out
    assert "not done: models: nothing is untrained" in printed and not named(printed, ids)


def holding(path, ids):
    """Those of the ids that are anywhere below a folder, or in a file."""
    if path.is_file():
        return named(path.read_text(), ids)
    return named(contents(path).decode("utf-8", "replace"), ids) if path.exists() else []


def named(text, ids):
    return [user for user in ids if re.search(rf"{re.escape(user)}(?!\d)", text)]


def test_the_same_command_again_knows_who_was_erased_before(world):
    listed(world)
    erase(world, f"--embeddings={world / 'users'}")
    erase(world, f"--data={world / 'data'}", record="two.json")
    erase(world, *everywhere(world), record="all.json")
    record = json.loads((world / "all.json").read_text())
    for place in (*record["datasets"], *record["exports"]):
        assert (place["erased"], place["erased_before"], place["unknown"]) == (0, 3, 1)
    now = read_embeddings(world / "users").manifest["dataset"]["fingerprint"]
    assert now == open_dataset(world / "data").fingerprint
    saw = {model["path"]: model["saw"] for model in record["models"]}
    assert list(saw.values()) == ["descends from", "trained on", "not seen"]


def test_an_export_with_somebody_the_dataset_has_lost_stays_one_of_the_dataset_before(world):
    one, *others = listed(world)
    before = open_dataset(world / "data").fingerprint
    (world / "forget.txt").write_text(one)
    erase(world, f"--data={world / 'data'}")
    (world / "forget.txt").write_text("\n".join(others))
    erase(world, *everywhere(world)[:2], record="two.json")
    assert read_embeddings(world / "users").manifest["dataset"]["fingerprint"] == before


def test_a_run_that_was_chosen_by_somebody_alone_says_so(world):
    _, validation, test = listed(world)
    (world / "forget.txt").write_text(f"{validation}\n{test}\n")
    erase(world, f"--data={world / 'data'}", f"--workdir={world / 'run'}")
    (model,) = json.loads((world / "record.json").read_text())["models"]
    assert (model["saw"], model["users"]) == ("chosen by", 1)


def test_whoever_meets_the_dataset_as_it_was_is_told_what_happened(world, smoke_run, capsys):
    listed(world)
    erase(world, f"--data={world / 'data'}")
    evaluate = ("--config=configs/evaluate/matching.py", f"--embeddings={world / 'users'}")
    run_stage("evaluate", *evaluate, f"--out={world / 'evaluation'}", code=3)
    told = capsys.readouterr().err
    assert "without users who were erased since" in told and "--embeddings=EXPORT" in told
    shutil.copy(smoke_run / "dataset.json", world / "run/dataset.json")
    run_stage("train", *train_arguments(world / "data", world / "run"), code=4)
    assert f"may begin from this one with --config.init_from={world / 'run'}" in (
        capsys.readouterr().err
    )


def test_what_is_refused_changes_nothing(world):
    listed(world)
    before = (world / "data/manifest.json").read_bytes()
    erase(world, code=2)
    erase(world, *everywhere(world)[:2], f"--workdir={world / 'none'}", code=4)
    erase(world, f"--data={world / 'none'}", code=3)
    erase(world, f"--data={world / 'data'}", f"--embeddings={world / 'none'}", code=3)
    (world / "record.json").write_text("{}")
    erase(world, *everywhere(world), code=5)
    assert (world / "data/manifest.json").read_bytes() == before
    assert (world / "record.json").read_text() == "{}"
