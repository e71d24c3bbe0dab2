"""Records of buckets -> shards, and what the dataset then holds.

A runner may do a step twice, also side by side: files are published whole, and equal each time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.data import shards
from clue_jax.data.beam.plan import Output, Plan

# Position of the first record in its split, and records.
Piece = tuple[int, list[bytes]]


class Layout(NamedTuple):
    """Where what buckets hold goes: of K kinds, such as splits."""

    counts: np.ndarray  # [buckets, K]
    starts: np.ndarray  # [buckets, K] of each kind in all buckets before
    totals: np.ndarray  # [K]


def layout_of(found: Iterable[tuple[int, np.ndarray]], buckets: int, kinds: int) -> Layout:
    """The layout of buckets with these counts [K]; others are empty."""
    counts = np.zeros((buckets, kinds), np.int64)
    for bucket, count in found:
        counts[bucket] = count
    upto = np.cumsum(counts, axis=0)
    return Layout(counts, upto - counts, upto[-1])


def lay_items_out(counts: Sequence[tuple[int, np.ndarray]], plan: Plan) -> Iterator[Output]:
    """Where the items of each bucket go."""
    yield "layout", layout_of(counts, plan.buckets, 1)


def pieces(
    of: tuple[str, str], total: int, size: int, position: int, records: list[bytes]
) -> Iterator[Output]:
    """Cuts records, the first at a position of all, into those of each shard.

    Args:
        of: dataset and split.
        total: records in the split.
        size: records of a shard.
        position: of the first record in the split.
        records: what is cut.
    """
    count = -(-total // size)
    while records:
        shard, offset = divmod(position, size)
        here = records[: size - offset]
        yield "pieces", (shards.shard_name(*of, shard, count), (position, here))
        position, records = position + len(here), records[len(here) :]


def write_shard(element: tuple[str, Iterable[Piece]], plan: Plan) -> Iterator[Output]:
    """Writes a shard, and gives its entry in the manifest.

    Raises:
        StorageError: the file system refused.
    """
    name, found = element
    records = [record for _, part in sorted(found) for record in part]
    with tempfile.TemporaryDirectory(prefix="clue_jax.") as folder:
        made = shards.write_shard(records, Path(folder) / "shard")
        files.write_bytes(epath.Path(plan.staged) / name, made.path.read_bytes())
    count = {name.partition("/")[0]: len(records)}
    yield "entries", {"file": name, **count, "bytes": made.bytes, "sha256": made.sha256}


def entries_of(entries: Iterable[dict[str, Any]], dataset: str, split: str) -> list[dict[str, Any]]:
    """Those of one split, in order."""
    prefix = f"{dataset}/{dataset}-{split}."
    mine = (entry for entry in entries if entry["file"].startswith(prefix))
    return sorted(mine, key=lambda entry: entry["file"])
