"""A launcher that is told to stop, whose terminal is gone, or that cannot see what is there."""

import os
import signal
import subprocess
import sys

import pytest

from clue_jax.errors import ClueError
from launch import local, verbs
from launch.__main__ import main
from launch.plan import look_up
from tests.launch.machines import Machines
from tests.stages import ROOT, wait_until

STAGE = ["train", "--config=configs/pretrain.py:smoke", "--data=d"]
BUCKET = [*STAGE, "--workdir=gs://bucket/runs/a"]
TPU = ["--name=job", "--accelerator=v5e:4x4", "--zone=us-west4-a", "--nofit"]
GCE = [
    *("--name=job", "--accelerator=v6e:4x4", "--zone=us-east5-b", "--project=my-project"),
    "--nofit",
]
GKE = ["--name=job", "--accelerator=v6e:4x4", "--image=host.dev/p/i:1", "--nofit"]


@pytest.fixture
def machines(tmp_path, monkeypatch):
    made = Machines(tmp_path, ("job",))
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(verbs, "newest_step", lambda results: None)
    return made


def words(machines, program="gcloud"):
    return [word for call in machines.calls(program) for word in call["argv"]]


def waiting(machines, *arguments):
    """A launcher that waits for machines, or for a job, until it is told to stop."""
    machines.put("states", *["WAITING_FOR_RESOURCES"] * 9)
    return subprocess.Popen(
        [sys.executable, "-m", "launch", *arguments],
        cwd=ROOT,
        env={**os.environ, **machines.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_machines_are_removed_though_nobody_can_read_of_it(machines, kind, code):
    launcher = waiting(machines, "tpu_vm", *TPU, "--", *BUCKET)
    wait_until(lambda: words(machines).count("describe") == 2, launcher)
    launcher.stdout.close()  # as a terminal that is closed
    launcher.send_signal(kind)
    assert launcher.wait(20) == code
    assert "delete" in words(machines) and not (machines.home / "made").exists()


def test_nohup_goes_on():
    assert signal.SIGHUP in local.ending_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in local.ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_who_watches_a_cluster_is_told_that_the_job_goes_on(machines, monkeypatch, capfd):
    machines.put("states", *["Running"] * 9)
    monkeypatch.setattr("time.sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        main(["gke", "supervise", *GKE, "--", *BUCKET])
    said = capfd.readouterr().out
    assert "job may go on without this; to stop it: python -m launch gke delete" in said
    assert (machines.home / "made").exists()


@pytest.mark.parametrize("backend", ["tpu_vm", "gke"])
def test_without_credentials_nothing_is_asked_for(machines, monkeypatch, capfd, backend):
    monkeypatch.setenv("STAND_IN_FAILS", "describe" if backend == "tpu_vm" else "get")
    own = TPU if backend == "tpu_vm" else GKE
    for verb in ("run", "supervise"):
        assert main([backend, verb, *own, "--", *BUCKET]) == 2
    said = capfd.readouterr().err
    assert "it was told to fail" in said and "nothing was asked for" in said
    asked = words(machines, "gcloud") + words(machines, "kubectl")
    assert not {"create", "apply", "delete"} & set(asked)


@pytest.mark.parametrize("state", ["False", "True"])
def test_a_group_that_somebody_else_is_making_is_left_alone(machines, capfd, state):
    (machines.home / "made").touch()
    machines.put("states", state)
    assert main(["tpu_gce", *GCE, "--", *BUCKET]) == 2
    assert "job.name: job is there already" in capfd.readouterr().err
    assert not {"create", "delete"} & set(words(machines))


def test_a_thing_is_there_or_not_or_nobody_can_say():
    python = (sys.executable, "-c")
    assert look_up((*python, "print('READY')")) == "READY"
    assert look_up((*python, "print()")) == ""
    for said in ("NOT_FOUND: Resource 'x'", "The resource 'x' was not found", "(NotFound)"):
        assert look_up((*python, f"exit({said!r})")) is None
    with pytest.raises(ClueError, match="no active account"):
        look_up((*python, "exit('no active account')"))


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("gs://bucket not found: 404.", 2, "gs://bucket: there is no such bucket; to make it"),
        ("does not have permission", 0, "whether gs://bucket is there could not be seen"),
    ],
)
def test_a_bucket_that_is_missing_is_found_before_machines_are(
    machines, monkeypatch, capfd, answer, code, said
):
    monkeypatch.setenv("STAND_IN_FAILS", "gs://bucket")
    monkeypatch.setenv("STAND_IN_SAYS", answer)
    assert main(["tpu_vm", *TPU, "--", *BUCKET]) == code
    assert said in "".join(capfd.readouterr())
    assert ("create" in words(machines)) == (code == 0)


def test_on_this_machine_there_is_nothing_to_remove(machines, capfd):
    assert main(["gpu", "delete", "--name=job"]) == 0
    assert "the stage ends with its launcher (Ctrl-C)" in capfd.readouterr().out
    assert main(["gpu", "--name=job", "--dry_run", "--", *STAGE, "--workdir=w"]) == 0
    assert "to stop it: Ctrl-C" in capfd.readouterr().out
