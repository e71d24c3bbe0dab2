"""Texts of people are in a page when they were asked for, of the right people, and never else."""

import re
import shutil

import numpy as np
import pytest

from clue_jax.data.erase import erase
from clue_jax.data.manifest import may_show_texts
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.errors import ConfigError, DataError
from clue_jax.files import read_json, write_json
from clue_jax.report.embeddings import people_section
from clue_jax.report.page import write_report
from clue_jax.report.people import NEAREST, NEWEST, SHOWN, read_people
from clue_jax.report.wanted import wanted
from tests.faults.logs import prepare, write
from tests.report.test_page import Outline
from tests.stages import run_stage, train_arguments

SOURCES = ("shop*", "shop"), ("news*", "news")
WARNING = "This page shows texts of people. Do not hand it on"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset whose texts say whose they are, and an export of it."""
    folder = tmp_path_factory.mktemp("texts")
    for service in ("shop", "news"):
        rows = [
            (f"person-{user}", 1_600_000_000 + n, f"planted {service} of {user} number {n}")
            for user in range(60)
            for n in range(8)
        ]
        write(folder / "logs" / f"{service}.csv", rows)
    prepare(folder / "logs", folder / "data", "--config.split.test=0.4", sources=SOURCES)
    run = folder / "run"
    few = "--config.train.steps=2", "--config.train.batch_users=8", "--config.train.eval_every=0"
    run_stage("train", *train_arguments(folder / "data", run, *few))
    data = f"--data={folder / 'data'}"
    run_stage("export", f"--workdir={run}", data, f"--out={folder / 'users'}")
    return folder


def test_neighbours_are_shown_by_their_newest_texts(folder):
    shown = read_people(folder / "users", str(folder / "data"))
    assert len(shown) == SHOWN
    found = read_embeddings(folder / "users", ("test",))
    cosines_NN = found.embedding_NE @ found.embedding_NE.T
    for of in shown:
        (whose,) = {re.search(r"of (\d+) ", text)[1] for text in of.user.texts["shop"]}
        newest = [f"planted news of {whose} number {n}" for n in (7, 6, 5, 4, 3)]
        assert len(newest) == NEWEST and of.user.texts["news"] == newest
        row = found.user_ids.tolist().index(f"person-{whose}")
        best = np.sort(np.delete(cosines_NN[row], row))[::-1][:NEAREST]
        np.testing.assert_allclose([p.cosine for p in of.nearest], best, rtol=1e-6)
        for person, cosine in zip(of.nearest, best, strict=True):
            (other,) = {re.search(r"of (\d+) ", text)[1] for text in person.texts["shop"]}
            column = found.user_ids.tolist().index(f"person-{other}")
            assert cosines_NN[row, column] == pytest.approx(cosine, abs=1e-6)


def test_texts_are_shown_to_who_asks_and_then_no_more(folder, capsys):
    page = folder / "users.report.html"
    data = f"--data={folder / 'data'}"
    run_stage("report", str(folder / "users"), "--show_texts=true", data)
    outline = Outline(page.read_text())
    assert WARNING in outline.text and outline.text.count("planted shop of") >= SHOWN * NEWEST
    assert "person-" not in page.read_text()
    run_stage("report", str(folder / "users"))
    assert not re.search("planted|person-|texts of people", page.read_text())
    assert "planted" not in capsys.readouterr().out


def test_no_page_of_any_folder_has_texts_or_ids_unasked(folder):
    for name in ("run", "users"):
        assert not re.search("planted|person-", write_report(folder / name).read_text())


def test_only_what_the_export_saw_is_shown(folder, tmp_path):
    run_stage(
        "export",
        f"--workdir={folder / 'run'}",
        f"--data={folder / 'data'}",
        f"--out={tmp_path}/users",
        "--config.hold_out_last=3",
    )
    shown = read_people(tmp_path / "users", str(folder / "data"))
    assert all(of.user.texts["shop"][0].endswith("number 4") for of in shown)


def test_texts_need_a_dataset_the_right_one_and_an_export(folder, smoke_data, capsys):
    with pytest.raises(ConfigError, match="--data=PREPARED"):
        wanted(show_texts=True)
    with pytest.raises(ConfigError, match="for --show_texts"):
        wanted(data="d")
    with pytest.raises(DataError, match="was made from"):
        read_people(folder / "users", str(smoke_data))
    asked = wanted(show_texts=True, data=str(folder / "data"))
    with pytest.raises(ConfigError, match="no export of users"):
        write_report(folder / "run", asked)
    run_stage("report", str(folder / "users"), "--show_texts", code=2)
    assert "--data=PREPARED" in capsys.readouterr().err


def test_texts_are_escaped_and_kept_apart(folder):
    shown = read_people(folder / "users", str(folder / "data"))
    shown[0].user.texts["shop"][0] = "<script>alert(1)</script>"
    outline = Outline(people_section(shown))
    assert "<script>alert(1)</script>" in outline.text
    assert "script" not in {tag for tag, _ in outline.tags}
    datasets = open_dataset(folder / "data")
    assert list(shown[0].user.texts) == list(datasets.services)


def test_a_dataset_may_forbid_that_its_texts_are_shown(folder, tmp_path, capsys):
    data, key = tmp_path / "data", "texts_may_be_shown"
    options = "--config.split.test=0.4", f"--config.{key}=false"
    prepare(folder / "logs", data, *options, sources=SOURCES)
    # The same contents, so that export and runs are of both, and only the one is shown.
    assert open_dataset(data).fingerprint == open_dataset(folder / "data").fingerprint
    shutil.copytree(folder / "users", tmp_path / "users")
    asked = "report", str(tmp_path / "users"), "--show_texts=true"
    run_stage(*asked, f"--data={data}", code=2)
    assert f"was prepared with config.{key}=false" in capsys.readouterr().err
    assert not (tmp_path / "users.report.html").exists()
    assert "| texts of people may be shown | **no**" in (data / "card.md").read_text()
    run_stage(*asked, f"--data={folder / 'data'}")
    assert "planted" in (tmp_path / "users.report.html").read_text()
    erase(data, ["person-0"])
    assert read_json(data / "manifest.json")[key] is False


def test_datasets_of_before_there_was_a_choice_show_their_texts(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data)
    manifest = read_json(data / "manifest.json")
    assert manifest.pop("texts_may_be_shown") is True
    del manifest["config"]["texts_may_be_shown"]
    write_json(data / "manifest.json", manifest)
    assert len(read_people(folder / "users", str(data))) == SHOWN
    assert may_show_texts({}) and not may_show_texts({"texts_may_be_shown": "no"})
