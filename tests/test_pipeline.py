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


@pytest.fixture(scope="module")
def tasks(smoke_run, smoke_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    before, items, out = folder / "before", folder / "items", folder / "tasks"
    made = (f"--workdir={smoke_run}", f"--data={smoke_data}")
    run_stage("export", *made, f"--out={before}", "--config.cutoff=2024-11-26")
    run_stage("export", *made, f"--out={items}", "--config.what=items")
    run_stage(
        "evaluate",
        "--config=configs/evaluate/tasks.py:smoke",
        "--config.downstream.features=clue,tfidf,clue+best",
        "--config.downstream.splits=train,validation,test",
        f"--config.downstream.items={items}",
        f"--config.downstream.labels={smoke_data.parent / 'logs' / 'labels'}",
        f"--embeddings={before}",
        f"--out={out}",
    )
    return out


def test_every_synthetic_task_has_results_and_the_best_is_best(tasks):
    rows = json.loads((tasks / "results.json").read_text())
    values = {(row["task"], row["model"], row["metric"]): row["value"] for row in rows}
    first = {
        "subscribes": "auc",
        "favourite": "accuracy",
        "spend": "r2",
        "segment": "auc",
        "next_item": "hit_rate_at_10",
    }
    for task, metric in first.items():
        of_task = {
            m: v for (t, m, k), v in values.items() if (t, k) == (f"downstream/{task}", metric)
        }
        assert {"clue", "tfidf", "best", "clue - tfidf", "clue+tfidf"} <= of_task.keys()
        scores = [value for model, value in of_task.items() if " - " not in model]
        assert of_task["best"] == max(scores), task
    lift = "downstream/clicks, lift of the policy"
    assert abs(values[lift, "stated policy", "true_lift"]) > 0.5
    assert values[lift, "clue", "effective_share"] > 0


def test_an_export_that_saw_the_labels_is_refused(tasks, smoke_run, smoke_data, capfd):
    users, labels = tasks.parent / "uncut", smoke_data.parent / "logs" / "labels"
    run_stage("export", f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={users}")
    arguments = ["--config=configs/evaluate/tasks.py:smoke", f"--embeddings={users}"]
    arguments += [f"--config.downstream.labels={labels}", f"--out={tasks.parent / 'refused'}"]
    arguments += [f"--config.downstream.items={tasks.parent / 'items'}"]
    run_stage("evaluate", *arguments, code=3)
    assert "export again with --config.cutoff=2024-11-26" in capfd.readouterr().err
    assert not (tasks.parent / "refused").exists()


@pytest.mark.parametrize(
    ("what", "shown"),
    [("run", "Validation R@10"), ("evaluation", "tfidf"), ("tasks", "Downstream tasks")],
)
def test_a_page_is_made_of_each(smoke_run, evaluation, tasks, what, shown):
    folder = {"run": smoke_run, "evaluation": evaluation, "tasks": tasks}[what]
    run_stage("report", str(folder))
    assert shown in (folder / "report.html").read_text()


def test_an_embeddings_folder_is_not_overwritten(smoke_run, smoke_data, evaluation, capfd):
    out = evaluation.parent / "users"
    run_stage("export", f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={out}", code=5)
    assert "already there" in capfd.readouterr().err
