"""A job is run again where that helps, and not for ever; every attempt is on record."""

import json
import random
import signal
import sys

import pytest

from clue_jax.errors import ConfigError, LostPeerError
from launch import local, supervise
from launch.__main__ import main
from launch.local import Planned
from launch.supervise import Limits, newest_step


def watched(tmp_path, outcomes, steps=None, told=(), limits=None):
    """Supervises attempts with these outcomes; gives the exit code, the waits and the records."""
    left, waits = list(outcomes), []
    reached = iter([0, *(steps or [0] * len(left))])

    def attempt():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    log = tmp_path / "attempts.jsonl"
    code = supervise.supervise(
        attempt, lambda: next(reached), log, list(told), limits, sleep=waits.append
    )
    assert not left, "ended early"
    return code, waits, [json.loads(line) for line in log.read_text().splitlines()]


def test_preemption_and_loss_are_followed_by_another_attempt(tmp_path):
    code, waits, records = watched(tmp_path, [75, 7, -9, 137, 0], steps=[5, 9, 12, 15, 20])
    assert code == 0 and waits == [10.0] * 4  # each got further
    assert [record["exit_code"] for record in records] == [75, 7, -9, 137, 0]
    assert [record["step"] for record in records] == [5, 9, 12, 15, 20]
    assert [record["attempt"] for record in records] == [1, 2, 3, 4, 5]
    assert records[0]["reason"].startswith("Stopped by a signal after saving")
    assert records[-1]["then"] == "done"


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 8, 130])
def test_what_would_come_again_ends_at_once(tmp_path, code):
    assert watched(tmp_path, [75, code])[0] == code


def test_failures_without_progress_end_it(tmp_path):
    code, waits, records = watched(tmp_path, [7, 7, 7])
    assert code == 7 and waits == [10.0, 20.0]
    assert records[-1]["then"].startswith("3 failures without a later checkpoint")
    # A later checkpoint between them makes all the difference.
    assert watched(tmp_path, [7, 7, 7, 7, 7, 0], steps=[1, 2, 2, 3, 3, 4])[0] == 0


def test_preemptions_are_no_failures_and_waits_grow_to_a_limit(tmp_path):
    code, waits, _ = watched(tmp_path, [75] * 6 + [0], limits=Limits(first_wait=1, longest_wait=10))
    assert code == 0 and waits == [1, 2, 4, 8, 10, 10]


def test_errors_of_an_attempt_count_as_their_exit_codes(tmp_path):
    code, _, records = watched(
        tmp_path, [LostPeerError("no machines"), ConfigError("no such zone")]
    )
    assert code == 2
    assert [record["reason"] for record in records] == ["no machines", "no such zone"]


def test_after_a_signal_there_is_no_other_attempt(tmp_path):
    code, waits, records = watched(tmp_path, [75], told=[signal.SIGTERM])
    assert (code, waits) == (75, []) and records[0]["then"] == "stopped by SIGTERM"


def test_the_step_is_that_of_the_newest_checkpoint_else_of_the_newest_row(tmp_path):
    assert newest_step("") is None and newest_step(str(tmp_path / "none")) is None
    rows = tmp_path / "metrics.jsonl"
    rows.write_text('{"step": 3}\n{"step": 4}\n{"ste')
    assert newest_step(str(tmp_path)) == 4
    for name in ("100", "20", "quarantine", "90.tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_step(str(tmp_path)) == 100


# A stage as far as a supervisor can see: it goes on from its newest checkpoint, and dies at random.
STAGE = """
import os, pathlib, random, signal, sys, time
folder = pathlib.Path(sys.argv[1]) / "checkpoints"
folder.mkdir(parents=True, exist_ok=True)
done = max([int(p.name) for p in folder.iterdir()], default=0)
fate = random.Random(int(sys.argv[2]) + done)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
for step in range(done + 1, 13):
    if fate.random() < 0.3:
        os.kill(os.getpid(), fate.choice([signal.SIGKILL, signal.SIGTERM]))
        time.sleep(5)
    (folder / str(step)).mkdir()
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_a_stage_that_is_killed_at_random_gets_done(tmp_path, seed):
    ends = random.Random(seed)

    def attempt():
        return local.run([Planned((sys.executable, "-ISc", STAGE, str(tmp_path), str(seed + n())))])

    def n():
        return ends.randrange(1000)

    log, waits = tmp_path / "log.jsonl", []
    limits = Limits(failures=8)
    code = supervise.supervise(
        attempt, lambda: newest_step(str(tmp_path)), log, [], limits, waits.append
    )
    assert code == 0 and newest_step(str(tmp_path)) == 12
    codes = [json.loads(line)["exit_code"] for line in log.read_text().splitlines()]
    assert len(codes) > 2 and set(codes[:-1]) <= {7, 75}


def test_a_stage_that_dies_at_the_same_step_is_given_up(tmp_path):
    source = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    log = tmp_path / "log.jsonl"

    def attempt():
        return local.run([Planned((sys.executable, "-ISc", source))])

    assert supervise.supervise(attempt, lambda: 5, log, [], None, lambda seconds: None) == 7
    assert len(log.read_text().splitlines()) == 3


def test_processes_on_this_machine_are_supervised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervise.time, "sleep", lambda seconds: None)
    codes = [75, 7, 0]
    monkeypatch.setattr(local, "run", lambda job, told: codes.pop(0))
    assert main(["local", "supervise", "--processes=2", "--", "train", "--workdir=runs/a"]) == 0
    log = tmp_path / "runs" / "launch" / "local" / "a" / "attempts.jsonl"
    assert len(log.read_text().splitlines()) == 3
