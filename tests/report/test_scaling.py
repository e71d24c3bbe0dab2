"""The page of a study says what its Markdown says, with the figures inside, and no network."""

import json

import pytest

from clue_jax.errors import DataError
from clue_jax.report.page import write_report
from clue_jax.scaling.analysis import analyse
from clue_jax.scaling.study import conclusions_of
from tests.report.test_page import Outline
from tests.scaling.planted import grid, result


def fill_study(folder):
    runs = [*grid(seeds=(0,)), {**result("16x1", 50), "failed": "exit code 1: <b>a bad day</b>"}]
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "compute.svg").write_text(
        "<svg xmlns='http://www.w3.org/2000/svg' width='90' height='60'/>"
    )
    told = conclusions_of(analyse(runs, resamples=0, seed=0)) | {"missing": ["one-more"]}
    (folder / "fits.json").write_text(json.dumps(told, allow_nan=False))
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, runs)))


@pytest.fixture
def study(tmp_path):
    fill_study(tmp_path / "study")
    return tmp_path / "study"


def test_the_page_holds_laws_answers_and_figures(study):
    page = Outline(write_report(study).read_text())
    assert "13 of 14 runs have ended; 12 count" in page.text
    for words in ("size and samples", "larger encoders lower the loss", "one-more", "Forecast"):
        assert words in page.text
    # What a run said is text, not markup.
    assert "16x1-50-0: exit code 1: <b>a bad day</b>" in page.text
    (image,) = (of for tag, of in page.tags if tag == "img")
    assert image["src"].startswith("data:image/svg+xml;base64,") and image["alt"]
    assert not any("http" in str(of.get("src", of.get("href"))) for _, of in page.tags)


def test_a_study_whose_runs_are_gone_is_refused(study):
    (study / "results.jsonl").write_text("{")
    with pytest.raises(DataError, match="results.jsonl: no lines of JSON objects"):
        write_report(study)
