"""ArrayRecord shards and their TFDS metadata: written one by one, resumable, read in bulk.

A folder of shards is a TFDS folder dataset: `tfds.builder_from_directory(folder)` reads it, without
TensorFlow. We write the shards ourselves, because their bytes must not depend on an earlier kill.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from clue_jax import files
from clue_jax.buckets import in_bucket, listed
from clue_jax.data.manifest import AGAIN
from clue_jax.errors import DataError, StorageError

# One record a chunk: any record can be read without its neighbours, as TFDS expects.
WRITER_OPTIONS = "group_size:1"
BUILD_FILE = "build.json"

# The only classes that a features.json of ours names. TFDS imports whatever module the file names.
_FEATURE_CLASSES = {
    "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "tensorflow_datasets.core.features.tensor_feature.Tensor",
    "tensorflow_datasets.core.features.text_feature.Text",
}


def shard_name(dataset: str, split: str, shard: int, shards: int) -> str:
    """`users/users-train.array_record-00000-of-00002`: the names TFDS expects."""
    return f"{dataset}/{dataset}-{split}.array_record-{shard:05d}-of-{shards:05d}"


class Build:
    """Shards of a dataset being built in a staging folder, and which of them are finished.

    `build.json` there says what is built, and the checksum of each finished file; a folder that
    builds something else is emptied.
    """

    def __init__(self, root: epath.Path, identity: str):
        self.root, self.identity = root, identity
        self.finished: dict[str, dict[str, Any]] = {}
        self.reused = 0
        with contextlib.suppress(DataError):
            found = files.read_json(root / BUILD_FILE)
            if isinstance(found, dict) and found.get("identity") == identity:
                self.finished = found["files"]
        self._clear(root)

    def _clear(self, folder: epath.Path) -> None:
        """Removes everything that is not a finished file, such as halves left by a kill."""
        for leftover in listed(folder):
            name = str(leftover.relative_to(self.root))
            if leftover.is_dir():
                self._clear(leftover)
                if leftover.exists() and not listed(leftover):
                    leftover.rmdir()
            elif name != BUILD_FILE and name not in self.finished:
                leftover.unlink()

    def kept(self, name: str) -> dict[str, Any] | None:
        """The entry {file, bytes, sha256, ...} of a file that an earlier build finished, if it is
        still whole."""
        entry, path = self.finished.get(name), self.root / name
        if entry and path.exists() and files.sha256_file(path) == entry["sha256"]:
            self.reused += 1
            return entry
        return None

    def file(self, name: str, make: Callable[[], bytes]) -> dict[str, Any]:
        """The entry of a file, made unless it was kept."""
        if entry := self.kept(name):
            return entry
        payload = make()
        files.write_bytes(self.root / name, payload)
        return self._note(name, len(payload), files.sha256_file(self.root / name))

    def adopt(self, name: str, made: Made, **facts: Any) -> dict[str, Any]:
        """The entry of a shard that lies elsewhere, after it has been moved to its place, which is
        the last thing that is done to it."""
        path = self.root / name
        with files.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if in_bucket(path):
                files.write_bytes(path, made.path.read_bytes())
            else:
                os.replace(made.path, path)
        return self._note(name, made.bytes, made.sha256, **facts)

    def _note(self, name: str, size: int, sha256: str, **facts: Any) -> dict[str, Any]:
        entry = {"file": name, **facts, "bytes": size, "sha256": sha256}
        self.finished[name] = entry
        files.write_json(
            self.root / BUILD_FILE, {"identity": self.identity, "files": self.finished}
        )
        return entry

    def close(self) -> None:
        """Removes what only an unfinished build needs."""
        (self.root / BUILD_FILE).unlink(missing_ok=True)


class Made(NamedTuple):
    """A shard on a local disk, not yet where it belongs."""

    path: Path
    bytes: int
    sha256: str


def write_shard(records: Iterable[bytes], path: Path) -> Made:
    """Writes an ArrayRecord file; equal records give equal bytes.

    Raises:
        StorageError: the library could not write it.
    """
    # The library writes to local paths only, and tells of a full disk by a RuntimeError at best.
    try:
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:
        raise StorageError(
            f"{path}: cannot write a shard ({error}); free some space and run the same command"
            " again"
        ) from error
    with files.storage_errors(path):
        files.fsync_path(path)
        return Made(path, path.stat().st_size, files.sha256_file(path))


@contextlib.contextmanager
def _local(path: epath.Path) -> Iterator[str]:
    """A local path with the bytes of `path`: itself, or a copy of one in a bucket."""
    if not in_bucket(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="clue_jax.") as folder:
        copy = epath.Path(folder) / path.name
        path.copy(copy)
        yield str(copy)


_READ_ERRORS = (RuntimeError, OSError, ValueError, IndexError)


def read_records(path: epath.Path, sha256: str) -> list[bytes]:
    """All records of a shard, after its bytes have been compared with their checksum.

    Raises:
        DataError: it is missing, truncated, damaged or another one; names it, and the record where
            one is damaged.
    """
    try:
        with _local(path) as local:
            if files.sha256_file(local) != sha256:
                raise _difference(path, local)
            with contextlib.closing(ArrayRecordReader(local)) as reader:
                return reader.read_all()
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _difference(path: epath.Path, local: str) -> DataError:
    """What is wrong with a shard of other bytes than the manifest says."""
    try:
        with contextlib.closing(ArrayRecordReader(local)) as reader:
            for record in range(reader.num_records()):
                try:
                    reader.read([record])
                except _READ_ERRORS:
                    return DataError(f"{path}: damaged in record {record}; {AGAIN}")
    except _READ_ERRORS as error:
        return _unreadable(path, error)
    return DataError(
        f"{path}: contents differ from those in manifest.json: it is another dataset's, or was"
        f" changed; {AGAIN}"
    )


def _unreadable(path: epath.Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: damaged or missing ({(str(error) or repr(error)).splitlines()[0]}); {AGAIN}"
    )


# ------------------------------------------------------------------------------- TFDS metadata


def write_metadata(
    folder: epath.Path,
    features: tfds.features.FeaturesDict,
    splits: dict[str, list[dict[str, Any]]],
    count: str,
) -> None:
    """Writes dataset_info.json and features.json beside the shards.

    Args:
        folder: holds the shards; its name is that of the dataset.
        features: of one record.
        splits: entries of the shards of each split; TFDS knows no split without records.
        count: the key under which an entry has its number of records.
    """
    infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[entry[count] for entry in entries],
            num_bytes=sum(entry["bytes"] for entry in entries),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=folder,
                dataset_name=folder.name,
                split=name,
                filetype_suffix="array_record",
            ),
        )
        for name, entries in splits.items()
        if entries
    ]
    # Without check_data=False it would read an example, which takes TensorFlow.
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )


def check_metadata(folder: epath.Path) -> None:
    """Refuses TFDS metadata that would make TFDS import anything but its own feature classes.

    Raises:
        DataError: metadata missing, damaged, or naming another class; names the file and class.
    """
    path = folder / "features.json"
    for named in _classes(files.read_json(path)):
        if named not in _FEATURE_CLASSES:
            raise DataError(
                f"{path}: names the class {named!r}, which TFDS would import; not a dataset that"
                " prepare wrote. Do not open it"
            )
    info = files.read_json(folder / "dataset_info.json")
    if not isinstance(info, dict) or info.get("moduleName"):
        raise DataError(f"{folder}/dataset_info.json: not one that prepare wrote")


def _classes(value: Any) -> Iterator[Any]:
    """Every class a features.json names, in either spelling of the key."""
    if isinstance(value, list):
        for one in value:
            yield from _classes(one)
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("pythonClassName", "python_class_name", "type", "proto_cls"):
                yield one
            else:
                yield from _classes(one)
