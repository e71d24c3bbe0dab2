"""No room, a limit on files, or a disk that may not be written: said by path, and nothing half."""

import os
import shutil
import subprocess
import sys

import pytest

from clue_jax.training.checkpoint import Checkpoints
from tests.faults.logs import contents, manifest
from tests.stages import ROOT, rows, run_stage, train_arguments


def limited(kilobytes, stage, *arguments):
    """Output of a stage whose process may write no file beyond a size; it ends with code 5."""
    shell = ["sh", "-c", 'ulimit -f "$0"; exec "$@"', str(2 * kilobytes)]  # blocks of 512 bytes
    return of_its_own([*shell, sys.executable, "-u", "-m", "clue_jax", stage, *arguments])


def of_its_own(argv):
    """Output of a process that ends with code 5."""
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert done.returncode == 5, done.stdout
    return done.stdout


def prepare_arguments(smoke_data, out):
    logs = smoke_data.parent / "logs"
    return [
        "--config=configs/data/synthetic.py:smoke",
        f"--config.source={logs}",
        f"--out={out}",
    ]


# Of what is put aside: nothing fits, or not all; or it does, but not the shards.
@pytest.mark.parametrize("kilobytes", [1, 64, 128])
def test_prepare_under_a_limit_of_file_sizes(smoke_data, tmp_path, kilobytes):
    command = prepare_arguments(smoke_data, tmp_path / "out")
    error = limited(kilobytes, "prepare", *command).splitlines()[-1]
    assert f"error: {tmp_path / 'out.partial'}" in error and "File too large" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial"]
    run_stage("prepare", *command)
    assert contents(tmp_path / "out") == contents(smoke_data)
    assert not (tmp_path / "out.partial").exists()


def test_export_under_a_limit_of_file_sizes(smoke_run, smoke_data, tmp_path):
    command = [f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={tmp_path / 'out'}"]
    error = limited(4, "export", *command).splitlines()[-1]
    assert f"error: {tmp_path / 'out.partial'}" in error and "File too large" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial"]
    run_stage("export", *command)
    assert manifest(tmp_path / "out") and not (tmp_path / "out.partial").exists()


def test_training_notices_before_the_next_save(smoke_data, tmp_path):
    every = ("--config.checkpoint.every_steps=40", "--config.train.log_every=1")
    steps = ("--config.train.steps=100", "--config.train.eval_every=0")
    output = limited(48, "train", *train_arguments(smoke_data, tmp_path / "run", *every, *steps))
    *lines, error = output.splitlines()
    assert f"error: {tmp_path / 'run' / 'checkpoints'}: a checkpoint could not be" in error
    assert "File too large" in error and "Traceback" not in output
    logged = [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("step")]
    assert 40 <= max(logged) < 80
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == []


def test_training_keeps_what_was_committed_and_goes_on_from_it(smoke_run, smoke_data, tmp_path):
    run = shutil.copytree(smoke_run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "20")
    before = Checkpoints(run / "checkpoints").steps()
    limited(48, "train", *train_arguments(smoke_data, run))
    assert Checkpoints(run / "checkpoints").steps() == before and before[-1] == 15
    run_stage("train", *train_arguments(smoke_data, run))
    assert Checkpoints(run / "checkpoints").steps()[-1] == 20
    assert rows(run) == rows(smoke_run)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many kilobytes; gives its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        argv = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system of its own for this test: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


@pytest.mark.parametrize(("stage", "kilobytes"), [("prepare", 100), ("export", 40)])
def test_a_full_and_a_read_only_disk(smoke_run, smoke_data, small_disk, capfd, stage, kilobytes):
    disk = small_disk(f"size={kilobytes}k")
    made = disk / "out"
    command = {
        "prepare": prepare_arguments(smoke_data, made),
        "export": [f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={made}"],
    }[stage]
    run_stage(stage, *command, code=5)
    error = capfd.readouterr().err.splitlines()[-1]
    assert str(made) in error and "No space left" in error
    assert not made.exists()
    small_disk("remount", "ro")
    run_stage(stage, *command, code=5)
    error = capfd.readouterr().err.splitlines()[-1]
    assert str(made) in error and "Read-only file system" in error
    assert not made.exists()
    small_disk("remount", "rw", "size=64m")
    run_stage(stage, *command)
    assert (made / "manifest.json").exists()


# In processes of their own: a checkpoint that cannot be written leaves coroutines in an event loop
# that Orbax has closed, and Python complains of them in whatever runs when it collects them.
def test_training_on_a_full_and_a_read_only_disk(smoke_data, small_disk):
    made = small_disk("size=200k") / "out"
    train = [sys.executable, "-u", "-m", "clue_jax", "train", *train_arguments(smoke_data, made)]
    error = of_its_own(train).splitlines()[-1]
    assert str(made) in error and "No space left" in error
    small_disk("remount", "ro")
    error = of_its_own(train).splitlines()[-1]
    assert str(made) in error and "Read-only file system" in error
