"""Logs of any size -> users grouped on disk, in the memory that `memory_mb` allows.

    logs -> Intake: rows, users, catalogue, spilled by hash
         -> ranges of users: rules, histories -> UserStore
         -> ranges of items -> Catalogue

Users are dealt to files by the hash that orders them in the dataset, so ranges of users, one after
the other, are in the order in which shards are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax.config import PrepareConfig
from clue_jax.console import progress, say
from clue_jax.data.accounts import Tallies
from clue_jax.data.behaviour_rows import read_rows
from clue_jax.data.catalogue import Catalogue
from clue_jax.data.events import Reading, read_events
from clue_jax.data.histories import group, people
from clue_jax.data.intake import Intake
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.spill import ranges_of
from clue_jax.data.tables import find_files
from clue_jax.data.user_store import UserStore
from clue_jax.errors import DataError

# Of `memory_mb`: the program, a batch of rows at work, and what allocators keep to themselves.
_FIXED_MB = 384
# Sorting and grouping a behaviour takes this much at its peak; each may have an item of its own.
_ROW_BYTES = 400
_TOKEN_BYTES = 8  # an id in a file's array and in the copy for a shard
_FILE_BYTES = 1 << 22  # of logs for each file of spilled rows
_MOST_FILES = 256


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
) -> Grouped:
    """Reads and groups all logs.

    Args:
        config: the logs and the rules.
        folder: takes what does not fit in memory, as long as the result is in use.
        rejects_path: see `read_events`.
        pseudonyms: of users, where they are asked for.

    Raises:
        DataError: see `read_events`; a user in two splits; or a service or the training split is
            left without users.
    """
    memory = max(config.memory_mb - _FIXED_MB, 64) << 20
    intake = Intake(folder, _files(config), memory, pseudonyms)
    reading = read_events(config, intake, rejects_path)
    intake.close()
    pa.default_memory_pool().release_unused()
    item_bytes = _TOKEN_BYTES * config.max_item_tokens
    rows = memory // (_ROW_BYTES + item_bytes)
    store, tallies = _users(config, intake, reading, folder, rows)
    _check(config, tallies, store, reading)
    catalogue = Catalogue(folder, intake.catalogue, store, item_bytes, memory)
    texts = catalogue.collect(config.tokenizer.max_training_texts)
    pa.default_memory_pool().release_unused()
    return Grouped(reading, store, catalogue, tallies, texts)


def _files(config: PrepareConfig) -> int:
    """Files for spilled rows: many for much, as reading a range takes whole files."""
    found = {f.name: f.path for source in config.sources for f in find_files(config, source)}
    total = sum(path.stat().length for path in found.values())
    return min(max(total // _FILE_BYTES, 1), _MOST_FILES)


def _users(
    config: PrepareConfig, intake: Intake, reading: Reading, folder: Path, rows: int
) -> tuple[UserStore, Tallies]:
    store, tallies = UserStore(folder, reading.services), Tallies(reading.services)
    with progress("prepare: behaviours grouped", reading.behaviours) as advance:
        for span in ranges_of(intake.rows.weights, rows):
            found = people(intake.users.table(span), intake.files)
            kept, counts = read_rows(intake.rows, span, config, reading.service_order, rows)
            advance(int(counts.behaviours.sum()))
            histories = group(
                kept, counts, found, config, len(reading.services), reading.behaviours
            )
            tallies.add(histories)
            store.add(histories)
    users = sum(int(counts.sum()) for counts in store.split_counts)
    say(f"{reading.behaviours:,} behaviours read, of {users:,} users that stay")
    return store, tallies


def _check(config: PrepareConfig, tallies: Tallies, store: UserStore, reading: Reading) -> None:
    split = config.split
    users = np.sum(store.split_counts, axis=0)
    if not users[0]:
        raise DataError(
            f"no user of {users.sum()} is in the training split; check the split column or"
            f" config.split (validation={split.validation}, test={split.test})"
        )
    used = tallies.split_behaviours.sum(axis=0)
    for name, behaviours in zip(reading.services, used, strict=True):
        if not behaviours:
            raise DataError(
                f"service {name!r}: nobody uses it among the users with at least"
                f" config.min_behaviours={config.min_behaviours} behaviours; leave it out of"
                " `sources` or lower min_behaviours"
            )
