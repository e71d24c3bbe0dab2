"""Rows put aside on disk, dealt to files by ranges of a 64-bit hash: what memory need not hold.

Rows of equal hash stay together, in the order in which they came; files and ranges are in order of
the hash. Whoever reads takes one range at a time, of a size that fits.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax.buckets import in_bucket
from clue_jax.files import storage_errors

# Sizes are known by the leading 16 bits of the hash: the finest that ranges are cut.
BIN_BITS = 16
BINS = 1 << BIN_BITS
_SHIFT = np.uint64(64 - BIN_BITS)


class Range(NamedTuple):
    """Hashes whose leading bits are `first` to `last` - 1."""

    first: int
    last: int


@contextlib.contextmanager
def scratch(root: epath.Path) -> Iterator[Path]:
    """A local folder for spilled rows: beside the output, or where temporary files go when that is
    in a bucket. Gone afterwards; what a kill left inside `root` is cleared by the next build."""
    local = None if in_bucket(root) else str(root)
    with tempfile.TemporaryDirectory(prefix=".spill.", dir=local) as folder:
        yield Path(folder)


def bins(keys: np.ndarray) -> np.ndarray:
    """Leading bits of hashes [B] uint64, as int64."""
    return (keys >> _SHIFT).astype(np.int64)


def first_key(bound: int) -> int:
    """Least hash whose leading bits are `bound`."""
    return min(bound, BINS - 1) << 48


def ranges_of(weights: np.ndarray, limit: float) -> list[Range]:
    """Cuts all hashes into ranges of a weight up to `limit`, or of a single bin.

    Args:
        weights: [BINS] of what has been spilled.
        limit: of one range.
    """
    total = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
    found, first = [], 0
    while first < BINS:
        fits = int(np.searchsorted(total, total[first] + limit, side="right")) - 1
        last = min(max(fits, first + 1), BINS)
        found.append(Range(first, last))
        first = last
    return found


def write_table(path: Path, table: pa.Table, chunk_rows: int) -> None:
    """Writes an Arrow file whose chunks of so many rows can be read by number."""
    with (
        storage_errors(path),
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=chunk_rows)


@dataclass(frozen=True)
class Spilled:
    """What `Spill`s of one schema and number of files, in a folder each, have put aside."""

    folders: tuple[Path, ...]
    name: str
    schema: pa.Schema
    partitions: int
    weights: np.ndarray  # [BINS] float64, sum of the weights of the rows

    def read(self, span: Range) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a range; those of a folder in the order in which they came."""
        first = (span.first * self.partitions) >> BIN_BITS
        last = ((span.last - 1) * self.partitions) >> BIN_BITS
        for number in range(first, last + 1):
            for folder in self.folders:
                for batch in _stream(_path(folder, self.name, number)):
                    where = bins(batch.column(0).to_numpy())
                    inside = (where >= span.first) & (where < span.last)
                    if inside.all():
                        yield batch
                    elif inside.any():
                        yield batch.filter(pa.array(inside))

    def table(self, span: Range) -> pa.Table:
        """The rows of a range at once."""
        return pa.Table.from_batches(list(self.read(span)), self.schema).combine_chunks()


def joined(parts: Sequence[Spilled]) -> Spilled:
    """What several processes have put aside, as one."""
    folders = tuple(folder for part in parts for folder in part.folders)
    weights = np.sum([part.weights for part in parts], axis=0)
    return replace(parts[0], folders=folders, weights=weights)


def _path(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:05d}.arrows"


def _stream(path: Path) -> Iterator[pa.RecordBatch]:
    """The streams of a file, end to end."""
    if not path.exists():
        return
    with storage_errors(path), pa.OSFile(str(path)) as file:
        size = file.size()
        while file.tell() < size:
            with pa.ipc.open_stream(file) as reader:
                yield from reader


class Spill:
    """Record batches of one schema in `partitions` files, each a range of hashes.

    Attributes:
        weights: [BINS] float64, sum of the weights of the rows added so far.
    """

    def __init__(
        self, folder: Path, name: str, schema: pa.Schema, partitions: int, buffer_bytes: int
    ):
        self.folder, self.name, self.schema, self.partitions = folder, name, schema, partitions
        self.weights = np.zeros(BINS)
        self._limit, self._held = buffer_bytes, 0
        self._waiting: list[list[pa.RecordBatch]] = [[] for _ in range(partitions)]

    def add(
        self, columns: dict[str, np.ndarray | pa.Array], weights: np.ndarray | None = None
    ) -> None:
        """Takes B rows.

        Args:
            columns: of the schema, the first with the hash: [B] each.
            weights: [B] share of each row in what memory has to hold; none: 1 each.

        Raises:
            StorageError: the disk refused.
        """
        arrays = [
            values if isinstance(values, pa.Array) else pa.array(values)
            for values in columns.values()
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        where = bins(batch.column(0).to_numpy())
        self.weights += np.bincount(where, weights, minlength=BINS)
        partition = (where * self.partitions) >> BIN_BITS
        if self.partitions > 1:
            order = np.argsort(partition.astype(np.uint16), kind="stable")  # a radix sort
            batch = batch.take(pa.array(order))
        counts = np.bincount(partition, minlength=self.partitions).tolist()
        start = 0
        for number, count in enumerate(counts):
            if count:
                self._waiting[number].append(batch.slice(start, count))
                start += count
        self._held += batch.nbytes
        if self._held > self._limit:
            self._flush()

    def spilled(self) -> Spilled:
        """All rows added so far, to be read."""
        self._flush()
        return Spilled((self.folder,), self.name, self.schema, self.partitions, self.weights)

    def _flush(self) -> None:
        for number, parts in enumerate(self._waiting):
            if parts:
                path = _path(self.folder, self.name, number)
                with (
                    storage_errors(path),
                    path.open("ab") as stream,
                    pa.ipc.new_stream(stream, self.schema) as writer,
                ):
                    writer.write_batch(pa.concat_batches(parts))
        self._waiting = [[] for _ in range(self.partitions)]
        self._held = 0
