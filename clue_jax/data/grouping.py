"""Logs of any size -> users grouped on disk, in the memory that `memory_mb` allows.

    logs -> Intake: rows, users, catalogue, spilled by hash
         -> ranges of users: rules, histories -> UserStore
         -> ranges of items -> Catalogue

Users are dealt to files by the hash that orders them in the dataset, so ranges of users, one after
the other, are in the order in which shards are written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax.config import PARENT_MEMORY_MB, PrepareConfig
from clue_jax.console import progress, say
from clue_jax.data.accounts import Tallies
from clue_jax.data.audience import shared_rows
from clue_jax.data.behaviour_rows import RowSource, read_rows
from clue_jax.data.catalogue import Catalogue
from clue_jax.data.events import Part, Reading, Unit, check_units, read_units, reading_of, units_of
from clue_jax.data.histories import Histories, group, people
from clue_jax.data.intake import Intake, Taken
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.rejects import Rejects, publish_rejects
from clue_jax.data.spill import Range, Spilled, joined, ranges_of
from clue_jax.data.user_store import Added, UserStore
from clue_jax.data.workers import Advance, Workers
from clue_jax.errors import DataError
from clue_jax.files import storage_errors

# Of `memory_mb`: the program, a batch of rows at work, and what allocators keep to themselves.
_FIXED_MB = 384
# Sorting and grouping a behaviour takes this much at its peak; each may have an item of its own.
_ROW_BYTES = 400
_TOKEN_BYTES = 8  # an id in a file's array and in the copy for a shard
_FILE_BYTES = 1 << 22  # of logs for each file of spilled rows
_MOST_FILES = 256
_RANGE_ROWS = 1 << 19  # behaviours that are at work together; more would leave the caches
_RANGES_EACH = 4  # of users, for every process: they are not of equal cost


@dataclass(frozen=True)
class Grouped:
    """Users and items of the logs, on disk, and what is known of them."""

    reading: Reading
    store: UserStore
    catalogue: Catalogue
    tallies: Tallies
    texts: list[str]  # to train a tokenizer on


def group_logs(
    config: PrepareConfig,
    folder: Path,
    rejects_path: epath.Path,
    pseudonyms: Pseudonyms | None,
    workers: Workers,
) -> Grouped:
    """Reads and groups all logs.

    Args:
        config: the logs and the rules.
        folder: takes what does not fit in memory, as long as the result is in use.
        rejects_path: becomes a file of JSON lines {file, row, column, reason}, a line for each
            rejected row; not made where there are none.
        pseudonyms: of users, where they are asked for.
        workers: share the work, and `memory_mb`.

    Raises:
        DataError: logs missing, unreadable, without a column or a single usable row, or with more
            than `max_bad_rows` malformed ones; a user in two splits; or a service or the training
            split is left without users.
    """
    units = units_of(config)
    check_units(config, units)
    reading, taken = _read(config, units, folder, rejects_path, pseudonyms, workers)
    store, tallies = _users(config, units, taken, reading, folder, workers)
    refuse_unused(config, reading.services, np.sum(store.split_counts, axis=0), tallies)
    item_bytes = _TOKEN_BYTES * config.max_item_tokens
    memory = memory_bytes(config, workers.processes)
    catalogue = Catalogue(folder, taken.catalogue, store, item_bytes, memory)
    texts = catalogue.collect(config.tokenizer.max_training_texts, workers)
    pa.default_memory_pool().release_unused()
    return Grouped(reading, store, catalogue, tallies, texts)


def memory_bytes(config: PrepareConfig, processes: int) -> int:
    """What each of the processes may hold beside itself."""
    shared = config.memory_mb - (PARENT_MEMORY_MB if processes > 1 else 0)
    return max(shared // processes - _FIXED_MB, 64) << 20


def rows_at_once(config: PrepareConfig, processes: int) -> int:
    """Behaviours that each of the processes can sort and group at a time."""
    item_bytes = _TOKEN_BYTES * config.max_item_tokens
    return memory_bytes(config, processes) // (_ROW_BYTES + item_bytes)


# ------------------------------------------------------------------------------------------ reading


def _read(
    config: PrepareConfig,
    units: list[Unit],
    folder: Path,
    rejects_path: epath.Path,
    pseudonyms: Pseudonyms | None,
    workers: Workers,
) -> tuple[Reading, Taken]:
    sizes = [unit.file.path.stat().length for unit in units]
    hands = _dealt(units, sizes, workers.processes)
    folders = [folder / f"part-{number:04d}" for number in range(len(hands))]
    files = min(max(sum(sizes) // _FILE_BYTES, 1), _MOST_FILES)
    memory, now = memory_bytes(config, workers.processes), time.time()
    tasks = [
        (config, hand, place, files, memory, pseudonyms, now)
        for hand, place in zip(hands, folders, strict=True)
    ]
    try:
        with progress("prepare: bytes read", sum(sizes)) as advance:
            found = list(workers.map(read_part, tasks, advance))
        reading = reading_of(config, units, [part for part, _ in found])
    finally:
        publish_rejects(folders, rejects_path)
    parts = [taken for _, taken in found]
    return reading, Taken(*(joined(spills) for spills in zip(*parts, strict=True)))


def _dealt(units: list[Unit], sizes: list[int], hands: int) -> list[list[Unit]]:
    """Units in up to so many hands of about equal size, each in order."""
    dealt: list[list[Unit]] = [[] for _ in range(min(hands, len(units)))]
    held = [0] * len(dealt)
    for number in sorted(range(len(units)), key=lambda number: -sizes[number]):
        least = held.index(min(held))
        dealt[least].append(units[number])
        held[least] += sizes[number]
    return [sorted(hand, key=lambda unit: unit.number) for hand in dealt]


def read_part(
    config: PrepareConfig,
    units: list[Unit],
    folder: Path,
    files: int,
    memory: int,
    pseudonyms: Pseudonyms | None,
    now: float,
    advance: Advance,
) -> tuple[Part, Taken]:
    """A task of `Workers`: reads some units and puts their rows aside in a folder of its own."""
    with storage_errors(folder):
        folder.mkdir()
    intake = Intake(folder, files, memory, pseudonyms)
    rejects = Rejects(config.max_bad_rows, folder)
    part = read_units(config, units, intake, rejects, advance, now)
    taken = intake.close()
    pa.default_memory_pool().release_unused()
    return part, taken


# ----------------------------------------------------------------------------------------- grouping


def _users(
    config: PrepareConfig,
    units: list[Unit],
    taken: Taken,
    reading: Reading,
    folder: Path,
    workers: Workers,
) -> tuple[UserStore, Tallies]:
    limit = rows_at_once(config, workers.processes)
    store, tallies = UserStore(folder, reading.services), Tallies(reading.services)
    rows = min(limit, max(_RANGE_ROWS, reading.behaviours // _MOST_FILES))
    if workers.processes > 1:  # some for each
        rows = min(rows, reading.behaviours // (_RANGES_EACH * workers.processes) + 1)
    files, spans = split_columns(config, units), ranges_of(taken.rows.weights, rows)
    source: RowSource = taken.rows
    if config.min_item_users > 1:
        source, left_out = shared_rows(source, spans, config.min_item_users, folder, workers)
        tallies.dropped["behaviours on items below min_item_users"] = left_out
    tasks = [
        (config, taken.users, source, reading, files, store, limit, *range_)
        for range_ in enumerate(spans)
    ]
    with progress("prepare: behaviours grouped", reading.behaviours) as advance:
        for added, found in workers.map(group_range, tasks, advance):
            store.add(added)
            tallies.merge(found)
    users = sum(int(counts.sum()) for counts in store.split_counts)
    say(f"{reading.behaviours:,} behaviours read, of {users:,} users that stay")
    return store, tallies


def group_range(
    config: PrepareConfig,
    users: Spilled,
    rows: RowSource,
    reading: Reading,
    files: list[tuple[str, str]],
    store: UserStore,
    limit: int,
    number: int,
    span: Range,
    advance: Advance,
) -> tuple[Added, Tallies]:
    """A task of `Workers`: the histories of a range of users."""
    said = users.table(span)
    histories, behaviours = histories_of(config, said, rows, reading, files, limit, span)
    tallies = Tallies(reading.services)
    tallies.add(histories)
    advance(behaviours)
    return store.write(number, histories), tallies


def split_columns(config: PrepareConfig, units: Sequence[Unit]) -> list[tuple[str, str]]:
    """Of each unit, its name in messages and the column that says the split of a user."""
    return [(str(unit.file.path), config.sources[unit.source].split) for unit in units]


def histories_of(
    config: PrepareConfig,
    said: pa.Table,
    rows: RowSource,
    reading: Reading,
    files: Sequence[tuple[str, str]],
    limit: int,
    span: Range,
) -> tuple[Histories, int]:
    """The histories of a range of users, and how many behaviours the logs have of them.

    Args:
        config: the rules.
        said: what the logs say of the users, as `Intake` wrote it.
        rows: has their behaviours, as `Intake` wrote them.
        reading: of all logs.
        files: of `split_columns`.
        limit: rows in memory at a time.
        span: the users.

    Raises:
        DataError: a user in two splits, or two users of one hash.
    """
    found = people(said, files)
    kept, counts = read_rows(rows, span, config, reading.places, limit)
    histories = group(kept, counts, found, config, len(reading.services), reading.behaviours)
    return histories, int(counts.behaviours.sum())


def refuse_unused(
    config: PrepareConfig, services: tuple[str, ...], users: np.ndarray, tallies: Tallies
) -> None:
    """Raises DataError where training, of `users` [3] in the splits, or a service has none."""
    split = config.split
    if not users[0]:
        raise DataError(
            f"no user of {users.sum()} is in the training split; check the split column or"
            f" config.split (validation={split.validation}, test={split.test})"
        )
    used = tallies.split_behaviours.sum(axis=0)
    for name, behaviours in zip(services, used, strict=True):
        if not behaviours:
            raise DataError(
                f"service {name!r}: nobody uses it among the users with at least"
                f" config.min_behaviours={config.min_behaviours} behaviours; leave it out of"
                " `sources` or lower min_behaviours"
            )
