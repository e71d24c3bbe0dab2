"""A folder built again beside itself, with links to what stays, that takes its own place at once.

So a reader finds the old folder or the new one, and after a kill the same command starts over and
also removes what the killed one left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from etils import epath

from clue_jax import files, publishing
from clue_jax.buckets import clear, files_under
from clue_jax.errors import DataError


@dataclass(frozen=True)
class Replacing:
    """A folder and the one that will take its place: write there, what makes it whole last.

    Attributes:
        root: the folder as it is.
        folder: empty, on the same file system.
    """

    root: epath.Path
    folder: epath.Path

    def carry(self, name: str, to: str = "") -> None:
        """The same file under a second name, or a copy where the storage knows no links."""
        source, target = self.root / name, self.folder / (to or name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        except OSError:
            files.write_bytes(target, source.read_bytes())


@contextlib.contextmanager
def replacing(
    path: epath.PathLike, members: Callable[[epath.Path], Collection[str]], kind: str
) -> Iterator[Replacing]:
    """Yields what is to be filled; it takes the place of the folder when the block ends.

    Args:
        path: the folder. An unfinished one beside it (`<path>.partial`) is removed.
        members: (folder) -> paths of the files that belong to it; called while nobody else writes.
        kind: what it is, in messages.

    Raises:
        DataError: the folder holds a file that is no part of it.
        LockedError: another process writes it.
        StorageError: the file system refused; the folder is as it was.
    """
    root = whole_path(path)
    with publishing.staged_directory(root, overwrite=True) as folder:
        _refuse_foreign(root, members(root), kind)
        _remove_leftovers(root, folder)
        yield Replacing(root, folder)
        files.fsync_path(folder)


def whole_path(path: epath.PathLike) -> epath.Path:
    """The folder itself: through a link its name would be replaced, and what is behind it stay."""
    return epath.Path(os.path.realpath(path) if os.path.exists(path) else path)


def _refuse_foreign(root: epath.Path, own: Collection[str], kind: str) -> None:
    # A copy in another format, say, would keep users that are erased.
    foreign = [file for file in files_under(root) if file not in own]
    if foreign:
        raise DataError(
            f"{root / foreign[0]}: not a file of this {kind}, so it may hold users that are to be"
            " erased; move it away or remove it, and run the same command again"
        )


def _remove_leftovers(root: epath.Path, folder: epath.Path) -> None:
    """What a killed run left: these are files with all users."""
    clear(folder)
    for path in list(root.parent.iterdir()):
        if path.name.startswith(f".{root.name}.") and path.name.endswith(".old"):
            path.rmtree()
