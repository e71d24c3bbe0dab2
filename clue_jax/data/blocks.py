"""Flat arrays in files, read through the page cache, each block checked when first touched.

A file is the bytes of one array. CRC-32 finds every flipped bit of a block, and is checked once a
process: opening stays cheap however large the file, and nothing unchecked is ever handed out.
"""

from __future__ import annotations

import mmap
import zlib
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.data.ragged import ranges
from clue_jax.errors import DataError

BLOCK_BYTES = 1 << 16
# Pages that were read stay mapped until the system wants them back, and count as resident. Handing
# them back keeps a process small; they stay in the page cache.
_MAPPED_BYTES = 8 << 20


class ArrayWriter:
    """Appends to the file of one array; `checksums` are those of its blocks after the context."""

    def __init__(self, path: epath.PathLike, dtype: np.dtype[Any]):
        self.path, self.dtype = epath.Path(path), dtype
        self.length = 0
        self.checksums: list[int] = []
        self._sum, self._filled = 0, 0
        self._stream = self.path.open("wb")

    def append(self, values: np.ndarray) -> None:
        """Adds values at the end."""
        payload = np.ascontiguousarray(values, self.dtype).view(np.uint8).data
        self._stream.write(payload)
        self.length += len(values)
        while len(payload):
            part = payload[: BLOCK_BYTES - self._filled]
            payload = payload[len(part) :]
            self._sum = zlib.crc32(part, self._sum)
            self._filled += len(part)
            if self._filled == BLOCK_BYTES:
                self._end_block()

    def _end_block(self) -> None:
        self.checksums.append(self._sum)
        self._sum, self._filled = 0, 0

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the last block; the file is on disk afterwards."""
        if self._filled:
            self._end_block()
        self._stream.close()
        files.fsync_path(self.path)


class StoredArray:
    """An array in a file, with the checksums of its blocks.

    Raises:
        DataError: the file has another size than the array; reads raise it for a damaged block.
    """

    def __init__(
        self, path: epath.PathLike, dtype: np.dtype[Any], length: int, checksums: np.ndarray
    ):
        self.path, self.dtype, self.length = epath.Path(path), dtype, length
        self._checksums = checksums
        self._checked = np.zeros(len(checksums), bool)
        self._mapped = 0
        expected = length * dtype.itemsize
        size = self.path.stat().length
        if size != expected or len(checksums) != -(-expected // BLOCK_BYTES):
            raise DataError(f"{path}: {size:,} bytes where {expected:,} are expected")
        self._map: mmap.mmap | None = None
        self._values, self._bytes = np.zeros(0, dtype), memoryview(b"")
        if length:
            with open(path, "rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._values = np.frombuffer(self._map, dtype)
            self._bytes = memoryview(self._map)

    def __len__(self) -> int:
        return self.length

    def rows(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """`[start:start + length]` of every row, end to end."""
        self._check(starts, lengths)
        return self._values[ranges(starts, lengths)]

    def span(self, start: int, stop: int) -> np.ndarray:
        """A copy of `[start:stop]`."""
        self._check(np.array([start]), np.array([stop - start]))
        return self._values[start:stop].copy()

    def _check(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        some = lengths > 0
        first = starts[some] * self.dtype.itemsize // BLOCK_BYTES
        last = ((starts + lengths)[some] * self.dtype.itemsize - 1) // BLOCK_BYTES
        blocks = np.unique(ranges(first, last - first + 1))
        self._mapped += len(blocks) * BLOCK_BYTES
        if self._map is not None and self._mapped > _MAPPED_BYTES:
            self._mapped = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED)
        for block in blocks[~self._checked[blocks]].tolist():
            content = self._bytes[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            if zlib.crc32(content) != self._checksums[block]:
                raise DataError(
                    f"{self.path}: damaged in block {block} (bytes from {block * BLOCK_BYTES:,});"
                    f" remove {self.path.parent} and run the same command again: it is made anew"
                )
            self._checked[block] = True
