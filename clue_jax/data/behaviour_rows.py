"""Spilled behaviours of a range of users, back in memory: all, or as many as rules can still need.

A user of tens of millions of behaviours does not fit. Only the newest `max_history` of each service
can stay, so such a range is cut to these while it is read. What was there before is counted; how
many were repeats takes further readings, each of one class of a hash of time and item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from clue_jax.config import PrepareConfig
from clue_jax.data.keyed import hash64
from clue_jax.data.log_reader import UNIT_BITS
from clue_jax.data.ragged import ranges, run_starts
from clue_jax.data.spill import Range


@dataclass(frozen=True)
class Rows:
    """M behaviours, in order of user, service, time and appearance."""

    user: np.ndarray  # [M] uint64 hash of the id
    item: np.ndarray  # [M] uint64 identity
    time: np.ndarray  # [M] int64
    row: np.ndarray  # [M] int64 number of the behaviour, in order of appearance
    entry: np.ndarray  # [M] int64 row of the catalogue
    service: np.ndarray  # [M] int16 place in the dataset's services

    def __len__(self) -> int:
        return len(self.user)

    def take(self, where: np.ndarray | slice) -> Rows:
        return Rows(**{name: column[where] for name, column in vars(self).items()})

    def histories(self) -> np.ndarray:
        """First row of each history, which is a user's behaviours in one service, [K]."""
        return run_starts(self.user, self.service)


class RowSource(Protocol):
    """Where rows are, to be read as often as it takes: `Spilled`, or what stands for it."""

    @property
    def weights(self) -> np.ndarray: ...

    def read(self, span: Range) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True)
class Counts:
    """Behaviours of K histories, in order of user and service."""

    user: np.ndarray  # [K] uint64
    service: np.ndarray  # [K] int16
    behaviours: np.ndarray  # [K] int64
    distinct: np.ndarray  # [K] int64, without repeats (equal time and item)


def read_rows(
    spill: RowSource, span: Range, config: PrepareConfig, places: np.ndarray, limit: int
) -> tuple[Rows, Counts]:
    """The behaviours of a range of users.

    Args:
        spill: `Taken.rows`.
        span: the users.
        config: `max_history` and `drop_repeats` say what may be left out.
        places: `Reading.places`.
        limit: rows in memory at a time.

    Returns:
        The rows: without repeats (the last of each stays) where these are to be dropped; of a range
        beyond the limit the newest `max_history` of each history. The counts are those before.
    """
    total = spill.weights[span.first : span.last].sum()
    if total > limit:
        return _read_cut(spill, span, config, places, limit, int(total // limit) + 1)
    rows = _joined([_empty(), *(_rows_of(batch, places) for batch in spill.read(span))])
    repeated = _repeated(rows)
    counts = _count(rows, ~repeated)
    return (rows.take(~repeated) if config.drop_repeats else rows), counts


def _read_cut(
    spill: RowSource,
    span: Range,
    config: PrepareConfig,
    places: np.ndarray,
    limit: int,
    classes: int,
) -> tuple[Rows, Counts]:
    kept, total = _empty(), _no_counts()
    for chunk in _chunks(spill.read(span), places, limit):
        total = _merged(total, _count(chunk, np.zeros(len(chunk), bool)))
        kept = _joined([kept, chunk])
        if config.drop_repeats:
            # The last of equal ones stays: one cut off earlier then comes back only as new.
            kept = kept.take(~_repeated(kept))
        starts = kept.histories()
        lengths = np.diff(np.append(starts, len(kept)))
        newest = np.minimum(lengths, config.max_history)
        kept = kept.take(ranges(starts + lengths - newest, newest))
    for number in range(classes):
        distinct = _empty()
        for chunk in _chunks(spill.read(span), places, limit):
            mine = chunk.take(hash64(chunk.time, chunk.item) % np.uint64(classes) == number)
            distinct = _joined([distinct, mine])
            distinct = distinct.take(~_repeated(distinct))
        none = _count(distinct, np.ones(len(distinct), bool))
        total = _merged(total, Counts(none.user, none.service, 0 * none.distinct, none.distinct))
    return kept, total


def _chunks(batches: Iterator[pa.RecordBatch], places: np.ndarray, limit: int) -> Iterator[Rows]:
    """Rows of about `limit` / 2 at a time, each chunk sorted."""
    waiting: list[Rows] = []
    for batch in batches:
        rows = _rows_of(batch, places)
        for start in range(0, len(rows), max(limit // 2, 1)):
            waiting.append(rows.take(slice(start, start + max(limit // 2, 1))))
            if sum(map(len, waiting)) >= limit // 2:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _rows_of(batch: pa.RecordBatch, places: np.ndarray) -> Rows:
    names = batch.schema.names
    columns = {n: c.to_numpy() for n, c in zip(names, batch.columns, strict=True)}
    unit = columns["row"] >> UNIT_BITS
    return Rows(**columns | {"service": places[unit, columns["service"]]})


def _empty() -> Rows:
    kinds = (np.uint64, np.uint64, np.int64, np.int64, np.int64, np.int16)
    return Rows(*(np.zeros(0, kind) for kind in kinds))


def _joined(parts: list[Rows]) -> Rows:
    """Rows of several parts, the earlier part first where all else is equal; sorted."""
    names = vars(parts[0])
    rows = Rows(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})
    return rows.take(np.lexsort((rows.row, rows.time, rows.service, rows.user)))


def _repeated(rows: Rows) -> np.ndarray:
    """Where a later row has the same user, service, time and item: [M] bool."""
    starts = run_starts(rows.user, rows.service, rows.time)
    lengths = np.diff(np.append(starts, len(rows)))
    several = lengths > 1
    where = ranges(starts[several], lengths[several])  # most rows share their time with no other
    run = np.repeat(np.arange(several.sum()), lengths[several])
    order = np.lexsort((rows.item[where], run))
    item, run = rows.item[where][order], run[order]
    again = np.zeros(len(where), bool)
    again[:-1] = (item[1:] == item[:-1]) & (run[1:] == run[:-1])
    repeated = np.zeros(len(rows), bool)
    repeated[where[order[again]]] = True
    return repeated


def _count(rows: Rows, distinct: np.ndarray) -> Counts:
    starts = rows.histories()
    lengths = np.diff(np.append(starts, len(rows)))
    sums = np.add.reduceat(distinct.astype(np.int64), starts) if len(starts) else lengths
    return Counts(rows.user[starts], rows.service[starts], lengths, sums)


def _no_counts() -> Counts:
    kinds = (np.uint64, np.int16, np.int64, np.int64)
    return Counts(*(np.zeros(0, kind) for kind in kinds))


def _merged(one: Counts, two: Counts) -> Counts:
    """Sums of equal histories."""
    names = vars(one)
    both = Counts(*(np.concatenate([getattr(one, n), getattr(two, n)]) for n in names))
    order = np.lexsort((both.service, both.user))
    user, service = both.user[order], both.service[order]
    starts = run_starts(user, service)
    if not len(starts):
        return both
    sums = (np.add.reduceat(c[order], starts) for c in (both.behaviours, both.distinct))
    return Counts(user[starts], service[starts], *sums)
