"""Training as a person runs it: to the end, killed, signalled, twice at once, and misused."""

import json
import signal
from pathlib import Path

import pytest

from tests.compilations import compiled_after_steps
from tests.stages import finish, rows, run_stage, start, train_arguments, wait_until

# Long enough to be caught in the middle, with a checkpoint now and then.
LONG = (
    "--config.train.steps=40",
    "--config.checkpoint.every_steps=5",
    "--config.train.log_every=3",
)


def fingerprints(workdir):
    """Of the parameters and optimizer in each checkpoint, read from what lies beside them."""
    from clue_jax.config import PretrainConfig, from_json
    from clue_jax.model import clue
    from clue_jax.training.checkpoint import NEWEST
    from clue_jax.training.parameters import load_params

    config = from_json(PretrainConfig, json.loads((workdir / "config.json").read_text()))
    vocab_size = json.loads((workdir / "dataset.json").read_text())["vocab_size"]
    make = lambda: clue.init_run(config, vocab_size)  # noqa: E731
    restored = load_params(workdir / "checkpoints", make, NEWEST)
    return restored.step, restored.fingerprint


def logged(workdir):
    path = Path(workdir) / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.fixture(scope="module")
def whole(smoke_data, tmp_path_factory):
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finish(start("train", *train_arguments(smoke_data, workdir, *LONG)))
    return workdir


def test_a_run_ends_with_its_files_and_reason(smoke_run, smoke_data, tmp_path, capsys):
    names = {path.name for path in smoke_run.iterdir()}
    expected = {"config.json", "environment.json", "metrics.jsonl", "checkpoints", "tokenizer.json"}
    assert expected <= names and "tensorboard" in names and "lock" not in names
    training = [row for row in rows(smoke_run) if "split" not in row]
    assert [row["step"] for row in training] == [5, 10, 15, 20]
    # A share of the time it is measured over, also in the row that follows compiling.
    lines = (smoke_run / "metrics.jsonl").read_text().splitlines()
    waits = [row["data_wait"] for row in map(json.loads, lines) if "data_wait" in row]
    assert len(waits) == 4 and all(0 <= wait < 1 for wait in waits)
    assert {"loss", "retrieval_at_1", "logit_scale", "learning_rate", "mfu"} <= training[0].keys()
    assert [row["step"] for row in rows(smoke_run) if "split" in row] == [5, 10, 15, 20]


def test_a_finished_run_is_left_as_it_is(smoke_run, smoke_data, capsys):
    before = (smoke_run / "metrics.jsonl").read_bytes()
    run_stage("train", *train_arguments(smoke_data, smoke_run))
    assert (smoke_run / "metrics.jsonl").read_bytes() == before
    assert "continuing from the checkpoint of step 20" in capsys.readouterr().out


def test_where_users_are_held_does_not_change_a_run(smoke_data, smoke_run, tmp_path):
    places = "--config.data.in_memory_mb=0", f"--config.data.cache={tmp_path / 'cache'}"
    run_stage("train", *train_arguments(smoke_data, tmp_path / "run", *places))
    assert rows(tmp_path / "run") == rows(smoke_run)
    made = {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert made == {"train", "validation"}


def test_a_killed_run_continues_to_the_same_bits(smoke_data, tmp_path, whole):
    command = ("train", *train_arguments(smoke_data, tmp_path / "run", *LONG))
    process = start(*command)
    wait_until(lambda: logged(tmp_path / "run") > 17, process)
    process.kill()
    finish(process, code=-signal.SIGKILL)
    output = finish(start(*command))
    assert "continuing from the checkpoint of step " in output
    assert output.splitlines()[-1].startswith("clue-jax train: done in")
    assert rows(tmp_path / "run") == rows(whole)
    assert fingerprints(tmp_path / "run") == fingerprints(whole)


def test_a_signal_saves_and_says_to_run_again(smoke_data, tmp_path, whole):
    command = ("train", *train_arguments(smoke_data, tmp_path / "run", *LONG))
    process = start(*command)
    wait_until(lambda: logged(tmp_path / "run") > 8, process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, code=75)
    assert "SIGTERM: stopped at step" in output and "run the same command" in output
    stopped, _ = fingerprints(tmp_path / "run")
    assert 0 < stopped < 40
    assert f"checkpoint of step {stopped}\n" in finish(start(*command))
    assert rows(tmp_path / "run") == rows(whole)
    assert fingerprints(tmp_path / "run") == fingerprints(whole)


def test_time_asks_for_saves_as_well(smoke_data, smoke_run, tmp_path):
    timed = ("--config.checkpoint.every_minutes=1e-6", "--config.checkpoint.every_steps=1000")
    timed += ("--config.checkpoint.keep=9",)
    run_stage("train", *train_arguments(smoke_data, tmp_path / "run", *timed))
    # At each row of metrics; and what is computed and written stays the same.
    steps = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert steps == {"5", "10", "15", "20"}
    ours, theirs = (
        [row for row in rows(run) if "split" not in row] for run in (tmp_path / "run", smoke_run)
    )
    assert ours == theirs


def test_one_run_directory_has_one_trainer(smoke_data, tmp_path):
    command = train_arguments(smoke_data, tmp_path / "run", *LONG, "--config.train.steps=5000")
    process = start("train", *command)
    try:
        wait_until(lambda: logged(tmp_path / "run") > 0, process)
        run_stage("train", *command, code=8)
    finally:
        process.kill()
        finish(process, code=-signal.SIGKILL)


def test_devices_do_not_change_the_losses(smoke_data, tmp_path, whole):
    workdir = tmp_path / "run"
    finish(start("train", *train_arguments(smoke_data, workdir, *LONG), devices=8))
    losses = [[row["loss"] for row in rows(run) if "loss" in row][:20] for run in (workdir, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "--config.sampling.history_schedule.start=2",
            "--config.sampling.history_schedule.steps=15",
        ),
    ],
    ids=["whole histories", "longer from step to step"],
)
def test_nothing_compiles_after_the_first_of_everything(smoke_data, tmp_path, overrides):
    """Counts of compilations after each step; one evaluates and saves every fifth step."""
    with compiled_after_steps() as after:
        run_stage(
            "train",
            *train_arguments(
                smoke_data, tmp_path / "run", "--config.train.log_every=1", *overrides
            ),
        )
    assert list(after) == list(range(1, 21))
    assert after[1] > 0 and {after[k] for k in (2, 3, 4)} == {after[1]}
    assert after[5] > after[4] and {after[k] for k in range(6, 21)} == {after[5]}


def test_a_diverged_run_stops_and_keeps_what_is_finite(smoke_data, tmp_path, capfd):
    wild = ("--config.optim.learning_rate=1e30", "--config.train.eval_every=0")
    wild += ("--config.checkpoint.every_steps=1", "--config.train.max_skipped=3")
    run_stage("train", *train_arguments(smoke_data, tmp_path / "run", *wild), code=6)
    assert "the last of 3 steps in a row that are not finite" in capfd.readouterr().err
    lines = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    skipped = [json.loads(line) for line in lines]
    steps = [row["step"] for row in skipped]
    assert steps == list(range(steps[0], steps[0] + 3))
    assert len(set(skipped[0]["users"])) == len(skipped[0]["users"]) > 1
    # What was saved before, and between skipped steps, is finite: reading it compares its bits.
    step, _ = fingerprints(tmp_path / "run")
    assert 0 < step < steps[-1]


@pytest.mark.parametrize(
    ("overrides", "code", "problem"),
    [
        (["--config.train.stepz=3"], 2, "stepz"),
        (["--config.train.batch_users=1"], 2, "config.train.batch_users: 1"),
        (["--config.train.batch_users=30"], 2, "30 users do not divide over 8 devices"),
        (["--config.train.batch_users=160"], 2, "160 users in a batch, 160 of them of"),
        (["--config.mesh.fsdp=3"], 2, "needs a multiple of 3 devices, but there are 8"),
        (
            ["--config.mesh.data=4"],
            2,
            "needs 4 devices, but there are 8; for example --",
        ),
        (["--config.mesh.tensor=8"], 2, "has 2 in dimension 1, which do not divide over 8"),
        (["--config.encoder.attention=SPLASH"], 2, "config.encoder.attention: splash needs a TPU"),
    ],
)
def test_what_cannot_work_is_refused_by_key(smoke_data, tmp_path, capfd, overrides, code, problem):
    run_stage("train", *train_arguments(smoke_data, tmp_path / "run", *overrides), code=code)
    assert problem in capfd.readouterr().err
    # Nothing that the corrected command would have to be told apart from.
    assert not [path.name for path in (tmp_path / "run").glob("*")]


def test_a_missing_dataset_leaves_nothing_behind(tmp_path, capfd):
    run_stage("train", *train_arguments(tmp_path / "none", tmp_path / "run"), code=3)
    assert "none/manifest.json: no such file" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_run_in_the_directory_is_refused(smoke_data, smoke_run, capfd):
    run_stage("train", *train_arguments(smoke_data, smoke_run, "--config.seed=9"), code=4)
    assert "config.seed: 0 -> 9" in capfd.readouterr().err
