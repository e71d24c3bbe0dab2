"""Single files: written whole or not at all, checksums, JSON, errors of storage that help.

Paths are `epath.Path`, so local folders and buckets read alike. Directories: publishing.py; locks:
leases.py. These three are where it is known what makes a rerun safe.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

from etils import epath

from clue_jax.buckets import in_bucket, make_folder
from clue_jax.errors import DataError, StorageError


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


def append_text(path: epath.PathLike, text: str) -> None:
    """Adds to the end of a file, which one process alone writes.

    Buckets have no such thing, and the client of gs:// would write over what is there: the file is
    read and written anew, whole.

    Raises:
        StorageError: the file system refused.
    """
    path = epath.Path(path)
    with storage_errors(path):
        if in_bucket(path):
            path.write_text((path.read_text() if path.exists() else "") + text)
        else:
            with path.open("a") as stream:
                stream.write(text)


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
