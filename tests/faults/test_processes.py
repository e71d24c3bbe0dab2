"""Several processes of `prepare`: one is killed, all are orphaned, or a row of one is bad."""

import functools
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.data.test_workers import alive
from tests.faults.kill_prepare import undisturbed, watched
from tests.faults.logs import contents, good_rows, prepare, start_prepare, write, write_parts
from tests.stages import finish

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for processes there"
)
SECONDS = 15.0  # a worker may take to notice that it is alone


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A command, its output, the points of its progress and the bytes it gives undisturbed."""
    folder = tmp_path_factory.mktemp("processes")
    write_parts(folder / "logs")
    start = functools.partial(start_prepare, folder / "logs", folder / "out")
    points, expected = undisturbed(start, folder / "out")
    shutil.rmtree(folder / "out")
    return start, folder / "out", points, expected


def workers_of(parent):
    """Process ids of the workers that a process has."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status[1]) == parent and status[0] != "Z" and b"serve(" in command:
            found.append(int(folder.name))
    return found


def at_work(start, out, points):
    """A build in the middle of its work, and its two workers."""
    process = start("--config.processes=2")
    watched(process, out, points // 2)
    workers = workers_of(process.pid)
    assert len(workers) == 2 and process.poll() is None
    return process, workers


def wait_for_the_end_of(pids):
    deadline = time.monotonic() + SECONDS
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def finish_undisturbed(start, out, expected):
    assert "continuing an interrupted build" in finish(start())
    assert contents(out) == expected
    shutil.rmtree(out)


def test_a_killed_worker_ends_the_stage_and_spoils_nothing(build):
    start, out, points, expected = build
    process, workers = at_work(start, out, points)
    os.kill(workers[0], signal.SIGKILL)
    output = finish(process, code=7)
    assert f"worker process {workers[0]} was killed by SIGKILL; run the same command" in output
    wait_for_the_end_of(workers)
    assert not out.exists()
    finish_undisturbed(start, out, expected)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_parent(build, how):
    start, out, points, expected = build
    process, workers = at_work(start, out, points)
    process.send_signal(how)
    assert "Traceback" not in process.communicate(timeout=SECONDS)[0]
    wait_for_the_end_of(workers)
    assert not out.exists()
    finish_undisturbed(start, out, expected)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_bad_row_of_any_file_is_named(tmp_path, capfd, processes):
    for part in range(3):
        rows = good_rows(200)
        if part == 1:
            rows[150] = ("u1", "yesterday", "a pen")
        write(tmp_path / "logs" / f"part-{part}.csv", rows)
    prepare(tmp_path / "logs", tmp_path / "out", f"--config.processes={processes}", code=3)
    error = capfd.readouterr().err
    assert "part-1.csv:151: column 'timestamp': 'yesterday' is not" in error
    assert "Traceback" not in error
    rejects = (tmp_path / "out.partial" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in rejects] == [151]
    assert not (tmp_path / "out").exists()
