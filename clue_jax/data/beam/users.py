"""Buckets of users: rows -> histories -> records, by the functions of the engine of one machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from clue_jax.data.accounts import Tallies
from clue_jax.data.beam.plan import (
    Output,
    Plan,
    Value,
    batch_of,
    joined,
    packed,
    payloads,
)
from clue_jax.data.beam.reading import Known
from clue_jax.data.beam.writing import Layout, layout_of, pieces
from clue_jax.data.grouping import histories_of, refuse_unused, rows_at_once
from clue_jax.data.intake import USERS
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.ragged import offsets_of
from clue_jax.data.records import encode_users
from clue_jax.data.spill import BINS, Range
from clue_jax.data.user_store import CHUNK_USERS, RangeItems, in_full, used_items, users_table


class Shuffled:
    """The behaviours of a bucket, to be read as those that lie on a disk."""

    def __init__(self, values: Iterable[Value], span: Range):
        self.values, self.weights = values, np.zeros(BINS)
        self.weights[span.first] = sum(rows for kind, rows, _ in values if kind == "rows")

    def read(self, span: Range) -> Iterator[pa.RecordBatch]:
        """Yields all rows; `span` is the bucket."""
        return map(batch_of, payloads(self.values, "rows"))


def group_bucket(
    element: tuple[int, Iterable[Value]], known: Known, plan: Plan
) -> Iterator[Output]:
    """Groups the behaviours of a bucket of users into histories.

    Raises:
        DataError: a user in two splits, or two users of one hash.
    """
    bucket, values = element
    config, reading = plan.config, known.reading
    span, said = plan.span(bucket), joined(payloads(values, "users"), USERS)
    rows, limit = Shuffled(values, span), rows_at_once(config, processes=1)
    histories, _ = histories_of(config, said, rows, reading, known.files, limit, span)
    tallies = Tallies(reading.services)
    tallies.add(histories)
    table = users_table(histories, len(reading.services))
    for start in range(0, len(table), CHUNK_USERS):
        payload = packed(table.slice(start, CHUNK_USERS).combine_chunks())
        yield "histories", (bucket, ("histories", start, payload))
    used = used_items(histories)
    cuts = np.searchsorted(plan.buckets_of(used[0]), np.arange(plan.buckets + 1))
    for place in np.flatnonzero(np.diff(cuts)).tolist():
        columns = used[:, cuts[place] : cuts[place + 1]]
        payload = packed(pa.table(list(map(pa.array, columns)), names=["item", "first", "entry"]))
        yield "used", (place, ("used", bucket, payload))
    yield "counts", (bucket, histories.split_counts)
    yield "tallies", tallies


def merge_tallies(parts: Iterable[Tallies]) -> Tallies:
    first, *others = parts
    merged = Tallies(first.services)
    for part in (first, *others):
        merged.merge(part)
    return merged


def lay_users_out(
    counts: Sequence[tuple[int, np.ndarray]], tallies: Tallies, plan: Plan
) -> Iterator[Output]:
    """Where the users of each bucket go.

    Raises:
        DataError: nobody is left for training, or of a service.
    """
    layout = layout_of(counts, plan.buckets, len(SPLITS))
    refuse_unused(plan.config, tallies.services, layout.totals, tallies)
    yield "layout", layout


def encode_bucket(
    element: tuple[int, Iterable[Value]], layout: Layout, known: Known, plan: Plan
) -> Iterator[Output]:
    """The records of a bucket of users, by shard."""
    bucket, values = element
    items, services = _items_of(values), known.reading.services
    bounds = offsets_of(layout.counts[bucket]).tolist()
    for kind, row, payload in values:
        if kind != "histories":
            continue
        batch = batch_of(payload)
        for number, split in enumerate(SPLITS):
            start = max(bounds[number] - row, 0)
            stop = min(bounds[number + 1] - row, len(batch))
            if start < stop:
                users = in_full(batch.slice(start, stop - start), items, services)
                position = int(layout.starts[bucket, number]) + row + start - bounds[number]
                total, size = int(layout.totals[number]), plan.config.users_per_shard
                yield from pieces(
                    ("users", split), total, size, position, list(encode_users(users))
                )


def _items_of(values: Iterable[Value]) -> RangeItems:
    """The items of a bucket of users, which buckets of items have sent."""
    found = sorted((place, payload) for kind, place, payload in values if kind == "tokens")
    batches = [batch_of(payload) for _, payload in found]
    tokens = [batch.column("tokens") for batch in batches]
    lengths = [np.diff(column.offsets.to_numpy()) for column in tokens]
    return RangeItems(
        identities=_end_to_end((b.column("item").to_numpy() for b in batches), np.uint64),
        offsets=offsets_of(_end_to_end(lengths, np.int64)),
        tokens=_end_to_end((column.flatten().to_numpy() for column in tokens), np.int32),
    )


def _end_to_end(parts: Iterable[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])
