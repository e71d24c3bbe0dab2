"""Several processes: results in order, errors as they are, and nobody left behind by a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clue_jax.data.workers import Workers
from clue_jax.errors import DataError, LostPeerError

ROOT = Path(__file__).parents[2]


def square(number, seconds, advance):
    time.sleep(seconds)
    advance(number)
    return number**2, os.getpid()


def failing(number, advance):
    if number == 2:
        raise DataError(f"row {number} is bad")
    return number


def broken(advance):
    raise KeyError("a mistake")


def dying(number, advance):
    advance(os.getpid())
    if number == 1:
        time.sleep(1)  # the other has begun
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_are_in_order_whoever_is_faster(processes):
    tasks, steps = [(n, 0.05 * (n % 2)) for n in range(8)], []
    with Workers(processes) as workers:
        found = list(workers.map(square, tasks, steps.append))
        again = list(workers.map(square, tasks[:2], steps.append))
    assert [value for value, _ in found] == [n**2 for n in range(8)]
    assert [value for value, _ in again] == [0, 1]
    assert sorted(steps) == sorted([*range(8), 0, 1])
    pids = {pid for _, pid in found}
    assert len(pids) == processes and (os.getpid() in pids) == (processes == 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_task_raises_is_raised(processes):
    began = time.monotonic()
    with pytest.raises(DataError, match="row 2 is bad"), Workers(processes) as workers:
        list(workers.map(failing, [(n,) for n in range(4)], print))
    assert time.monotonic() - began < 30


def test_a_mistake_in_a_task_keeps_its_name(capfd):
    with pytest.raises(RuntimeError, match="KeyError: 'a mistake'"), Workers(2) as workers:
        list(workers.map(broken, [(), ()], print))
    assert "Traceback" in capfd.readouterr().err


def test_a_killed_worker_ends_the_stage_and_the_others():
    began, pids = time.monotonic(), []
    with Workers(2) as workers:
        with pytest.raises(
            LostPeerError, match=r"worker process \d+ was killed by SIGKILL"
        ) as lost:
            list(workers.map(dying, [(0,), (1,)], pids.append))
        assert len(pids) == 2 and not any(map(alive, pids))
    assert time.monotonic() - began < 30 and lost.value.exit_code == 7


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


PARENT = """
import sys
from clue_jax.data.workers import Workers
from tests.data.test_workers import sleeping

with Workers(2) as workers:
    list(workers.map(sleeping, [(), ()], lambda pid: print(int(pid), flush=True)))
"""


def sleeping(advance):
    advance(os.getpid())
    time.sleep(120)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes there")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, how):
    program = tmp_path / "parent.py"  # without `if __name__ == "__main__"`
    program.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(map(alive, pids))
        parent.send_signal(how)
        parent.wait(30)
        deadline = time.monotonic() + 15
        while any(map(alive, pids)):
            assert time.monotonic() < deadline, "a worker outlived its parent"
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.communicate()
