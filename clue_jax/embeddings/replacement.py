"""An export built again beside itself, with links to what stays, that takes its own place at once.

So a reader finds the old export or the new one, and after a kill the same command starts over and
also removes what the killed one left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from etils import epath

from clue_jax import files
from clue_jax.embeddings.layout import SUCCESS, clear, files_of, files_under
from clue_jax.embeddings.moments import moments_of
from clue_jax.embeddings.reader import BESIDE, MANIFEST, open_export
from clue_jax.embeddings.vectors import matrix
from clue_jax.embeddings.verify import check_beside
from clue_jax.embeddings.writer import MOMENTS, Part
from clue_jax.errors import DataError


@dataclass(frozen=True)
class Replacement:
    """An export and the folder that will take its place: write there, the manifest last.

    Attributes:
        root: the export as it is.
        folder: empty, on the same file system.
        manifest: of the export as it is.
    """

    root: epath.Path
    folder: epath.Path
    manifest: dict[str, Any]

    def carry(self, name: str) -> None:
        """The same file under a second name, or a copy where the storage knows no links."""
        source, target = self.root / name, self.folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        except OSError:
            files.write_bytes(target, source.read_bytes())

    def carry_part(self, entry: Part, table: pa.Table) -> Part:
        """A part as it is, whose rows are `table`; gives its entry for the new manifest."""
        for file in files_of(entry):
            self.carry(file)
        return {**entry, MOMENTS: moments_of(matrix(table, "embedding")[0]).as_json()}


@contextlib.contextmanager
def replacement(path: epath.PathLike) -> Iterator[Replacement]:
    """Yields what is to be filled; it takes the place of the export when the block ends.

    Args:
        path: the folder `export` wrote, of users. An unfinished one beside it (`<path>.partial`)
            is removed.

    Raises:
        DataError: the export is damaged, or its folder holds a file that is no part of it.
        LockedError: another process writes this export.
        StorageError: the file system refused; the export is as it was.
    """
    # Through a link the name would be replaced, and the folder behind it would stay.
    root = epath.Path(os.path.realpath(path) if os.path.exists(path) else path)
    open_export(root, "users")
    with files.staged_directory(root, overwrite=True) as folder:
        manifest = open_export(root, "users")  # nobody else changes it from here on
        _refuse_foreign(root, manifest)
        check_beside(root, manifest)
        _remove_leftovers(root, folder)
        yield Replacement(root, folder, manifest)
        files.fsync_path(folder)


def _refuse_foreign(root: epath.Path, manifest: dict[str, Any]) -> None:
    # A copy in another format, say, would keep users that are erased.
    own = {MANIFEST, SUCCESS, *manifest.get(BESIDE, {}), *files_of(*manifest["parts"])}
    foreign = [file for file in files_under(root) if file not in own]
    if foreign:
        raise DataError(
            f"{root / foreign[0]}: not a file of this export, so it may hold users that are to be"
            " erased; move it away or remove it, and run the same command again"
        )


def _remove_leftovers(root: epath.Path, folder: epath.Path) -> None:
    """What a killed run left: these are files with all users."""
    clear(folder)
    for path in list(root.parent.iterdir()):
        if path.name.startswith(f".{root.name}.") and path.name.endswith(".old"):
            path.rmtree()
