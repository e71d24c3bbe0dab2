"""Durability: atomic publication, checksums, staged directories, leases. The one place that knows.

Paths are `epath.Path`, so local folders and buckets read alike. A directory is complete when the
file that names it complete (its manifest) exists; the final rename is a local refinement.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from clue_jax.buckets import in_bucket, listed, make_folder, move_files
from clue_jax.errors import DataError, LockedError, StorageError

LEASE_STALE_SECONDS = 60.0
LEASE_RENEW_SECONDS = 15.0


def canonical_json(value: Any) -> str:
    """Serialises `value` so that equal values give equal text (sorted keys, no spaces)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_text(text: str) -> str:
    """Hex SHA-256 of `text` in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: epath.PathLike, block_bytes: int = 1 << 20) -> str:
    """Hex SHA-256 of the bytes of a file, read in blocks."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as stream:
        while block := stream.read(block_bytes):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def storage_errors(path: epath.PathLike) -> Iterator[None]:
    """Turns an OSError on `path` into a StorageError that names it and the way out."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space and run the same command again",
            errno.EDQUOT: "raise the quota and run the same command again",
            errno.EFBIG: "raise the file-size limit (ulimit -f) and run the same command again",
            errno.EROFS: "the file system is read-only; choose another output",
            errno.EACCES: "check the permissions, or choose another output",
        }.get(error.errno or 0, "check the path and run the same command again")
        raise StorageError(f"{path}: {error.strerror or error}; {advice}") from error


def write_bytes(path: epath.PathLike, payload: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, never half.

    Raises:
        StorageError: the file system refused; nothing is left under the final name.
    """
    path = epath.Path(path)
    staged = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with storage_errors(path):
        make_folder(path.parent)
        try:
            with staged.open("wb") as stream:
                stream.write(payload)
                _sync(stream)
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def write_text(path: epath.PathLike, text: str) -> None:
    """Like `write_bytes`, for text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: epath.PathLike, value: Any) -> None:
    """Like `write_bytes`, for a JSON document a person may read."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Reads a JSON document.

    Raises:
        DataError: it is missing or is not JSON; names the file and position.
    """
    path = epath.Path(path)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); it is damaged or not ours") from error


def fsync_path(path: epath.PathLike) -> None:
    """Asks the disk to keep a file or directory; buckets keep what they take anyway."""
    if os.path.exists(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(stream: Any) -> None:
    stream.flush()
    # Bucket streams have no descriptor; they are durable once closed.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.fsync(stream.fileno())


@contextlib.contextmanager
def staged_directory(final: epath.PathLike, *, overwrite: bool = False) -> Iterator[epath.Path]:
    """Yields `<final>.partial`, published as `final` when the block ends without an error.

    After a kill the partial directory stays, so that the next run can reuse the shards in it. One
    writer at a time holds the lease `<final>.lock`.

    Raises:
        StorageError: `final` exists and `overwrite` is false, or the file system refused.
        LockedError: another live process builds the same directory.
    """
    final, partial = epath.Path(final), partial_of(final)
    refuse_existing(final, overwrite=overwrite)
    with lease(lock_of(final)), storage_errors(partial):
        # Another writer may have published between the first look and the lease.
        refuse_existing(final, overwrite=overwrite)
        refuse_sharers(final)
        make_folder(partial)
        yield partial
        publish(partial, final)


def partial_of(final: epath.PathLike) -> epath.Path:
    """Where a directory is made that will be `final`."""
    return epath.Path(final).parent / f"{epath.Path(final).name}.partial"


def lock_of(final: epath.PathLike, sharer: str = "") -> epath.Path:
    """The lease of who makes `final`, or of one of several who make it together."""
    name = f"{epath.Path(final).name}.lock"
    return epath.Path(final).parent / (f"{name}.{sharer}" if sharer else name)


def refuse_sharers(final: epath.PathLike) -> None:
    """Raises LockedError where live processes make `final` together."""
    lock = lock_of(final)
    for path in sorted(lock.parent.iterdir()):
        if path.name.startswith(f"{lock.name}."):
            _refuse_live(path)


def publish(partial: epath.Path, final: epath.Path) -> None:
    """Gives a whole directory its final name; a reader of that name finds the old or the new one.

    In a bucket, where no directory has a name that could be changed, every file is moved, and a
    reader that goes by the manifest finds the old one, none, or the new one.

    To be called by who holds the lease.
    """
    if in_bucket(final):
        move_files(partial, final)
        return
    replaced = final.parent / f".{final.name}.{secrets.token_hex(4)}.old"
    if _exchange(partial, final):
        partial.rename(replaced)
    else:
        if final.exists():
            final.rename(replaced)
        partial.rename(final)
    fsync_path(final.parent)
    if replaced.exists():
        replaced.rmtree()


def _exchange(one: epath.Path, other: epath.Path) -> bool:
    """Swaps two local directories in one instant, so that a reader always finds one under either
    name; False where one is not there, or the system cannot."""
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = [os.fsencode(path) for path in (one, other)]
    return rename is not None and rename(here, names[0], here, names[1], flag) == 0


def refuse_existing(final: epath.PathLike, *, overwrite: bool) -> None:
    """Raises StorageError when `final` already holds something and may not be replaced."""
    final = epath.Path(final)
    if final.exists() and not overwrite and (not final.is_dir() or listed(final)):
        raise StorageError(
            f"{final}: already there and never overwritten silently; choose another --out or, where"
            " there is a config, pass --config.overwrite=true"
        )


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
        _refuse_live(epath.Path(path))
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
        _refuse_live(path)
        path.unlink(missing_ok=True)
        if not _create(path, token):
            raise LockedError(f"{path}: another process took over the stale lock; try again")


def _refuse_live(path: epath.Path) -> None:
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
