"""What every worker is told, and how rows travel between workers: as Arrow's bytes, by bucket.

A bucket is a range of the hash that orders users, or of the identity that orders items, so that
buckets in order are the dataset in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clue_jax.config import PrepareConfig
from clue_jax.data.grouping import memory_bytes
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.spill import BIN_BITS, Range, bins
from clue_jax.errors import ConfigError

# A byte of logs takes many in memory once it is a row with an item of its own.
BYTES_PER_LOG_BYTE = 64
CHUNK_ROWS = 1 << 16  # of one value between workers: a few MB
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")

# What travels to a bucket: what it is, a number, and a table. The number is that of `rows`, the
# place of the first of `histories` in its bucket, or the bucket that `used` or `tokens` come from.
Value = tuple[str, int, bytes]
# A worker's function yields the name of an output and an element of it.
Output = tuple[str, Any]


@dataclass(frozen=True)
class Plan:
    """The same for all workers.

    Attributes:
        staged: folder or bucket that every worker can write to.
        buckets: of users, and of items; a power of two.
        now: epoch seconds: what is much later is no time.
        trains: whether the tokenizer is still to be trained.
        key_id: of the pseudonyms; the key itself does not travel.
    """

    config: PrepareConfig
    staged: str
    buckets: int
    now: float
    trains: bool
    key_id: str | None

    def span(self, bucket: int) -> Range:
        width = (1 << BIN_BITS) // self.buckets
        return Range(bucket * width, (bucket + 1) * width)

    def buckets_of(self, hashes: np.ndarray) -> np.ndarray:
        """Bucket of each hash, [n] int64."""
        return (bins(hashes) * self.buckets) >> BIN_BITS

    def pseudonyms(self) -> Pseudonyms | None:
        """Raises ConfigError where the worker finds no key, or another one."""
        found = Pseudonyms.from_config(self.config.pseudonym)
        if (found.key_id if found else None) != self.key_id:
            raise ConfigError("config.pseudonym: a worker finds another key than the one asked for")
        return found


def buckets_for(config: PrepareConfig, log_bytes: int) -> int:
    """As many as make a bucket fit into a worker's memory: a power of two."""
    needed = log_bytes * BYTES_PER_LOG_BYTE // memory_bytes(config, processes=1)
    return 1 << min(int(needed).bit_length(), BIN_BITS)


def packed(table: pa.Table | pa.RecordBatch) -> bytes:
    """A table as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


def unpacked(payload: bytes) -> pa.Table:
    with pa.ipc.open_stream(payload) as reader:
        return reader.read_all().combine_chunks()


def batch_of(payload: bytes) -> pa.RecordBatch:
    """A table that travelled in one piece."""
    table = unpacked(payload)
    return pa.RecordBatch.from_arrays(
        [column.combine_chunks() for column in table.columns], schema=table.schema
    )


def joined(payloads: Iterable[bytes], schema: pa.Schema) -> pa.Table:
    """Tables end to end."""
    return pa.concat_tables([schema.empty_table(), *map(unpacked, payloads)]).combine_chunks()


def payloads(values: Iterable[Value], kind: str) -> Iterator[bytes]:
    """The tables of one kind among those of a bucket, in any order."""
    return (payload for found, _, payload in values if found == kind)
