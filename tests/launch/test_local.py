"""Several processes of one job on this machine, as the launcher starts and judges them."""

import signal
import sys
import time
from pathlib import Path

import pytest

from launch import local
from launch.__main__ import main
from launch.local import Planned, job_of, run
from tests.stages import finish, start_module, wait_until


def job(*sources):
    return [Planned((sys.executable, "-u", "-c", source), {}) for source in sources]


WAITS = "import time; time.sleep(60)"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
ABORTS = "import os, time; time.sleep(1); os.abort()"  # as those do that see a peer die


def test_all_end_well(capfd):
    assert run(job("print('one')", "print('two')")) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["[1] two", "one"]


@pytest.mark.parametrize(
    ("sources", "code", "said"),
    [
        (("exit(5)", WAITS), 5, None),
        ((WAITS, "exit(3)"), 3, None),
        (("exit(75)", "exit(75)"), 75, None),
        ((WAITS, DIES), 7, "process 1 of 2 was ended by SIGKILL"),
        # What the others do about it is not the reason.
        ((ABORTS, DIES), 7, "process 1 of 2 was ended by SIGKILL"),
        ((ABORTS, WAITS), 7, "process 0 of 2 was ended by SIGABRT"),
        # Nor is what was seen first, where a reason comes after it.
        (("exit(75)", "import time; time.sleep(0.3); exit(5)"), 5, None),
        (("import os; os.abort()", "import time; time.sleep(0.3); exit(3)"), 3, None),
        (("exit(5)", "import time; time.sleep(0.3); exit(3)"), 5, None),
        # One that the launcher had to end is no reason.
        (("exit(75)", WAITS), 75, None),
    ],
)
def test_the_first_that_ends_badly_says_how(monkeypatch, capfd, sources, code, said):
    # Whoever ends by himself has time to, however slowly a busy machine starts him.
    monkeypatch.setattr("launch.local.PEER_SECONDS", 0.5 if WAITS in sources else 30.0)
    assert run(job(*sources)) == code
    assert said is None or said in capfd.readouterr().err


def test_who_does_not_end_with_the_others_is_named(monkeypatch, capfd):
    monkeypatch.setattr("launch.local.PEER_SECONDS", 0.5)
    # As the stage of a machine that is well ends when another one is unplugged.
    assert run(job("import os; os.abort()", WAITS)) == 7
    said = capfd.readouterr().err
    assert "process 1 of 2 did not end with the others within 0.5 s and is given up" in said
    assert "process 0 of 2 was ended by SIGABRT" in said


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGTERM),  # a terminal is closed
    ],
)
def test_signals_reach_every_process(tmp_path, kind, arrives):
    source = (
        "import pathlib, signal, sys, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        f"signal.signal({int(arrives)}, lambda *_: sys.exit(75))\n"
        "(folder / sys.argv[1]).touch()\n"
        # Short sleeps: a signal just before a sleep is seen after it.
        "for _ in range(600): time.sleep(0.1)\n"
    )
    launcher = start_module("tests.launch.run_job", source, "a", "b")
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, launcher)
    launcher.send_signal(kind)
    finish(launcher, code=75, seconds=20)


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_before_anybody_listens_to_signals(tmp_path, kind, code):
    source = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        f"(pathlib.Path({str(tmp_path)!r}) / sys.argv[1]).touch()\n"
        "time.sleep(60)\n"
    )
    launcher = start_module("tests.launch.run_job", source, "a", "b")
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, launcher)
    launcher.send_signal(kind)
    assert "stopped before" in finish(launcher, code=code, seconds=20)


def test_a_signal_between_two_starts_reaches_the_later_ones(monkeypatch):
    start = local._start

    def told_meanwhile(planned):
        process = start(planned)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(local, "_start", told_meanwhile)
    began = time.monotonic()
    assert run(job(WAITS, WAITS)) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 30


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked for this")
def test_nothing_is_left_when_the_launcher_is_killed(tmp_path):
    source = (
        "import os, pathlib, sys, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    launcher = start_module("tests.launch.run_job", source, "a", "b")
    wait_until(lambda: len(list(tmp_path.glob("[ab]"))) == 2, launcher)
    time.sleep(0.1)
    pids = [int(path.read_text()) for path in tmp_path.glob("[ab]")]
    launcher.kill()
    finish(launcher, code=-signal.SIGKILL)
    limit = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < limit, "still running"
        time.sleep(0.05)


def test_processes_find_each_other_by_their_environment():
    first, second = job_of(["train", "--data=a b"], 2, 4)
    assert first.argv[-2:] == ("train", "--data=a b")
    assert "--xla_force_host_platform_device_count=4" in first.environment["XLA_FLAGS"]
    assert [p.environment["JAX_PROCESS_ID"] for p in (first, second)] == ["0", "1"]
    same = first.environment["JAX_COORDINATOR_ADDRESS"]
    assert same == second.environment["JAX_COORDINATOR_ADDRESS"] and same.startswith("127.0.0.1:")
    (alone,) = job_of(["train"], 1, 0)
    assert alone.environment == {}


def test_a_dry_run_prints_what_a_shell_would_run(capsys):
    assert main(["local", "--dry_run", "--", "train", "--data=a b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.endswith("clue_jax train '--data=a b'") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere", "--", "train"], "no backend 'nowhere'"),
        (["local", "--processes=0", "--", "train"], "processes"),
        (["local", "train"], "'train' is no flag nor verb (run, supervise); the stage"),
        (["local", "--", "trian"], "after -- stands a stage: "),
        (["local"], "after -- stands a stage: "),
        (["local", "--", "prepare"], "prepare is the work of one process"),
    ],
)
def test_what_cannot_be_started_is_refused(capfd, arguments, problem):
    assert main(arguments) == 2
    assert problem in capfd.readouterr().err


def test_help(capsys):
    assert main(["--help"]) == 0 and main([]) == 2
    assert "--processes" in capsys.readouterr().out
