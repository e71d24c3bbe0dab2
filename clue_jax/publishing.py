"""Directories: made beside their final name, and given it when they are whole.

A directory is complete when the file that names it complete (its manifest) exists; the final rename
is a local refinement.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
from collections.abc import Iterator

from etils import epath

from clue_jax.buckets import in_bucket, listed, make_folder, move_files
from clue_jax.errors import StorageError
from clue_jax.files import fsync_path, storage_errors
from clue_jax.leases import lease, refuse_live


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
            refuse_live(path)


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
