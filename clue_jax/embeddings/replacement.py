"""An export built again beside itself, with links to what stays (replacing.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from etils import epath

from clue_jax.embeddings.layout import SUCCESS, files_of
from clue_jax.embeddings.moments import moments_of
from clue_jax.embeddings.reader import BESIDE, MANIFEST, open_export
from clue_jax.embeddings.vectors import matrix
from clue_jax.embeddings.verify import check_beside
from clue_jax.embeddings.writer import MOMENTS, Part
from clue_jax.replacing import Replacing, replacing, whole_path


@dataclass(frozen=True)
class Replacement(Replacing):
    """An export and the folder that will take its place: write there, the manifest last.

    Attributes:
        manifest: of the export as it is.
    """

    manifest: dict[str, Any]

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
    open_export(whole_path(path), "users")  # before anything is made beside it
    with replacing(path, _members, "export") as new:
        manifest = open_export(new.root, "users")  # nobody else changes it from here on
        check_beside(new.root, manifest)
        yield Replacement(new.root, new.folder, manifest)


def _members(root: epath.Path) -> set[str]:
    manifest = open_export(root, "users")
    return {MANIFEST, SUCCESS, *manifest.get(BESIDE, {}), *files_of(*manifest["parts"])}
