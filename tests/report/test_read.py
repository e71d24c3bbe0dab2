"""Reading what a report is made from: live files are fine, damaged ones are named."""

import json

import pytest
from etils import epath

from clue_jax.errors import DataError
from clue_jax.report import read, results

STEP = {"step": 10, "loss": 1.0}


def write_run(folder, metrics, config="{}"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text(metrics)
    (folder / "config.json").write_text(config)


def test_rows_are_told_apart_and_ordered(tmp_path):
    held_out = {"step": 20, "split": "validation", "mrr": 0.1}
    rows = [{"step": 20, "loss": 0.5}, STEP, {**held_out, "dataset": "a", "mrr": 0.2}, held_out]
    write_run(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    run = read.read_material(tmp_path).run
    assert [row["step"] for row in run.training] == [10, 20]
    assert run.validation == [held_out]


def test_only_an_unfinished_last_line_is_ignored(tmp_path):
    whole = json.dumps(STEP) + "\n"
    write_run(tmp_path, whole + '{"step": 20, "lo')
    assert read.read_material(tmp_path).run.training == [STEP]
    write_run(tmp_path, whole + '{"step": 20, "lo\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read.read_material(tmp_path)
    write_run(tmp_path, '{"step": 2\n' + whole)
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        read.read_material(tmp_path)


@pytest.mark.parametrize("line", ["[]", "3", '{"loss": 1}', '{"step": 1.5}', '{"step": true}'])
def test_a_row_without_a_step_is_named(tmp_path, line):
    write_run(tmp_path, line + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: .*step"):
        read.read_material(tmp_path)


def test_bytes_that_are_not_text_are_named(tmp_path):
    write_run(tmp_path, "")
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "x": "\xff"}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        read.read_material(tmp_path)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "nothing to report on"),
        ({"metrics.jsonl": ""}, r"config\.json: no such file"),
        ({"metrics.jsonl": "", "config.json": "{"}, r"config\.json: not valid JSON"),
        ({"metrics.jsonl": "", "config.json": "[]"}, r"config\.json: expected an object"),
        ({"results.json": "{}"}, r"results\.json: expected a list"),
        ({"results.json": "[1]"}, r"results\.json\[0\]: expected an object"),
        ({"results.json": '[{"task": "t", "model": "m"}]'}, r"results\.json\[0\]: has no 'metric'"),
        ({"run/config.json": "{}"}, r"metrics\.jsonl: .*started"),
        ({"evaluation/other": ""}, r"results\.json: no such file"),
        (
            {"evaluation/results.json": "[]", "commands.json": '[{"stage": "x"}]'},
            r"commands\.json: .*argv",
        ),
    ],
)
def test_missing_or_damaged_files_are_named(tmp_path, files, match):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=match):
        read.read_material(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such directory"):
        read.read_material(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "value"), [("value", float("nan")), ("value", None), ("value", "1"), ("low", True)]
)
def test_a_score_that_is_not_a_number_is_named(tmp_path, key, value):
    entry = {"task": "t", "model": "m", "metric": "mrr", "value": 0.5, "low": None, "high": None}
    path = epath.Path(tmp_path / "results.json")
    path.write_text(json.dumps([entry]))
    assert results.read_results(path) == [entry]
    path.write_text(json.dumps([entry | {key: value}]))
    with pytest.raises(DataError, match=rf"results\.json\[0\]: '{key}'"):
        results.read_results(path)
