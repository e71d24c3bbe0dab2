"""The folder of an unfinished export: whose it is, what of it is done, and how it is finished.

    <out>.partial/plan.json       what the export is of; only the same export goes on here
    <out>.partial/done/*.json     a marker for each part that is whole, with its SHA-256
    <out>.partial/...             the parts, where they will lie

A part is renamed into place before its marker, and markers go when the manifest is there. So
whatever is killed at whatever instant, a part with a marker is whole, and one without is made
again, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.buckets import clear, files_under
from clue_jax.embeddings.layout import SUCCESS, files_of, part_file
from clue_jax.embeddings.reader import MANIFEST, SEAL, read_manifest
from clue_jax.embeddings.writer import Part, write_manifest
from clue_jax.errors import DataError, StorageError
from clue_jax.markdown import CARD

PLAN, DONE, ITEMS = "plan.json", "done", "items"
_LETTERS = 30  # of a value that differs


@dataclass(frozen=True)
class ExportFolder:
    """An unfinished export; use `claim`.

    Attributes:
        path: of the folder.
        manifest: what is known of the export before it is made.
        parts: how many it has.
    """

    path: epath.Path
    manifest: Mapping[str, Any]
    parts: int

    @property
    def export_id(self) -> str:
        """Identity of all that determines the content."""
        return self.manifest["export_id"]

    def file(self, part: int) -> str:
        """Path of a part in the folder."""
        return part_file(self.manifest["model_version"], part, self.parts)

    def mark(self, entry: Part) -> None:
        """Says that a part is whole."""
        marker = {"export_id": self.export_id, "entry": entry}
        files.write_text(self._marker(entry["file"]), files.canonical_json(marker))

    def finished(self, part: int, *, verify: bool) -> Part | None:
        """The entry of a part that is whole, or None.

        Args:
            part: its number.
            verify: compare its SHA-256, not its size alone.
        """
        file = self.file(part)
        marker = self._marker(file)
        if not marker.exists():
            return None
        try:
            found = files.read_json(marker)
            entry = found["entry"]
            if found["export_id"] != self.export_id or entry["file"] != file:
                return None
        except (DataError, KeyError, TypeError):
            return None
        paths = {self.path / name: digest for name, digest in files_of(entry).items()}
        if not all(path.exists() for path in paths):
            return None
        if (self.path / file).stat().length != entry["bytes"]:
            return None
        if verify and any(files.sha256_file(path) != digest for path, digest in paths.items()):
            return None
        return entry

    def complete(self) -> list[Part] | None:
        """The entries of all parts, or None where one is not done."""
        entries: list[Part] = []
        for part in range(self.parts):
            entry = self.finished(part, verify=False)
            if entry is None:
                return None
            entries.append(entry)
        return entries

    def conclude(self, entries: list[Part]) -> None:
        """Writes the manifest, and removes what is no part of a finished export."""
        own = {PLAN, CARD, MANIFEST, SUCCESS, *files_of(*entries)}
        _remove(self.path, (SUCCESS, MANIFEST))  # of an attempt that was cut short
        _remove(self.path, list(filter(_temporary, files_under(self.path))))
        foreign = [file for file in files_under(self.path) if _foreign(file, own)]
        if foreign:
            raise StorageError(
                f"{self.path / foreign[0]}: not of this export; move it away and run the same"
                " command again"
            )
        write_manifest(self.path, dict(self.manifest), entries)
        self._tidy()

    def _tidy(self) -> None:
        for name in (DONE, ITEMS):
            if (self.path / name).exists():
                (self.path / name).rmtree()
        _remove(self.path, [PLAN])
        files.fsync_path(self.path)

    def _marker(self, file: str) -> epath.Path:
        return self.path / DONE / f"{PurePosixPath(file).name}.json"

    def already(self) -> bool:
        """Whether the manifest is there, since a run was killed just before the folder's rename."""
        if not is_export(self.path, self.export_id):
            return False
        self._tidy()
        return True


def claim(
    folder: epath.Path, manifest: Mapping[str, Any], parts: int, *, overwrite: bool
) -> ExportFolder:
    """Takes a folder for an export: an empty one, or one that the same export has begun.

    Args:
        folder: which is there.
        manifest: of the export, `export_id` included.
        parts: how many it will have.
        overwrite: whether the beginning of another export may be discarded.

    Raises:
        StorageError: it has the beginning of another export, or something else; names it.
    """
    ours = ExportFolder(folder, manifest, parts)
    plan = folder / PLAN
    if is_export(folder, ours.export_id):
        return ours
    if not plan.exists():
        _refuse_foreign(folder, overwrite=overwrite)
        files.write_json(plan, manifest)
    begun = files.read_json(plan)
    if begun.get("export_id") != ours.export_id:
        if not overwrite:
            changes = "; ".join(_changes(begun, manifest))
            raise StorageError(
                f"{folder}: the beginning of another export ({changes}); run"
                " that command again to finish it, remove the folder, or pass"
                " --config.overwrite=true"
            )
        clear(folder)
        files.write_json(plan, manifest)
    return ours


def is_export(path: epath.PathLike, export_id: str = "") -> bool:
    """Whether a folder has the manifest of an export, of whatever format, or of the very export."""
    file = epath.Path(path) / MANIFEST
    if not file.exists():
        return False
    try:
        if export_id:
            return read_manifest(path).get("export_id") == export_id
        found = files.read_json(file)
        return isinstance(found, dict) and SEAL in found
    except DataError:
        return False


def refuse_other_output(out: epath.PathLike) -> None:
    """Raises StorageError where `out` has something that is no export, which is never replaced."""
    path = epath.Path(out)
    if not path.exists() or is_export(path):
        return
    if not path.is_dir():
        raise StorageError(f"{path}: a file, no folder; choose another --out")
    for entry in sorted(path.iterdir()):
        raise StorageError(
            f"{path}: already there and no export, it has {entry.name}; nothing of it is replaced:"
            " choose another --out"
        )


def _refuse_foreign(folder: epath.Path, *, overwrite: bool) -> None:
    """A folder without a plan may be what a run left that was killed before it wrote one."""
    rest = [file for file in files_under(folder) if not _temporary(file)]
    if rest and overwrite and is_export(folder):
        clear(folder)  # of an erasure that was cut short
    elif rest:
        raise StorageError(
            f"{folder}: has {rest[0]}, which is not of an export that was begun; move it away and"
            " run the same command again"
        )


def _changes(begun: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    there, here = _flat(begun), _flat(manifest)
    for key in here:
        if there.get(key) != here[key] and key not in ("export_id", "dataset.path"):
            yield f"{key}: {_short(there.get(key))} there, {_short(here[key])} here"


def _flat(values: Mapping[str, Any], below: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{below}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."


def _foreign(file: str, own: set[str]) -> bool:
    return file not in own and file.partition("/")[0] not in (DONE, ITEMS)


def _temporary(file: str) -> bool:
    name = PurePosixPath(file).name
    return name.startswith(".") and name.endswith(".tmp")


def _remove(folder: epath.Path, names: Any) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
