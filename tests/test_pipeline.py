"""Logs in, results and a page out: each stage from the files of the one before."""

import json

import pytest

from tests.stages import run_stage


@pytest.fixture(scope="module")
def evaluation(smoke_run, smoke_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    users, out = folder / "users", folder / "evaluation"
    run_stage("export", f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={users}")
    run_stage(
        "evaluate",
        "--config=configs/evaluate/matching.py",
        "--config.matching.min_behaviours=2",
        "--config.matching.bootstrap=50",
        f"--embeddings={users}",
        f"--out={out}",
    )
    return out


def test_results_have_the_keys_that_others_rely_on(evaluation):
    results = json.loads((evaluation / "results.json").read_text())
    keys = {"task", "model", "metric", "value", "low", "high", "n", "seed"}
    assert all(entry.keys() == keys for entry in results)
    assert {"clue", "tfidf", "random_encoder", "chance"} <= {entry["model"] for entry in results}
    assert {entry["metric"] for entry in results} == {"recall_at_1", "recall_at_10", "mrr"}
    tasks = {entry["task"] for entry in results}
    assert {"matching/test/search->shop", "matching/test/search<->shop (mean)"} <= tasks


@pytest.mark.parametrize("what", ["run", "evaluation"])
def test_a_page_is_made_of_each(smoke_run, evaluation, what):
    folder = smoke_run if what == "run" else evaluation
    run_stage("report", str(folder))
    page = (folder / "report.html").read_text()
    assert ("Validation R@10" if what == "run" else "tfidf") in page


def test_an_embeddings_folder_is_not_overwritten(smoke_run, smoke_data, evaluation, capfd):
    out = evaluation.parent / "users"
    run_stage("export", f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={out}", code=5)
    assert "already there" in capfd.readouterr().err
