"""Durability: what is under a final name is whole, and one writer at a time."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from clue_jax import files, leases, publishing
from clue_jax.errors import DataError, LockedError, StorageError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------ files


def test_written_json_is_read_back(folder):
    files.write_json(folder / "sub" / "a.json", {"b": [1, "ü"]})
    assert files.read_json(folder / "sub" / "a.json") == {"b": [1, "ü"]}
    assert _names(folder / "sub") == ["a.json"]


def test_a_failed_write_leaves_the_old_content_and_nothing_else(folder, monkeypatch):
    files.write_text(folder / "a", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    # _sync forgives streams without a descriptor, so the fault is put where it does not.
    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(StorageError, match="a: No space left on device; free some space"):
        files.write_text(folder / "a", "new")
    assert (folder / "a").read_text() == "old"
    assert _names(folder) == ["a"]


def test_a_parent_that_is_a_file_is_a_storage_error(folder):
    files.write_text(folder / "a", "x")
    with pytest.raises(StorageError, match="a/b"):
        files.write_text(folder / "a" / "b", "y")


def test_read_json_names_the_file(folder):
    with pytest.raises(DataError, match="none.json: no such file"):
        files.read_json(folder / "none.json")
    files.write_text(folder / "bad.json", "{")
    with pytest.raises(DataError, match="bad.json: not valid JSON"):
        files.read_json(folder / "bad.json")
    files.write_bytes(folder / "bad.json", b"\xff\xfe")
    with pytest.raises(DataError, match="bad.json: not valid JSON"):
        files.read_json(folder / "bad.json")


def test_checksums(folder):
    files.write_bytes(folder / "a", b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_file(folder / "a", block_bytes=2) == known == files.sha256_text("abc")
    assert files.canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'


# ------------------------------------------------------------------------------- staged directories


def _build(final, content="new", **options):
    with publishing.staged_directory(final, **options) as partial:
        files.write_text(partial / "manifest.json", content)


def test_a_directory_appears_when_it_is_complete(folder):
    final = folder / "out"
    with publishing.staged_directory(final) as partial:
        files.write_text(partial / "a", "x")
        assert not final.exists()
    assert (final / "a").read_text() == "x"
    assert _names(folder) == ["out"]


def test_after_a_failure_the_parts_are_there_for_the_next_run(folder):
    final = folder / "out"
    with pytest.raises(KeyError), publishing.staged_directory(final) as partial:
        files.write_text(partial / "part-0", "x")
        raise KeyError("fault")
    assert _names(folder) == ["out.partial"]
    with publishing.staged_directory(final) as partial:
        assert _names(partial) == ["part-0"]
        files.write_text(partial / "part-1", "y")
    assert _names(final) == ["part-0", "part-1"]


def test_an_existing_directory_is_refused_and_untouched(folder):
    _build(folder / "out", "old")
    with pytest.raises(StorageError, match="never overwritten silently.*overwrite=true"):
        _build(folder / "out")
    assert (folder / "out" / "manifest.json").read_text() == "old"
    assert _names(folder) == ["out"]


def test_an_existing_directory_is_replaced_when_asked(folder):
    _build(folder / "out", "old")
    files.write_text(folder / "out" / "left_over", "x")
    _build(folder / "out", overwrite=True)
    assert _names(folder / "out") == ["manifest.json"]
    assert (folder / "out" / "manifest.json").read_text() == "new"
    assert _names(folder) == ["out"]


def test_a_reader_finds_one_directory_or_the_other_at_every_instant(folder, monkeypatch):
    _build(folder / "out", "old")
    (folder / "one").mkdir()
    (folder / "other").mkdir()
    if not publishing._exchange(folder / "one", folder / "other"):
        pytest.skip("this system cannot exchange two directories")
    rename, found = type(folder).rename, []

    def noted(path, target):
        renamed = rename(path, target)
        found.append((folder / "out" / "manifest.json").read_text())
        return renamed

    monkeypatch.setattr(type(folder), "rename", noted)
    _build(folder / "out", "new", overwrite=True)
    assert set(found) == {"new"}
    assert _names(folder) == ["one", "other", "out"]


def test_where_directories_cannot_be_exchanged_they_are_renamed(folder, monkeypatch):
    monkeypatch.setattr(publishing, "_exchange", lambda *paths: False)
    _build(folder / "out", "old")
    _build(folder / "out", overwrite=True)
    assert (folder / "out" / "manifest.json").read_text() == "new"
    assert _names(folder) == ["out"]


def test_a_failed_overwrite_keeps_the_old_directory(folder):
    _build(folder / "out", "old")
    with pytest.raises(KeyError), publishing.staged_directory(folder / "out", overwrite=True):
        raise KeyError("fault")
    assert (folder / "out" / "manifest.json").read_text() == "old"


def test_an_empty_directory_and_only_that_may_be_filled(folder):
    (folder / "out").mkdir()
    _build(folder / "out")
    files.write_text(folder / "file", "x")
    with pytest.raises(StorageError, match="file: already there"):
        _build(folder / "file")


def test_what_another_writer_published_meanwhile_is_not_replaced(folder, monkeypatch):
    acquire = leases._acquire

    def late(path, token):
        files.write_text(folder / "out" / "manifest.json", "theirs")
        acquire(path, token)

    monkeypatch.setattr(leases, "_acquire", late)
    with pytest.raises(StorageError, match="already there"):
        _build(folder / "out")
    assert (folder / "out" / "manifest.json").read_text() == "theirs"


def test_two_writers_of_one_directory(folder):
    with publishing.staged_directory(folder / "out") as partial:
        with pytest.raises(LockedError, match=f"process {os.getpid()} "):
            _build(folder / "out")
        files.write_text(partial / "manifest.json", "mine")
    assert (folder / "out" / "manifest.json").read_text() == "mine"


# ------------------------------------------------------------------------------------------ leases


def _record(pid, age=0.0, host=None):
    return {
        "token": "theirs",
        "host": host or socket.gethostname(),
        "pid": pid,
        "renewed_at": time.time() - age,
    }


def _dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lease_is_gone_after_the_block_and_after_a_failure(folder):
    with leases.lease(folder / "lock"):
        assert files.read_json(folder / "lock")["pid"] == os.getpid()
    with pytest.raises(KeyError), leases.lease(folder / "lock"):
        raise KeyError("fault")
    assert _names(folder) == []


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_a_live_holder_keeps_it(folder, host):
    record = _record(os.getpid(), age=30, host=host)
    files.write_json(folder / "lock", record)
    message = f"held by process {os.getpid()} on {record['host']}, renewed 30 s ago"
    with pytest.raises(LockedError, match=message), leases.lease(folder / "lock"):
        pass
    assert files.read_json(folder / "lock") == record


def test_a_dead_holder_on_this_host_is_taken_over_at_once(folder):
    files.write_json(folder / "lock", _record(_dead_pid()))
    with leases.lease(folder / "lock"):
        assert files.read_json(folder / "lock")["pid"] == os.getpid()


def test_a_dead_process_number_of_another_host_says_nothing(folder):
    files.write_json(folder / "lock", _record(_dead_pid(), host="elsewhere"))
    with pytest.raises(LockedError, match="elsewhere"), leases.lease(folder / "lock"):
        pass


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_a_stale_lease_is_taken_over(folder, host):
    files.write_json(folder / "lock", _record(os.getpid(), leases.LEASE_STALE_SECONDS + 1, host))
    with leases.lease(folder / "lock"):
        assert files.read_json(folder / "lock")["token"] != "theirs"


@pytest.mark.parametrize("damaged", ["{", "[]", '{"renewed_at": "x"}', '{"renewed_at": null}'])
def test_a_damaged_lease_is_taken_over(folder, damaged):
    files.write_text(folder / "lock", damaged)
    with leases.lease(folder / "lock"):
        assert files.read_json(folder / "lock")["pid"] == os.getpid()


def test_a_lease_is_renewed(folder, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_RENEW_SECONDS", 0.02)
    with leases.lease(folder / "lock"):
        first = files.read_json(folder / "lock")["renewed_at"]
        _until(lambda: files.read_json(folder / "lock")["renewed_at"] > first)


def test_a_holder_that_lost_it_neither_renews_nor_removes_the_next_one(folder, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_RENEW_SECONDS", 0.02)
    theirs = _record(os.getpid(), host="elsewhere")
    with leases.lease(folder / "lock"):
        files.write_json(folder / "lock", theirs)
        time.sleep(0.1)
        assert files.read_json(folder / "lock")["token"] == "theirs"
    assert files.read_json(folder / "lock") == theirs


def _until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


RACER = """
import sys
from clue_jax import leases
from clue_jax.errors import LockedError
print("ready", flush=True)
sys.stdin.readline()
try:
    with leases.lease(sys.argv[1]):
        print("won", flush=True)
        sys.stdin.readline()
except LockedError as error:
    print("lost", error, flush=True)
"""


@pytest.mark.parametrize("before", ["free", "dead holder"])
def test_of_racing_processes_exactly_one_wins(folder, before):
    lock = folder / "lock"
    if before == "dead holder":
        files.write_json(lock, _record(_dead_pid()))
    script = folder / "racer.py"
    script.write_text(RACER)
    argv = [sys.executable, str(script), str(lock)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    racers = [
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(3)
    ]
    try:
        assert [r.stdout.readline() for r in racers] == ["ready\n"] * 3
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        lines = [r.stdout.readline() for r in racers]
        assert sorted(line.split()[0] for line in lines) == ["lost", "lost", "won"]
        holder = json.loads(lock.read_text())["pid"]
        assert holder == racers[lines.index("won\n")].pid
    finally:
        for racer in racers:
            racer.communicate("end\n", timeout=30)
    assert not lock.exists()


def test_a_contender_that_looked_too_early_does_not_take_a_fresh_lease(folder, monkeypatch):
    # The other one takes over between our finding the lease and our turn to look at it.
    files.write_json(folder / "lock", _record(_dead_pid()))
    alone = leases._alone_in
    theirs = _record(os.getpid())

    def late(parent):
        files.write_json(folder / "lock", theirs)
        return alone(parent)

    monkeypatch.setattr(leases, "_alone_in", late)
    with pytest.raises(LockedError), leases.lease(folder / "lock"):
        pass
    assert files.read_json(folder / "lock") == theirs
