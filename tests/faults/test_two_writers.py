"""Two processes on one output, one that died there, and a reader of what is being replaced."""

import signal
import socket
import threading

import pytest

from clue_jax.data.source import open_dataset
from clue_jax.errors import DataError
from tests.faults.logs import contents, good_rows, prepare, start_prepare, write
from tests.stages import finish, wait_until


@pytest.fixture
def logs(tmp_path):
    write(tmp_path / "logs" / "x.csv", good_rows(200, users=40))
    return tmp_path / "logs"


def test_of_two_writers_one_wins_and_the_other_names_it(tmp_path, logs, capfd):
    first = start_prepare(logs, tmp_path / "out")
    try:
        wait_until((tmp_path / "out.lock").exists, first, seconds=60)
        first.send_signal(signal.SIGSTOP)  # alive, and slow
        prepare(logs, tmp_path / "out", code=8)
    finally:
        first.send_signal(signal.SIGCONT)
    error = capfd.readouterr().err
    assert f"held by process {first.pid} on {socket.gethostname()}, renewed " in error
    assert " s ago; wait for it, stop it, or choose another place" in error
    finish(first)
    prepare(logs, tmp_path / "alone")
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_the_lock_of_a_dead_writer_is_taken_over(tmp_path, logs):
    first = start_prepare(logs, tmp_path / "out")
    wait_until((tmp_path / "out.lock").exists, first, seconds=60)
    first.kill()
    finish(first, code=-signal.SIGKILL)
    assert (tmp_path / "out.lock").exists() and not (tmp_path / "out").exists()
    prepare(logs, tmp_path / "out")
    assert not (tmp_path / "out.lock").exists()


def test_a_reader_sees_the_old_dataset_or_the_new_one(tmp_path, logs):
    write(tmp_path / "others" / "x.csv", good_rows(200, users=30))
    out, folders = tmp_path / "out", (logs, tmp_path / "others")
    expected = {}
    for folder in folders:
        prepare(folder, out, "--config.overwrite=true")
        expected.setdefault(open_dataset(out).fingerprint, _read(out)[1])
    seen, refused, unforeseen, done = [], [], [], threading.Event()

    def reader():
        while not done.is_set():
            try:
                seen.append(_read(out))
            except DataError as error:
                refused.append(str(error))
            except Exception as error:
                unforeseen.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        for turn in range(10):
            prepare(folders[turn % 2], out, "--config.overwrite=true")
    finally:
        done.set()
        thread.join()
    assert not unforeseen and len(seen) > 20
    assert all(expected[fingerprint] == users for fingerprint, users in seen)
    assert {fingerprint for fingerprint, _ in seen} == set(expected)
    # One that was overtaken while it read is told so; what it looks for is always there.
    assert all("manifest.json" in error or "run prepare again" in error for error in refused)
    assert not any("not a prepared dataset" in error for error in refused)


def _read(out):
    dataset = open_dataset(out)
    users = dataset.users("train")
    columns = (getattr(users, name).tolist() for name in ("user_ids", "tokens", "behaviour_times"))
    return dataset.fingerprint, list(columns)
