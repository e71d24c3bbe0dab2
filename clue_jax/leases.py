"""Locks that a dead host never holds for long: lock files with an owner, renewed while held."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from clue_jax.buckets import in_bucket, make_folder
from clue_jax.errors import DataError, LockedError, StorageError
from clue_jax.files import read_json, storage_errors, write_json

LEASE_STALE_SECONDS = 60.0
LEASE_RENEW_SECONDS = 15.0


@contextlib.contextmanager
def lease(path: epath.PathLike) -> Iterator[None]:
    """Holds a lock file with an owner token, renewed while held and stale after a minute.

    A holder on this host whose process is gone is taken over at once, so that a rerun after
    `kill -9` need not wait.

    Raises:
        LockedError: a live process holds it; names host, process and age.
    """
    path = epath.Path(path)
    token = secrets.token_hex(8)
    _acquire(path, token)
    released = threading.Event()

    def renew() -> None:
        while not released.wait(LEASE_RENEW_SECONDS):
            with contextlib.suppress(OSError, StorageError, DataError):
                # A holder that was suspended for long may have lost it to another one.
                if read_json(path).get("token") == token:
                    write_json(path, _lease_record(token))

    renewer = threading.Thread(target=renew, name=f"lease {path.name}", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        released.set()
        renewer.join()
        with contextlib.suppress(OSError, DataError):
            if read_json(path).get("token") == token:
                path.unlink()


def is_held(path: epath.PathLike) -> bool:
    """Whether a live process holds a lease."""
    try:
        refuse_live(epath.Path(path))
    except LockedError:
        return True
    return False


def _lease_record(token: str) -> dict[str, Any]:
    return {
        "token": token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "renewed_at": time.time(),
    }


def _acquire(path: epath.Path, token: str) -> None:
    with storage_errors(path):
        make_folder(path.parent)
        if _create(path, token):
            return
    # Looking and taking over must not be interleaved: a second contender that looked at the stale
    # lease would else take away the fresh one of the first.
    with storage_errors(path), _alone_in(path.parent):
        refuse_live(path)
        path.unlink(missing_ok=True)
        if not _create(path, token):
            raise LockedError(f"{path}: another process took over the stale lock; try again")


def refuse_live(path: epath.Path) -> None:
    """Raises LockedError where a live process holds a lease; names host, process and age."""
    try:
        holder = read_json(path)
        age = time.time() - float(holder.get("renewed_at", 0.0))
    except (DataError, AttributeError, TypeError, ValueError):  # released meanwhile, or damaged
        return
    if age < LEASE_STALE_SECONDS and not _holder_is_dead(holder):
        raise LockedError(
            f"{path}: held by process {holder.get('pid')} on {holder.get('host')}, renewed"
            f" {age:.0f} s ago; wait for it, stop it, or choose another place"
        )


@contextlib.contextmanager
def _alone_in(folder: epath.Path) -> Iterator[None]:
    """One process of this host at a time; the kernel lets go when a process dies."""
    if not os.path.isdir(folder):  # a bucket
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot lock a directory.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(path: epath.Path, token: str) -> bool:
    """Creates the lease only if absent, with its content from the first instant."""
    record = json.dumps(_lease_record(token))
    if in_bucket(path):
        # Buckets have no exclusive create through this API: last writer wins, then reads back.
        if path.exists():
            return False
        path.write_text(record)
        return read_json(path).get("token") == token
    staged = path.parent / f".{path.name}.{token}.new"
    try:
        staged.write_text(record)
        os.link(staged, path)
        return True
    except FileExistsError:
        return False
    finally:
        staged.unlink(missing_ok=True)


def _holder_is_dead(holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
