"""Time in steps that count, over all attempts of a run."""

import itertools
import json
import time

import pytest
from etils import epath

from clue_jax.training.checkpoint import Checkpoints
from clue_jax.training.goodput import Goodput
from clue_jax.training.log import Log
from tests.stages import run_stage, train_arguments


@pytest.fixture
def clock(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr("clue_jax.training.goodput.time.time", lambda: now[0])
    return now


def attempt(folder, restored):
    log = Log(folder / "metrics.jsonl", restored)
    return Goodput(folder, restored, log.kept), log


def test_lost_steps_and_time_between_attempts_count_against_it(tmp_path, clock):
    folder = epath.Path(tmp_path)
    goodput, log = attempt(folder, 0)
    for step in (10, 20):
        clock[0] += 10
        log.write({"step": step, **goodput.row(8.0)})
    assert log.write({"step": 21, **goodput.row(0.0)})["goodput"] == pytest.approx(16 / 20)
    clock[0] += 60  # killed, and begun again from step 10
    again, log = attempt(folder, 10)
    clock[0] += 10
    row = again.row(9.0)
    assert row == {"step_seconds": 9.0, "goodput": pytest.approx(17 / 90), "restarts": 1}
    lines = (tmp_path / "attempts.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 10]


def test_a_torn_line_is_passed_over(tmp_path, clock):
    folder = epath.Path(tmp_path)
    attempt(folder, 0)
    path = tmp_path / "attempts.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "ti')
    assert attempt(folder, 3)[0].restarts == 1


def test_what_holds_the_loop_is_no_useful_step(smoke_data, tmp_path, monkeypatch):
    held, save = 0.5, Checkpoints.save

    def slow(self, *arguments):
        time.sleep(held)
        save(self, *arguments)

    monkeypatch.setattr(Checkpoints, "save", slow)
    every = ("--config.train.log_every=1", "--config.checkpoint.every_steps=1")
    few = ("--config.train.steps=3", "--config.train.eval_every=0")
    run_stage("train", *train_arguments(smoke_data, tmp_path / "run", *every, *few))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if "step_seconds" in row]
    assert len(rows) == 3
    for before, after in itertools.pairwise(rows):
        assert after["step_seconds"] <= after["time"] - before["time"] - held + 0.02
