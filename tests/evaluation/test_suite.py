"""`evaluate` from a prepared dataset and an export to results.json, and all it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from clue_jax import files
from clue_jax.config import (
    EvaluateConfig,
    MatchingConfig,
    PrepareConfig,
    SourceConfig,
    SplitConfig,
    TokenizerConfig,
    to_json,
)
from clue_jax.data.prepare import prepare
from clue_jax.data.records import concatenate, visible
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.embeddings.schema import item_table
from clue_jax.embeddings.writer import write_manifest, write_part
from clue_jax.errors import ConfigError, DataError, StorageError
from clue_jax.evaluation import matching, matching_suite, suite
from clue_jax.evaluation.results import as_json
from tests.embeddings.exports import random_users, unit, write_export
from tests.evaluation.downstream_world import TINY

USERS = 60
FAST = ("tfidf", "chance")
MEAN = "matching/test/art<->office (mean)"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Users whose last behaviour in each service is a word of their own; the rest says nothing."""
    folder = tmp_path_factory.mktemp("logs")
    rng = np.random.default_rng(0)
    with (folder / "logs.jsonl").open("w") as stream:
        for user in range(USERS):
            for service in ("art", "office"):
                for day in range(1, 7):
                    text = f"thing {rng.integers(5)}" if day < 6 else f"own{user} word"
                    row = {"user_id": f"u{user}", "timestamp": f"2024-01-{day:02}"}
                    stream.write(json.dumps(row | {"service": service, "text": text}) + "\n")
    config = PrepareConfig(
        source=str(folder),
        sources=(SourceConfig(path="logs.jsonl", service_column="service"),),
        split=SplitConfig(validation=0.2, test=0.5),
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    prepare(config, str(folder / "prepared"))
    return folder / "prepared"


def export_of(data, folder, noise=0.5, splits=("test",), seen=None, **manifest):
    """An export in which a user's two vectors are near each other.

    `seen` are the users with the behaviours the export claims to know; default: all.
    """
    dataset = open_dataset(data)
    seen = seen or concatenate([dataset.users(split) for split in splits], dataset.services)
    sizes = [len(dataset.users(split)) for split in splits]
    rng = np.random.default_rng(0)
    person = rng.normal(size=(len(seen), 1, 16))
    z_NSE = unit(person + noise * rng.normal(size=(len(seen), len(seen.services), 16)))
    users = {
        "user_ids": seen.user_ids,
        "splits": np.repeat(np.array(splits, object), sizes),
        "services": seen.services,
        "embedding_NE": unit(z_NSE.sum(axis=1)),
        "z_NSE": z_NSE,
        "counts_NS": seen.counts(),
        "tokens_NS": seen.counts(),
        "truncated_N": np.zeros(len(seen), bool),
        "first_N": None,
        "last_N": None,
        "event_N": None,
        "model_version": "m",
    }
    origin = {"path": str(data), "services": list(seen.services)}
    described = {
        "dataset": {**origin, "fingerprint": dataset.fingerprint},
        "config": to_json(TINY),
        "train_seed": 7,
    }
    return write_export(folder, users, **(described | manifest))


def run(tmp_path, config=None, **keys):
    keys = {"baselines": FAST, "bootstrap": 50} | keys
    config = config or EvaluateConfig(matching=MatchingConfig(**keys))
    suite.evaluate(config, str(tmp_path / "export"), str(tmp_path / "out"))
    return files.read_json(tmp_path / "out" / "results.json")


def value(results, task, model, metric="recall_at_1"):
    (row,) = (r for r in results if (r["task"], r["model"], r["metric"]) == (task, model, metric))
    return row["value"]


def test_the_whole_way(data, tmp_path, capsys):
    export_of(data, tmp_path / "export")
    results = run(tmp_path, baselines=("tfidf", "random_encoder", "chance"), block=10)
    models = {r["model"] for r in results}
    baselines = {"tfidf", "random_encoder"}
    assert models == {"clue", "chance", *baselines, *(f"clue - {name}" for name in baselines)}
    directions = ("art->office", "office->art", "art<->office (mean)")
    names = {f"matching/test/{d}{s}" for d in directions for s in ("", " blocks of 10")}
    assert {r["task"] for r in results} == names
    assert len(results) == 6 * 6 * 3
    eligible = len(open_dataset(data).users("test"))
    for row in results:
        assert row["n"] == (eligible - eligible % 10 if "blocks" in row["task"] else eligible)
        assert row["seed"] == (7 if row["model"].startswith("clue") else 0)
        assert (row["low"] is None) == (row["model"] == "chance")
        assert row["low"] is None or row["low"] <= row["value"] <= row["high"]
    task = MEAN
    assert value(results, task, "clue") > 0.9
    assert value(results, task, "tfidf") == 1.0
    assert value(results, task, "clue - tfidf") == pytest.approx(value(results, task, "clue") - 1.0)
    assert value(results, task, "chance") == pytest.approx(1 / eligible)
    assert value(results, task + " blocks of 10", "chance") == pytest.approx(1 / 10)
    assert value(results, task, "clue", "mrr") >= value(results, task, "clue")
    assert files.read_json(tmp_path / "out" / "config.json")["matching"]["block"] == 10
    evaluated = files.read_json(tmp_path / "out" / "evaluated.json")
    assert evaluated["eligible"] == {"art, office": eligible}
    manifest = files.read_json(tmp_path / "export" / "manifest.json")
    assert evaluated["embeddings_manifest_sha256"] == manifest["manifest_sha256"]
    assert task in capsys.readouterr().out


def test_the_same_command_gives_the_same_results(data, tmp_path):
    export_of(data, tmp_path / "export", noise=1.0)
    again = EvaluateConfig(
        matching=MatchingConfig(baselines=FAST, bootstrap=50, block=10), overwrite=True
    )
    assert run(tmp_path, again) == run(tmp_path, again)
    other = EvaluateConfig(matching=again.matching, overwrite=True, seed=1)
    assert run(tmp_path, other) != run(tmp_path, again)


def test_several_splits_are_one_pool(data, tmp_path):
    export_of(data, tmp_path / "export", splits=("validation", "test"))
    results = run(tmp_path, splits=("validation", "test"))
    dataset = open_dataset(data)
    users = sum(len(dataset.users(split)) for split in ("validation", "test"))
    assert {r["n"] for r in results} == {users}
    assert all(r["task"].startswith("matching/validation+test/") for r in results)


@pytest.mark.parametrize(
    "left_out",
    [
        {"hold_out_last": 1},
        {"cutoff": "2024-01-06"},
        {"cutoff": "2024-01-06T00:00:00+00:00"},
    ],
)
def test_tfidf_sees_what_the_export_saw(data, tmp_path, left_out):
    # Only the last behaviour gives a user away; see `test_the_whole_way` for the control.
    cutoff = 1_704_499_200 if "cutoff" in left_out else None
    users = open_dataset(data).users("test")
    seen = visible(users, cutoff, left_out.get("hold_out_last", 0))
    assert set(seen.counts().ravel()) == {5}
    export_of(data, tmp_path / "export", seen=seen, **left_out)
    assert value(run(tmp_path), MEAN, "tfidf") < 0.5


def test_behaviours_that_differ_are_refused(data, tmp_path):
    seen = visible(open_dataset(data).users("test"), None, 1)
    export_of(data, tmp_path / "export", seen=seen)
    with pytest.raises(DataError, match=r"another number of behaviours .*\[6, 6\] and \[5, 5\]"):
        run(tmp_path)


def test_users_of_another_dataset_are_refused(data, tmp_path):
    users = open_dataset(data).users("test")
    renamed = dataclasses.replace(users, user_ids=users.user_ids + "x")
    export_of(data, tmp_path / "export", seen=renamed)
    with pytest.raises(DataError, match="users of the export are not in its splits test"):
        run(tmp_path)


def test_three_services_are_three_pairs(tmp_path):
    rng = np.random.default_rng(0)
    counts_NS = rng.integers(0, 2, (50, 3)) * 9
    counts_NS[counts_NS.sum(axis=1) == 0] = 9
    users = random_users(50, ("a", "b", "c"), counts_NS=counts_NS)
    users["splits"][:] = "test"
    write_export(tmp_path, users)
    export = read_embeddings(tmp_path)
    config = EvaluateConfig(matching=MatchingConfig(baselines=("chance",), bootstrap=300))
    pairs = matching.eligible_pairs(export, config.matching, 0)
    assert len({len(pair.rows) for pair in pairs}) == 3
    results = as_json(matching_suite.evaluate_matching(config, export, None, pairs))
    for pair in pairs:
        a, b = pair.first, pair.second
        names = [
            f"matching/test/{task}" for task in (f"{a}<->{b} (mean)", f"{a}->{b}", f"{b}->{a}")
        ]
        for model in ("clue", "chance"):
            mean, *both = (value(results, task, model, "mrr") for task in names)
            assert mean == pytest.approx(np.mean(both))
        assert {r["n"] for r in results if r["task"] in names} == {len(pair.rows)}
    assert len(results) == 3 * 3 * 2 * 3


def test_another_dataset_is_refused(data, tmp_path):
    origin = {"path": str(data), "fingerprint": "0" * 64, "services": ["art", "office"]}
    export_of(data, tmp_path / "export", dataset=origin)
    with pytest.raises(DataError, match="but the export was made from 000000000000"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_dataset_may_have_moved(data, tmp_path):
    origin = {
        "path": "gone",
        "fingerprint": open_dataset(data).fingerprint,
        "services": ["art", "office"],
    }
    export_of(data, tmp_path / "export", dataset=origin)
    with pytest.raises(DataError, match="gone"):
        run(tmp_path)
    few = MatchingConfig(baselines=("chance",), bootstrap=10)
    assert run(tmp_path, EvaluateConfig(matching=few, data=str(data)))


def test_output_is_never_overwritten_silently(data, tmp_path):
    export_of(data, tmp_path / "export")
    before = run(tmp_path)
    with pytest.raises(StorageError, match="overwrite=true"):
        run(tmp_path, min_behaviours=1)
    assert files.read_json(tmp_path / "out" / "results.json") == before


def test_what_cannot_be_evaluated_is_refused(data, tmp_path):
    export_of(data, tmp_path / "export")
    with pytest.raises(ConfigError, match="no service 'news' in this export; it has art, office"):
        run(tmp_path, services=("art", "news"))
    with pytest.raises(DataError, match="no split 'train' in this export; it has test"):
        run(tmp_path, splits=("train",))
    with pytest.raises(DataError, match="0 of .* users of test have at least 50 behaviours"):
        run(tmp_path, min_behaviours=50)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_items_and_a_single_service_cannot_be_matched(data, tmp_path):
    table = item_table(
        item_ids=np.arange(3, dtype=np.uint64),
        source_ids=np.array(list("abc"), object),
        services=np.array(["art"] * 3, object),
        embedding_JE=unit(np.random.default_rng(0).normal(size=(3, 4))),
        model_version="m",
    )
    entry = write_part(tmp_path / "export", "part.parquet", table)
    write_manifest(tmp_path / "export", {"what": "items", "embedding_width": 4}, [entry])
    with pytest.raises(DataError, match="an export of items, but users are needed; run export"):
        run(tmp_path)
    users = random_users(9, ("art",))
    users["splits"][:] = "test"
    shutil.rmtree(tmp_path / "export")
    write_export(tmp_path / "export", users)
    with pytest.raises(ConfigError, match="matching needs two services, but there is only art"):
        run(tmp_path)


def test_a_damaged_export_is_refused(data, tmp_path):
    export_of(data, tmp_path / "export")
    assert run(tmp_path)  # control
    shutil.rmtree(tmp_path / "out")
    part = next((tmp_path / "export").glob("*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match=part.name):
        run(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "setting", "message"),
    [
        ("services", ("art",), "name two different services"),
        ("services", ("art", "art"), "name two different services"),
        ("splits", (), "one split"),
        ("splits", ("test", "test"), "twice"),
        ("min_behaviours", 0, "0 must be at least 1"),
        ("block", 1, "1 must be at least 2"),
        ("bootstrap", 0, "0 must be at least 1"),
        ("baselines", ("bm25",), "no baseline 'bm25'; there are tfidf, random_encoder, chance"),
    ],
)
def test_settings_are_checked_before_anything_is_read(tmp_path, key, setting, message):
    with pytest.raises(ConfigError, match=rf"config\.matching\.{key}: .*{message}"):
        run(tmp_path, **{key: setting})
