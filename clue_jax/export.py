"""Parameters + prepared dataset -> embeddings on disk, sharded, resumable part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax import files
from clue_jax.config import (
    ExportConfig,
    ExportWhat,
    MeshConfig,
    epoch_seconds,
    to_json,
    validate_export,
)
from clue_jax.console import progress, say
from clue_jax.data.item_tokens import tokenize
from clue_jax.data.items import ItemTable
from clue_jax.data.ragged import offsets_of
from clue_jax.data.records import Users, concatenate, visible
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.embeddings.schema import item_table, user_table
from clue_jax.embeddings.writer import finished_part, part_name, write_manifest, write_part
from clue_jax.errors import ConfigError, DataError
from clue_jax.inference import Embedder, combine
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh, replicated
from clue_jax.training.checkpoint import Restored, load_params
from clue_jax.training.trained import TrainedRun, read_run

Advance = Callable[[float], None]


@dataclass(frozen=True)
class Rows:
    """What an export has a row for: rows of `users`, and how to make a table of some of them."""

    users: Users
    table: Callable[[np.ndarray, np.ndarray, np.ndarray], pa.Table]  # indices, z_NSE, present_NS
    left_out: int  # users of the splits without a behaviour that may be seen


def export(config: ExportConfig, workdir: str, data: str, out: str) -> None:
    """Writes the embeddings of all users, or items, of a dataset as Parquet with a manifest.

    Killed and run again, it keeps the parts that are whole.

    Args:
        config: what to export, and which behaviours the encoder may see.
        workdir: a run directory of `train`.
        data: a prepared dataset with the run's tokenizer.
        out: folder for the export.

    Raises:
        ConfigError: a setting that cannot work with this dataset.
        DataError: the dataset is damaged, or nobody has a behaviour that may be seen.
        CheckpointError: no run there, no whole checkpoint, or one of another tokenizer.
        NonFiniteError: an embedding that is not finite; names it.
        StorageError: `out` is there already, or cannot be written.
    """
    validate_export(config)
    files.refuse_existing(out, overwrite=config.overwrite)
    run = read_run(workdir)
    dataset = open_dataset(data, config.verify)
    run.check_data(dataset)
    _check_dataset(config, dataset)
    mesh = make_mesh(MeshConfig())
    restored = load_params(
        run.workdir / "checkpoints",
        lambda: clue.init_run(run.config, run.vocab_size),
        config.step,
        replicated(mesh),
    )
    manifest = _manifest(config, run, dataset, restored)
    rows = _rows(config, dataset, manifest["model_version"])
    manifest["users_left_out"] = rows.left_out
    say(
        f"checkpoint of step {restored.step}: {len(rows.users):,} {config.what.value} to embed"
        + (f", {rows.left_out:,} without a visible behaviour left out" if rows.left_out else "")
    )
    if manifest["generic_guide"]:
        generic = ", ".join(manifest["generic_guide"])
        say(f"read through the generic guide, as the run knows no other for them: {generic}")
    embedder = Embedder(run.config.encoder, rows.users, config.batch_users, mesh)
    with files.staged_directory(out, overwrite=config.overwrite) as folder:
        params = run.with_generic(restored.parts["params"], dataset.tokenizer)["encoder"]
        parts = _write_parts(folder, config.num_shards, manifest, embedder, params, rows)
        write_manifest(folder, manifest, parts)
    say(f"wrote {len(rows.users):,} embeddings of {config.what.value} to {out}")


def _check_dataset(config: ExportConfig, dataset: Dataset) -> None:
    if config.cutoff and not dataset.has_times:
        raise ConfigError(
            f"config.cutoff: {dataset.path} has no dates, only an order; use hold_out_last"
        )
    for split in config.splits:
        if split not in dataset.manifest["splits"]:
            there = ", ".join(dataset.manifest["splits"])
            raise ConfigError(f"config.splits: {dataset.path} has no {split!r}; it has {there}")


def _manifest(
    config: ExportConfig, run: TrainedRun, dataset: Dataset, restored: Restored
) -> dict[str, Any]:
    """What the export is of, and what the encoder did not see."""
    return {
        "what": config.what.value,
        "model_version": restored.model_version,
        "checkpoint": {"step": restored.step, "fingerprint": restored.fingerprint},
        "train_seed": run.config.seed,
        "config": to_json(run.config),
        "embedding_width": run.config.encoder.embedding_width,
        "normalised": True,
        "cutoff": config.cutoff,
        "hold_out_last": config.hold_out_last,
        "splits": list(config.splits) if config.what is ExportWhat.USERS else [],
        "dataset": {
            "path": str(dataset.path),
            "fingerprint": dataset.fingerprint,
            "services": list(dataset.services),
        },
        "generic_guide": run.read_as_generic(dataset),
        "tokenizer_sha256": dataset.tokenizer.identity,
        "pseudonym_key_id": dataset.manifest["pseudonym_key_id"],
    }


def _write_parts(
    folder: epath.Path,
    num_shards: int,
    manifest: dict[str, Any],
    embedder: Embedder,
    params: clue.Params,
    rows: Rows,
) -> list[dict[str, Any]]:
    """Embeds and writes each part that is not there yet; gives their entries."""
    indices = np.array_split(np.arange(len(rows.users)), min(num_shards, len(rows.users)))
    names = {part_name(part, len(indices)) for part in range(len(indices))}
    # An interrupted export with other settings may have left parts under other names.
    for stray in [path for path in folder.iterdir() if path.name not in names]:
        stray.unlink()
    export_id = files.sha256_text(files.canonical_json(manifest))
    parts, found = [], 0
    with progress("embedding", len(rows.users)) as advance:
        for part, chosen in enumerate(indices):
            entry = finished_part(folder, part, len(indices), export_id)
            if entry is None:
                z_NSE, present_NS = embedder(params, chosen, advance)
                table = rows.table(chosen, z_NSE, present_NS)
                entry = write_part(folder, part, len(indices), table, export_id)
            else:
                found += 1
                advance(len(chosen))
            parts.append(entry)
    if found:
        say(f"{found} of {len(indices)} parts were there already")
    return parts


# ------------------------------------------------------------------------------- users and items


def _rows(config: ExportConfig, dataset: Dataset, model_version: str) -> Rows:
    if config.what is ExportWhat.ITEMS:
        return _item_rows(dataset, model_version)
    return _user_rows(config, dataset, model_version)


def _user_rows(config: ExportConfig, dataset: Dataset, model_version: str) -> Rows:
    everyone = [dataset.users(split) for split in config.splits]
    split_N = np.repeat(np.array(config.splits, object), [len(users) for users in everyone])
    cutoff = epoch_seconds(config.cutoff) if config.cutoff else None
    users = visible(concatenate(everyone, dataset.services), cutoff, config.hold_out_last)
    seen = np.flatnonzero(users.counts().sum(axis=1))
    left_out = len(users) - len(seen)
    if not len(seen):
        raise DataError(
            f"{dataset.path}: none of {left_out:,} users has a behaviour that may be seen with"
            f" cutoff={config.cutoff!r} and hold_out_last={config.hold_out_last}"
        )
    users, split_N = users.take(seen), split_N[seen]
    first_N, last_N = _first_and_last(users) if dataset.has_times else (None, None)
    event_N = np.full(len(users), cutoff) if cutoff is not None else last_N

    def table(indices: np.ndarray, z_NSE: np.ndarray, present_NS: np.ndarray) -> pa.Table:
        return user_table(
            user_ids=users.user_ids[indices],
            splits=split_N[indices],
            services=users.services,
            embedding_NE=combine(z_NSE, present_NS),
            z_NSE=z_NSE,
            counts_NS=users.counts()[indices],
            first_N=None if first_N is None else first_N[indices],
            last_N=None if last_N is None else last_N[indices],
            event_N=None if event_N is None else event_N[indices],
            model_version=model_version,
        )

    return Rows(users, table, left_out)


def _first_and_last(users: Users) -> tuple[np.ndarray, np.ndarray]:
    """Epoch seconds of each user's first and last behaviour; every user has one."""
    starts = users.behaviour_offsets[: -1 : len(users.services)]
    times = users.behaviour_times
    return np.minimum.reduceat(times, starts), np.maximum.reduceat(times, starts)


def _item_rows(dataset: Dataset, model_version: str) -> Rows:
    """An item's vector is that of a history of this one item: it lies in the users' space."""
    items = dataset.items()
    users = _history_of_each(items, dataset)

    def table(indices: np.ndarray, z_NSE: np.ndarray, present_NS: np.ndarray) -> pa.Table:
        return item_table(
            item_ids=items.item_ids[indices],
            source_ids=items.source_ids[indices],
            services=items.services[indices],
            embedding_JE=z_NSE[:, 0],
            model_version=model_version,
        )

    return Rows(users, table, left_out=0)


def _history_of_each(items: ItemTable, dataset: Dataset) -> Users:
    services = pa.array(items.services, pa.large_string())
    texts = pa.array(items.texts, pa.large_string())
    most = dataset.manifest["max_item_tokens"]
    tokens = tokenize(services, texts, dataset.tokenizer, most)
    one_each = offsets_of(np.ones(len(items), np.int64))
    return Users(
        user_ids=items.item_ids.astype(str).astype(object),
        services=("item",),
        item_ids=items.item_ids,
        item_offsets=one_each,
        tokens=tokens.tokens,
        token_offsets=tokens.offsets,
        behaviour_items=np.zeros(len(items), np.int32),
        behaviour_times=np.zeros(len(items), np.int64),
        behaviour_offsets=one_each,
    )
