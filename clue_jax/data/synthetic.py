"""The generator behind `synthesize`: realistic logs of several services from a generative model.

    topic tree -> catalogues, one per service in words of its own
    person     -> interests over months -> behaviours on each service -> items by Zipf's law

Output, one folder per service of Parquet parts with a row per behaviour, ordered by time (as logs
are, not by user): user_id, timestamp (UTC), item_id, title, brand, category (strings), price
(float64). What was behind it is kept in `latents/`: users-*.parquet (each user's interests and
their weights month by month), topics.parquet, items.parquet; with `noise`, `repeat` and the
popularities there, the best reachable score of any label made from them can be computed. `labels/`
has labels of five tasks and an impression log from the last whole month on, and best.json with the
best reachable scores (synthetic_label_tables.py); logs of less than two months have no labels.
manifest.json comes last.

Memory is bounded by `users_per_file`; the population is the same whatever its value.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from clue_jax import files, publishing
from clue_jax.buckets import listed
from clue_jax.config import SynthesizeConfig, to_json, validate_synthesize
from clue_jax.console import progress, say
from clue_jax.data.synthetic_label_tables import LabelWriter
from clue_jax.data.synthetic_labels import cutoff_second, label_month
from clue_jax.data.synthetic_users import BLOCK_USERS, MONTH_DAYS, Behaviours, Block, live
from clue_jax.data.synthetic_world import Catalogue, World, build_world

SCHEMA_VERSION = 1
LATENTS, LABELS = "latents", "labels"


def synthesize(config: SynthesizeConfig, out: str) -> None:
    """Writes synthetic behaviour logs, their latents and a manifest to the folder `out`.

    Equal configs give equal bytes (with the same version of pyarrow).

    Raises:
        ConfigError: a setting that cannot work, by its key.
        StorageError: `out` is already there, or the file system refused.
        LockedError: another process writes to `out`.
    """
    validate_synthesize(config)
    with publishing.staged_directory(out, overwrite=config.overwrite) as staged:
        # Parts of an interrupted run may be those of another config, and are quick to make again.
        for leftover in listed(staged):
            leftover.rmtree() if leftover.is_dir() else leftover.unlink()
        manifest = _write_logs(config, staged)
        files.write_json(staged / "manifest.json", manifest)
    total = sum(service["behaviours"] for service in manifest["services"].values())
    say(f"{total:,} behaviours of {config.num_users:,} users in {out}")


def _write_logs(config: SynthesizeConfig, staged: epath.Path) -> dict[str, Any]:
    world = build_world(config)
    services: dict[str, dict[str, Any]] = {
        name: {"users": 0, "behaviours": 0, "items": config.items_per_service, "files": []}
        for name in config.services
    }
    latents = [
        _write_table(_topic_table(world), staged, f"{LATENTS}/topics.parquet"),
        _write_table(_item_table(world), staged, f"{LATENTS}/items.parquet"),
    ]
    items = {catalogue.service: _item_columns(catalogue) for catalogue in world.catalogues}
    wanted = config.labels and label_month(config) > 0
    labelled = LabelWriter(config, world, partial(_ids_of, config)) if wanted else None
    labels: list[dict[str, Any]] = []
    with progress("synthesize: users", config.num_users) as advance:
        for part, first in enumerate(range(0, config.num_users, config.users_per_file)):
            last = min(first + config.users_per_file, config.num_users)
            blocks = _blocks(config, world, first, last)
            user_ids = _ids_of(config, np.arange(first, last))
            table = _latent_table(blocks, first, last, user_ids)
            latents.append(_write_table(table, staged, f"{LATENTS}/users-{part:05d}.parquet"))
            if labelled:
                for task, table in labelled.tables(blocks, first, last).items():
                    path = f"{LABELS}/{task}/part-{part:05d}.parquet"
                    labels.append(_write_table(table, staged, path))
            for position, (name, entry) in enumerate(services.items()):
                behaviours = _join([block.behaviours[position] for block in blocks], first, last)
                if not len(behaviours.user):
                    continue
                table = _log_table(behaviours, items[name], first, user_ids)
                file = _write_table(table, staged, f"{name}/part-{part:05d}.parquet")
                entry["files"].append(file)
                entry["behaviours"] += table.num_rows
                entry["users"] += len(np.unique(behaviours.user))
            advance(last - first)
    cutoff = ""
    if labelled:
        files.write_json(staged / LABELS / "best.json", labelled.best())
        cutoff = str(np.datetime64(cutoff_second(config), "s"))
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "synthetic behaviour logs",
        "config": to_json(config),
        "seed": config.seed,
        "users": config.num_users,
        "month_days": MONTH_DAYS,
        "topics": len(world.topics),
        "services": services,
        "latents": latents,
        "labels": labels,
        "label_cutoff": cutoff,
    }


def _blocks(config: SynthesizeConfig, world: World, first: int, last: int) -> list[Block]:
    numbers = range(first // BLOCK_USERS, -(-last // BLOCK_USERS))
    return [live(config, world, number) for number in numbers]


def _join(parts: list[Behaviours], first: int, last: int) -> Behaviours:
    """Behaviours of the users `first` to `last` in order of time; ties by user."""
    user = np.concatenate([part.user for part in parts])
    kept = np.flatnonzero((user >= first) & (user < last))
    seconds = np.concatenate([part.seconds for part in parts])[kept]
    order = np.argsort(seconds, kind="stable")
    item = np.concatenate([part.item for part in parts])
    return Behaviours(user[kept][order], seconds[order], item[kept][order])


def _ids_of(config: SynthesizeConfig, numbers: np.ndarray) -> pa.Array:
    company = f"c{config.company}" if config.company else ""
    return pa.array([f"{company}u{number:09d}" for number in numbers.tolist()], pa.string())


def _log_table(
    behaviours: Behaviours, items: dict[str, pa.Array], first: int, user_ids: pa.Array
) -> pa.Table:
    seconds = pa.array(behaviours.seconds, pa.int64())
    columns = {
        "user_id": user_ids.take(pa.array(behaviours.user - first)),
        "timestamp": seconds.cast(pa.timestamp("s", tz="UTC")),
    }
    taken = pa.array(behaviours.item)
    return pa.table(columns | {name: values.take(taken) for name, values in items.items()})


def _item_columns(catalogue: Catalogue) -> dict[str, pa.Array]:
    return {
        "item_id": pa.array(catalogue.item_ids, pa.string()),
        "title": pa.array(catalogue.titles, pa.string()),
        "brand": pa.array(catalogue.brands, pa.string()),
        "category": pa.array(catalogue.categories, pa.string()),
        "price": pa.array(catalogue.prices, pa.float64()),
    }


def _latent_table(blocks: list[Block], first: int, last: int, user_ids: pa.Array) -> pa.Table:
    """A row per user and month: the leaf topics of interest and their weights."""
    skipped = first - blocks[0].first
    rows = slice(skipped, skipped + last - first)
    interests = np.concatenate([block.interests for block in blocks])[rows]
    weights = np.concatenate([block.weights for block in blocks])[rows]
    users, months, held = interests.shape
    number = np.repeat(np.arange(users), months)
    return pa.table(
        {
            "user_id": user_ids.take(pa.array(number)),
            "month": pa.array(np.tile(np.arange(months, dtype=np.int32), users)),
            "topics": pa.FixedSizeListArray.from_arrays(pa.array(interests.ravel()), held),
            "weights": pa.FixedSizeListArray.from_arrays(pa.array(weights.ravel()), held),
        }
    )


def _topic_table(world: World) -> pa.Table:
    topics = world.topics
    return pa.table(
        {
            "topic": pa.array(np.arange(len(topics), dtype=np.int32)),
            "category": pa.array(topics.category),
            "domain": pa.array(topics.domain),
            "popularity": pa.array(topics.popularity),
        }
    )


def _item_table(world: World) -> pa.Table:
    """A row per item: its service, leaf topic and popularity inside the topic."""
    return pa.concat_tables(
        pa.table(
            {
                "service": pa.array([catalogue.service] * len(catalogue.topic), pa.string()),
                "item_id": pa.array(catalogue.item_ids, pa.string()),
                "topic": pa.array(catalogue.topic),
                "popularity": pa.array(catalogue.popularity),
            }
        )
        for catalogue in world.catalogues
    )


def _write_table(table: pa.Table, folder: epath.Path, name: str) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    # Page checksums make later reading notice a flipped bit.
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    payload = sink.getvalue().to_pybytes()
    files.write_bytes(folder / name, payload)
    digest = hashlib.sha256(payload).hexdigest()
    return {"file": name, "rows": table.num_rows, "bytes": len(payload), "sha256": digest}
