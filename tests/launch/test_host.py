"""The script that hosts run: exit codes, signals, and what an earlier connection has left."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch.hosts import KEEP_ALIVE
from launch.local import Planned, run

SCRIPT = Path(__file__).parents[2] / "launch" / "host.sh"
SAVES = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    "print('clue_jax', flush=True)\n"
    # Short sleeps: a signal just before a sleep is seen after it.
    "for _ in range(600): time.sleep(0.1)\n"
)


@pytest.fixture
def host(tmp_path):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "host.sh").write_bytes(SCRIPT.read_bytes())
    return ["sh", str(tmp_path / "launch" / "host.sh")]


def start(argv):
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return subprocess.Popen(argv, **pipes)


@pytest.mark.parametrize("code", [0, 3, 75])
def test_the_exit_code_is_the_programs(host, code):
    process = start([*host, "run", "0", sys.executable, "-c", f"exit({code})"])
    process.stdout.read()
    assert process.wait(20) == code
    process.communicate()


def told_by_input(process):
    process.stdin.close()


def told_by_signal(process):
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("tell", [told_by_input, told_by_signal])
def test_a_stage_is_told_to_stop_and_saves(host, tell):
    process = start([*host, "run", "0", sys.executable, "-uc", SAVES])
    assert process.stdout.readline() == "clue_jax\n"
    tell(process)
    assert process.wait(20) == 75
    process.stdout.close()
    process.stdin.close()
    assert not list(SCRIPT.parent.glob("stage-*.pid"))


def test_a_stage_saves_though_nobody_reads_what_it_prints(host, tmp_path):
    saves = SAVES.replace("sys.exit", "(print('stopping'), open('saved', 'w'), sys.exit)[2]")
    source = saves.replace("time.sleep(0.1)", "print(time.sleep(0.1))")
    process = start([*host, "run", "0", sys.executable, "-uc", source])
    assert process.stdout.readline() == "clue_jax\n"
    process.stdout.close()  # as a connection that is lost, of which output is noticed first
    time.sleep(0.5)
    process.stdin.close()
    assert process.wait(20) == 75 and (tmp_path / "saved").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"launch", "saved"}


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes there")
def test_what_an_earlier_connection_left_is_stopped_first(host, tmp_path):
    source = SAVES.replace("sys.exit(75)", "(open('saved', 'w'), sys.exit(75))")
    first = start([*host, "run", "0", sys.executable, "-uc", source])
    assert first.stdout.readline() == "clue_jax\n"
    pid = int((tmp_path / "stage-0.pid").read_text())
    os.kill(first.pid, signal.SIGKILL)  # the connection is gone, the stage is not
    first.communicate()
    second = start([*host, "run", "0", sys.executable, "-c", "print(open('saved').read() == '')"])
    assert second.stdout.readline() == "True\n"
    second.communicate()
    left = Path(f"/proc/{pid}/cmdline")  # empty where nobody has asked yet how it ended
    assert not left.exists() or left.read_bytes() == b""


def test_a_launcher_tells_a_stage_elsewhere_by_the_end_of_its_input(host, tmp_path):
    ready = SAVES.replace("print('clue_jax', flush=True)", "open('ready', 'w')")
    argv = (*host, "run", "0", sys.executable, "-uc", ready)
    told = []

    def tell_once_it_runs():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    threading.Thread(target=tell_once_it_runs).start()
    assert run([Planned(argv, remote=True)], told) == 75
    assert told == [signal.SIGTERM] and time.monotonic() - began < 20


def test_a_lost_connection_is_a_lost_process(capfd):
    planned = Planned((sys.executable, "-c", "exit(255)"), remote=True)
    assert run([planned]) == 7
    assert "process 0 of 1 was disconnected" in capfd.readouterr().err
    assert run([Planned((sys.executable, "-c", "exit(255)"))]) == 255


def test_a_host_that_does_not_answer_is_lost_within_a_minute():
    set_to = dict(option.split("=") for option in KEEP_ALIVE)
    # Tried: one that was asked four times, every 15 s, was given up after 75.
    assert int(set_to["ServerAliveInterval"]) * (int(set_to["ServerAliveCountMax"]) + 1) <= 60


def test_who_is_still_connected_is_told_when_a_connection_is_lost(host):
    # Else both stages would go on, each well, until the launcher gives up.
    waits = (*host, "run", "0", sys.executable, "-uc", SAVES)
    lost = (sys.executable, "-c", "import time; time.sleep(1); exit(255)")
    began = time.monotonic()
    assert run([Planned(waits, remote=True), Planned(lost, remote=True)]) == 7
    assert time.monotonic() - began < 20


def test_a_process_that_is_killed_elsewhere_is_named(capfd):
    # SIGKILL, and the SIGABRT of one that saw it.
    ends = ("exit(128 + 9)", "exit(128 + 6)")
    job = [Planned((sys.executable, "-c", source), remote=True) for source in ends]
    assert run(job) == 7
    assert "process 0 of 2 was ended by SIGKILL" in capfd.readouterr().err


def test_an_unknown_verb_is_refused(host):
    done = subprocess.run([*host, "rnu", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and "rnu: install, run or stop" in done.stderr
