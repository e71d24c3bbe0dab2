"""Users and items on local disk -> the shards of the dataset, written by several processes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clue_jax.config import PrepareConfig
from clue_jax.console import progress
from clue_jax.data.accounts import Tallies
from clue_jax.data.catalogue import Catalogue, ItemFiles
from clue_jax.data.grouping import Grouped
from clue_jax.data.items import encode_items, item_features
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.records import encode_users, user_features
from clue_jax.data.shards import Build, Made, shard_name, write_metadata, write_shard
from clue_jax.data.user_store import UserStore
from clue_jax.data.workers import Advance, Workers

ITEMS_PER_SHARD = 100_000


def write_users(
    config: PrepareConfig, build: Build, grouped: Grouped, folder: Path, workers: Workers
) -> dict[str, Any]:
    """Writes the users of all splits; what the manifest says of them, by split."""
    store = grouped.store
    totals = np.sum(store.split_counts, axis=0).tolist()
    shards = [
        Shard("users", split, place, -(-total // config.users_per_shard), start, stop)
        for split, total in zip(SPLITS, totals, strict=True)
        for place, (start, stop) in enumerate(_cuts(total, config.users_per_shard))
    ]
    entries = _write_shards(build, shards, user_shard, store, folder, workers)
    by_split: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for shard, entry in zip(shards, entries, strict=True):
        by_split[shard.split].append(entry)
    write_metadata(build.root / "users", user_features(), by_split, "users")
    return describe_splits(totals, grouped.tallies, by_split)


def describe_splits(
    totals: Sequence[int], tallies: Tallies, by_split: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """What the manifest says of users, by split.

    Args:
        totals: users of each split.
        tallies: of all users.
        by_split: entries of the shards.
    """
    splits = {}
    for split, total, counts in zip(SPLITS, totals, tallies.split_behaviours, strict=True):
        splits[split] = {
            "users": total,
            "behaviours": dict(zip(tallies.services, counts.tolist(), strict=True)),
            "shards": by_split[split],
        }
    return splits


def write_items(
    build: Build, catalogue: Catalogue, folder: Path, workers: Workers
) -> dict[str, Any]:
    """Writes the items; what the manifest says of them."""
    cuts = _cuts(catalogue.count, ITEMS_PER_SHARD)
    shards = [Shard("items", "items", n, len(cuts), *cut) for n, cut in enumerate(cuts)]
    entries = _write_shards(build, shards, item_shard, catalogue.files, folder, workers)
    write_metadata(build.root / "items", item_features(), {"items": entries}, "items")
    return {"count": catalogue.count, "shards": entries}


class Shard(NamedTuple):
    """Users or items `first` to `last` - 1 of a split."""

    dataset: str
    split: str
    place: int
    of: int
    first: int
    last: int

    @property
    def name(self) -> str:
        return shard_name(self.dataset, self.split, self.place, self.of)


def _cuts(total: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def _write_shards(
    build: Build,
    shards: list[Shard],
    make: Callable[..., Made],
    source: UserStore | ItemFiles,
    folder: Path,
    workers: Workers,
) -> list[dict[str, Any]]:
    """The entries of all shards of users or of items; those that were finished are kept.

    Workers write beside the dataset. Only this process, which holds the lock, moves into it.
    """
    kind = shards[0].dataset if shards else ""
    with progress(f"prepare: {kind} written", sum(s.last - s.first for s in shards)) as advance:
        entries = {shard: build.kept(shard.name) for shard in shards}
        missing = [shard for shard, entry in entries.items() if entry is None]
        advance(sum(s.last - s.first for s in shards if entries[s]))
        tasks = [(source, shard, folder) for shard in missing]
        for shard, made in zip(missing, workers.map(make, tasks, advance), strict=True):
            entries[shard] = build.adopt(shard.name, made, **{kind: shard.last - shard.first})
    return [entry for entry in entries.values() if entry is not None]


def user_shard(store: UserStore, shard: Shard, folder: Path, advance: Advance) -> Made:
    """A task of `Workers`: writes a shard of users into `folder`."""
    parts = store.users(SPLITS.index(shard.split), shard.first, shard.last)
    return _written(map(encode_users, parts), shard, folder, advance)


def item_shard(items: ItemFiles, shard: Shard, folder: Path, advance: Advance) -> Made:
    """A task of `Workers`: writes a shard of items into `folder`."""
    return _written(map(encode_items, items.items(shard.first, shard.last)), shard, folder, advance)


def _written(
    records: Iterable[Iterable[bytes]], shard: Shard, folder: Path, advance: Advance
) -> Made:
    path = folder / Path(shard.name).name
    made = write_shard(itertools.chain.from_iterable(records), path)
    advance(shard.last - shard.first)
    return made
