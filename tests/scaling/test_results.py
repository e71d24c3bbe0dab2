"""Results of other places are taken in, and what cannot be is refused by file and line."""

import json

import pytest
from etils import epath

from clue_jax.errors import DataError
from clue_jax.scaling.results import read_known, write_lines
from tests.scaling.planted import result

RUNS = [result("16x1", steps) for steps in (100, 400)]
NAMES, DATASET = {run["run"] for run in RUNS}, "d" * 64


@pytest.fixture
def file(tmp_path):
    path = epath.Path(tmp_path / "results.jsonl")
    write_lines(path, [*RUNS, result("64x2", 100)])
    return path


def test_runs_of_the_plan_are_known_and_others_passed_over(file):
    known, again = read_known([str(file), str(file)], NAMES, DATASET)
    assert known == {run["run"]: run for run in RUNS} and not again


def test_a_run_that_is_there_twice_is_named_and_the_first_counts(file, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(RUNS[0] | {"loss": 1.5}) + "\n")
    known, again = read_known([str(file), str(other)], NAMES, DATASET)
    assert known[RUNS[0]["run"]] == RUNS[0]
    assert list(again) == [RUNS[0]["run"]]
    assert "and 1.5" in again[RUNS[0]["run"]] and "line 1): the first" in again[RUNS[0]["run"]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 1: no JSON object"),
        ("[1]", "line 1: no result of a run: 'run' is missing"),
        ('{"run": "a"}', "line 1: no result of a run: 'cell' is missing"),
        (json.dumps(RUNS[0] | {"dataset": "e" * 64}), "line 1: run .* is of dataset eeee"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_line(tmp_path, line, problem):
    path = tmp_path / "results.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=problem):
        read_known([str(path)], NAMES, DATASET)


def test_a_file_that_is_not_there_is_refused_by_key(tmp_path):
    with pytest.raises(DataError, match="config.known: .*none.jsonl cannot be read"):
        read_known([str(tmp_path / "none.jsonl")], NAMES, DATASET)
