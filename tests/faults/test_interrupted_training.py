"""Training that is told to stop at bad moments, hangs, or loses a process."""

import dataclasses
import json
import os
import shutil
import signal
import time

import pytest

from launch.local import job_of, run
from tests.faults.hanging_train import HANGS_AT
from tests.stages import (
    children,
    finish,
    finish_job,
    rows,
    start,
    start_job,
    start_module,
    wait_until,
)
from tests.stages import train_arguments as arguments
from tests.training.test_loop import fingerprints, logged

# A save each step, of which every sixth stays.
SAVES = (
    "--config.checkpoint.keep_every=6",
    "--config.train.steps=14",
    "--config.checkpoint.every_steps=1",
    "--config.train.log_every=1",
)


def restored(workdir):
    """The step that each attempt of a run began with."""
    lines = (workdir / "attempts.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_step_that_hangs_ends_the_run_with_all_stacks(smoke_data, tmp_path):
    workdir = tmp_path / "run"
    quick = ("--config.train.log_every=1", "--config.train.eval_every=0")
    command = arguments(smoke_data, workdir, "--config.train.hang_seconds=5", *quick)
    output = finish(start_module("tests.faults.hanging_train", "batch", *command), code=7)
    assert f"step {HANGS_AT}: nothing has moved for" in output
    # Compiling took no part in it, and both threads are shown where they stood.
    assert "in never_comes" in output and "in compute" in output
    assert f"step  {HANGS_AT}/20" in output


def test_the_end_of_a_run_is_watched_as_well(smoke_data, tmp_path):
    quick = ("--config.train.steps=2", "--config.train.eval_every=0")
    command = arguments(smoke_data, tmp_path / "run", "--config.train.hang_seconds=5", *quick)
    output = finish(start_module("tests.faults.hanging_train", "end", *command), code=7)
    assert "ending: nothing has moved for" in output and "in never_closes" in output


def test_interrupted_while_compiling_and_once_more(smoke_data, tmp_path):
    workdir = tmp_path / "run"
    process = start("train", *arguments(smoke_data, workdir, *SAVES))
    wait_until(lambda: (workdir / "config.json").exists(), process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output = finish(process, code=75)
    assert "SIGINT: stopped at step 1 of 14, saved" in output
    assert fingerprints(workdir)[0] == 1


def test_of_two_processes_one_is_interrupted_again_and_again_during_saves(
    smoke_data, tmp_path, whole_of_two
):
    workdir = tmp_path / "run"
    job = start_job(2, "clue_jax", "train", *arguments(smoke_data, workdir, *SAVES), devices=4)
    wait_until(lambda: logged(workdir) > 3, job[0])
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        job[1].send_signal(kind)
        time.sleep(0.05)
    said = [output.splitlines()[-1].split("preempted:")[1] for output in finish_job(job, 75)]
    assert said[0] == said[1] and "stopped at step" in said[0]
    stopped, _ = fingerprints(workdir)
    assert f"stopped at step {stopped} of 14" in said[0]
    again = start_job(2, "clue_jax", "train", *arguments(smoke_data, workdir, *SAVES), devices=4)
    finish_job(again)
    assert restored(workdir) == [0, stopped]
    assert rows(workdir) == rows(whole_of_two)
    assert fingerprints(workdir) == fingerprints(whole_of_two)


@pytest.fixture(scope="module")
def whole_of_two(smoke_data, tmp_path_factory):
    """A run of two processes that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    command = arguments(smoke_data, workdir, *SAVES)
    finish_job(start_job(2, "clue_jax", "train", *command, devices=4))
    return workdir


def test_a_lost_process_is_named_and_the_job_continues_bit_for_bit(
    smoke_data, tmp_path, whole_of_two
):
    workdir = tmp_path / "run"
    job = ("local", "--processes=2", "--devices=4", "--", "train")
    command = ("launch", *job, *arguments(smoke_data, workdir, *SAVES))
    launcher = start_module(*command)
    wait_until(lambda: logged(workdir) > 3, launcher)
    first = json.loads((workdir / "lock").read_text())["pid"]
    (second,) = children(launcher.pid) - {first}
    os.kill(second, signal.SIGKILL)
    killed = time.monotonic()
    output = finish(launcher, code=7)
    assert time.monotonic() - killed < 40  # 30 s for the other to notice
    assert "launch: error: process 1 of 2 was ended by SIGKILL" in output.splitlines()[-1]
    assert "continuing from" in finish(start_module(*command))
    assert restored(workdir)[1] > 0
    assert rows(workdir) == rows(whole_of_two)
    assert fingerprints(workdir) == fingerprints(whole_of_two)


@pytest.mark.parametrize(("devices", "step"), [(4, 6), (1, 12)])
def test_other_devices_continue_within_rounding(smoke_data, tmp_path, whole_of_two, devices, step):
    workdir = shutil.copytree(whole_of_two, tmp_path / "run")
    for newer in (workdir / "checkpoints").iterdir():
        if newer.name.isdecimal() and int(newer.name) > step:
            shutil.rmtree(newer)
    command = arguments(smoke_data, workdir, *SAVES)
    output = finish(start("train", *command, devices=devices))
    # Restored to the bit, as the fingerprints of the leaves say.
    assert f"continuing from the checkpoint of step {step}\n" in output
    losses = [
        [row["loss"] for row in rows(run) if "loss" in row] for run in (workdir, whole_of_two)
    ]
    assert len(losses[0]) == 14 and losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_process_with_other_settings_is_refused(smoke_data, tmp_path):
    job = job_of(["train", *arguments(smoke_data, tmp_path / "run", *SAVES)], 2, 4)
    odd = (*job[1].argv, "--config.train.steps=13")
    started = [
        start_module("clue_jax", *argv[4:], devices=4, **planned.environment)
        for argv, planned in ((job[0].argv, job[0]), (odd, job[1]))
    ]
    for number, output in enumerate(finish_job(started, code=2)):
        problem = f"process {number} of 2: config of process 1 is not that of process 0"
        assert problem in output.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_batches_are_left_out_from_an_older_checkpoint_on(smoke_data, tmp_path):
    """As if they had been left out from the start; and told again, it goes on as usual."""
    kept = ("--config.checkpoint.every_steps=3", "--config.checkpoint.keep_every=3")
    kept += ("--config.train.steps=14", "--config.train.log_every=1", "--config.train.eval_every=0")
    left_out = "--config.train.skip_batches=7:9"
    ours = ("train", *arguments(smoke_data, tmp_path / "run", *kept, left_out))
    finish(start("train", *arguments(smoke_data, tmp_path / "run", *kept)))
    output = finish(start(*ours))
    for step in (14, 12, 9):
        assert f"/{step}: learnt with config.train.skip_batches='' before that step" in output
    assert "continuing from the checkpoint of step 6" in output
    assert "continuing from the checkpoint of step 14" in finish(start(*ours))
    anew = tmp_path / "anew"
    finish(start("train", *arguments(smoke_data, anew, *kept, left_out)))
    assert fingerprints(tmp_path / "run") == fingerprints(anew)
    assert rows(tmp_path / "run") == rows(anew)
    skipped = [json.loads(line) for line in (anew / "skipped.jsonl").read_text().splitlines()]
    assert [(row["step"], row["reason"]) for row in skipped] == [(8, "asked"), (9, "asked")]
    aside = (tmp_path / "run" / "quarantine").iterdir()
    assert {path.name.split("-")[0] for path in aside} == {"9", "12", "14"}


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("table", 3, "a damaged shard"),
        ("log", 5, "a full disk"),
        ("save", 5, "a full disk"),
        ("bug", 1, "unexpected ZeroDivisionError: a bug"),
    ],
)
def test_what_fails_in_one_process_ends_all_alike(smoke_data, tmp_path, where, code, said):
    command = arguments(smoke_data, tmp_path / "run", *SAVES)
    job = start_job(2, "tests.faults.failing_train", where, *command)
    first, second = (output.splitlines() for output in finish_job(job, code))
    assert first[-1].endswith("process 1 could not go on; its own output says why")
    assert second[-1].endswith(said)


def test_a_batch_that_one_process_cannot_make_is_why_the_job_ends(smoke_data, tmp_path, capfd):
    command = arguments(smoke_data, tmp_path / "run", *SAVES)
    planned = [
        dataclasses.replace(p, argv=(*p.argv[:3], "tests.faults.failing_train", "batch", *command))
        for p in job_of(["train"], 2, 1)
    ]
    began = time.monotonic()
    assert run(planned) == 3
    assert time.monotonic() - began < 90
    assert "error: a damaged record" in capfd.readouterr().out


def test_what_one_process_cannot_restore_is_passed_over_by_all(smoke_data, tmp_path, whole_of_two):
    workdir = shutil.copytree(whole_of_two, tmp_path / "run")
    command = arguments(smoke_data, workdir, *SAVES)
    finish_job(start_job(2, "tests.faults.failing_train", "restore", *command, devices=4))
    assert restored(workdir) == [0, 13]  # of 12, 13 and 14
    (aside,) = (workdir / "quarantine").iterdir()
    assert aside.name.startswith("14-") and "process 1" in (aside / "reason.txt").read_text()
    assert rows(workdir) == rows(whole_of_two)
    assert fingerprints(workdir) == fingerprints(whole_of_two)
