"""Parameters + prepared dataset -> embeddings on disk, exactly once, resumable part by part."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
from jax.sharding import Mesh

from clue_jax import files, publishing
from clue_jax.buckets import in_bucket
from clue_jax.composition import narrowed
from clue_jax.config import (
    EncoderConfig,
    ExportConfig,
    ExportWhat,
    ItemTableUse,
    MeshConfig,
    epoch_seconds,
    to_json,
    validate_export,
)
from clue_jax.console import progress, say
from clue_jax.data.id_list import suppression
from clue_jax.data.retention import later, shortest, window_start
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.embeddings.layout import ORDER, SHARDING
from clue_jax.embeddings.writer import write_part
from clue_jax.errors import ConfigError
from clue_jax.exporting import pipeline
from clue_jax.exporting.folder import ITEMS, ExportFolder, claim, is_export, refuse_other_output
from clue_jax.exporting.item_vectors import CHEAPER, DistinctItems, ItemVectors, saving
from clue_jax.exporting.pipeline import Encoded
from clue_jax.exporting.rows import Rows, rows_of
from clue_jax.exporting.share import LOOK_SECONDS, Share, share_of
from clue_jax.inference import BatchEncoder, ItemEncoder, embedding_encoder
from clue_jax.model import clue
from clue_jax.parallel.agreement import check_agreed
from clue_jax.parallel.mesh import make_mesh, replicated, to_host
from clue_jax.training.checkpoint import Restored
from clue_jax.training.parameters import load_params
from clue_jax.training.trained import TrainedRun, read_run

POOLING = (
    "an item is the mean of its tokens, a service the mean of its behaviours, both as the encoder"
    " has them; a user is the mean of its services; all are scaled to length one"
)
HALVED = "; in both means a behaviour's weight halves every {:g} days before the newest one"


def export(config: ExportConfig, workdir: str, data: str, out: str) -> None:
    """Writes the embeddings of all users, or items, of a dataset as Parquet with a manifest.

    Killed and run again, it keeps the parts that are whole. Several processes of one job, or hosts
    that are told apart by `config.host`, share one export.

    Args:
        config: what to export, and which behaviours the encoder may see.
        workdir: a run directory of `train`.
        data: a prepared dataset with the run's tokenizer.
        out: folder for the export.

    Raises:
        ConfigError: a setting that cannot work with this dataset.
        DataError: the dataset is damaged, has a user twice, or nobody has a behaviour that may be
            seen.
        CheckpointError: no run there, no whole checkpoint, or one of another tokenizer.
        NonFiniteError: an embedding that is not finite; names it.
        LockedError: another live process makes the same export, or the same share of it.
        StorageError: `out` is there already, the beginning of another export is, or the file
            system refused.
    """
    validate_export(config)
    suppressed = suppression(config.suppress)
    share = share_of(config.host)
    refuse_other_output(out)
    if share.alone:  # of several, one may have published what all of them made
        publishing.refuse_existing(out, overwrite=config.overwrite)
    run = read_run(workdir)
    dataset = open_dataset(data, config.verify)
    run.check_data(dataset)
    _check_dataset(config, dataset)
    config = _within_window(config, dataset)
    restored = load_params(
        run.workdir / "checkpoints",
        lambda: clue.init_run(run.config, run.vocab_size),
        config.step,
        replicated(make_mesh(MeshConfig())),
    )
    _check_width(config, run)
    rows = rows_of(config, dataset, run.config.encoder)
    item_table = _use_table(config, run.config.encoder, rows, out)
    manifest = _manifest(config, run, dataset, restored, rows, item_table, suppressed)
    check_agreed({"export": manifest["export_id"]})
    if not share.alone and is_export(out, manifest["export_id"]):
        say(f"{out}: this export is complete")
        return
    publishing.refuse_existing(out, overwrite=config.overwrite)
    _announce(config, restored, rows, manifest)
    params = run.with_generic(restored.parts["params"], dataset.tokenizer)["encoder"]
    with share.folder(out) as path:
        folder = claim(path, manifest, len(rows.parts), overwrite=config.overwrite)
        if not folder.already():
            _write_parts(folder, share, config, run, params, rows)
        whole = _finish(share, folder, out)
    count = f"{len(rows.users):,} embeddings of {config.what.value}"
    if whole:
        say(f"wrote {count} to {out}")
    else:
        say(f"host {config.host}: done; {out} is there once all hosts are, or ran again")


def _announce(
    config: ExportConfig, restored: Restored, rows: Rows, manifest: dict[str, Any]
) -> None:
    say(
        f"checkpoint of step {restored.step}: {len(rows.users):,} {config.what.value} to embed"
        + (f", {rows.suppressed:,} on the suppression list left out" if rows.suppressed else "")
        + (f", {rows.left_out:,} without a visible behaviour left out" if rows.left_out else "")
    )
    if config.retention_days:
        say(f"kept for {config.retention_days} days: nothing before {config.start} is read")
    if manifest["generic_guide"]:
        generic = ", ".join(manifest["generic_guide"])
        say(f"read through the generic guide, as the run knows no other for them: {generic}")


def _check_dataset(config: ExportConfig, dataset: Dataset) -> None:
    instead = {"cutoff": "hold_out_last"}
    instead |= dict.fromkeys(("start", "half_life_days", "retention_days"), "newest")
    for name in instead:
        if getattr(config, name) and not dataset.has_times:
            raise ConfigError(
                f"config.{name}: {dataset.path} has no dates, only an order; use {instead[name]}"
            )
    for split in config.splits:
        if split not in dataset.manifest["splits"]:
            there = ", ".join(dataset.manifest["splits"])
            raise ConfigError(f"config.splits: {dataset.path} has no {split!r}; it has {there}")


def _within_window(config: ExportConfig, dataset: Dataset) -> ExportConfig:
    """With a start before which nothing may be read any more, by whoever's retention window."""
    days = shortest(config.retention_days, dataset.manifest)
    if not days or config.what is ExportWhat.ITEMS:
        return config
    start = later(config.start, window_start(days))
    if config.cutoff and epoch_seconds(config.cutoff) <= epoch_seconds(start):
        raise ConfigError(
            f"config.cutoff: {config.cutoff}, but of the {days} days that behaviour is kept the"
            f" first is {start}: nothing is left to be seen before the cutoff"
        )
    return dataclasses.replace(config, start=start, retention_days=days)


def _check_width(config: ExportConfig, run: TrainedRun) -> None:
    width = run.config.encoder.embedding_width
    if config.dimensions > width:
        raise ConfigError(f"config.dimensions: {config.dimensions}, but {run.workdir} has {width}")


def _manifest(
    config: ExportConfig,
    run: TrainedRun,
    dataset: Dataset,
    restored: Restored,
    rows: Rows,
    item_table: bool,
    suppressed: dict[str, Any] | None,
) -> dict[str, Any]:
    """What the export is of, and what the encoder did not see; it determines every byte of it."""
    what, half_life = config.what.value, config.half_life_days
    manifest = {
        "what": what,
        "model_version": restored.model_version,
        "checkpoint": {"step": restored.step, "fingerprint": restored.fingerprint},
        "train_seed": run.config.seed,
        "config": to_json(run.config),
        "embedding_width": config.dimensions or run.config.encoder.embedding_width,
        "trained_width": run.config.encoder.embedding_width,
        "normalised": True,
        "npy": config.npy,
        "item_table": item_table,
        "precision": config.precision.value,
        "pooling": POOLING + (HALVED.format(half_life) if half_life else ""),
        "sharding": SHARDING[what],
        "order": ORDER[what],
        "num_shards": len(rows.parts),
        "cutoff": config.cutoff,
        "hold_out_last": config.hold_out_last,
        "start": config.start,
        "newest": config.newest,
        "half_life_days": config.half_life_days,
        "splits": list(config.splits) if config.what is ExportWhat.USERS else [],
        "users_left_out": rows.left_out,
        "dataset": {
            "fingerprint": dataset.fingerprint,
            "services": list(dataset.services),
        },
        "generic_guide": run.read_as_generic(dataset),
        "tokenizer_sha256": dataset.tokenizer.identity,
        "pseudonym_key_id": dataset.manifest["pseudonym_key_id"],
    }
    if suppressed is not None:  # without a list, exports are what they were before there were some
        manifest["suppressed"] = suppressed | {"users": rows.suppressed}
    if config.retention_days:  # likewise
        manifest["retention_days"] = config.retention_days
    export_id = files.sha256_text(files.canonical_json(manifest))
    # A dataset may lie elsewhere by the time that an export is resumed.
    manifest["dataset"] |= {"path": str(dataset.path)}
    return {**manifest, "export_id": export_id}


def _write_parts(
    folder: ExportFolder,
    share: Share,
    config: ExportConfig,
    run: TrainedRun,
    params: clue.Params,
    rows: Rows,
) -> None:
    """Embeds and writes each part of this process that is not there yet."""
    parts = share.parts(len(rows.parts))
    if not share.alone:
        say(f"{share.index} of {share.count}: makes {len(parts)} of {len(rows.parts)} parts")
    missing = [part for part in parts if not folder.finished(part, verify=True)]
    if len(missing) < len(parts):
        say(f"{len(parts) - len(missing)} of {len(parts)} parts were there already")
    if not missing:
        return
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    params = jax.device_put(jax.tree.map(to_host, params), replicated(mesh))
    encoder = _encoder(folder, share, config, run, params, rows, mesh)
    version, width = folder.manifest["model_version"], folder.manifest["embedding_width"]

    def write(part: Encoded) -> None:
        chosen = rows.parts[part.part]
        table = rows.table(chosen, narrowed(part.z_NSE, width), part.present_NS, version)
        file, npy = folder.file(part.part), folder.manifest["npy"]
        folder.mark(write_part(folder.path, file, table, folder.export_id, npy=npy))

    with progress("embedding", sum(len(rows.parts[part]) for part in missing)) as advance:
        pipeline.run(encoder, params, rows.users, rows.parts, missing, write, advance)


def _encoder(
    folder: ExportFolder,
    share: Share,
    config: ExportConfig,
    run: TrainedRun,
    params: clue.Params,
    rows: Rows,
    mesh: Mesh,
) -> BatchEncoder:
    """Of batches: from texts, or from a table of items, which is made first."""
    encoder, batch_users = run.config.encoder, config.batch_users
    half_life = config.half_life_days
    if not folder.manifest["item_table"]:
        return embedding_encoder(encoder, rows.users, batch_users, mesh, None, half_life)
    items = DistinctItems(rows.users, encoder)
    vectors = ItemVectors(folder.path / ITEMS, items)
    vectors.make(ItemEncoder(encoder, items.longest, mesh), params, share.index, share.count)
    return embedding_encoder(encoder, rows.users, batch_users, mesh, vectors, half_life)


def _use_table(config: ExportConfig, encoder: EncoderConfig, rows: Rows, out: str) -> bool:
    """Whether items are encoded once for all batches; the same in every process and after a kill.

    Raises:
        ConfigError: it is asked for where it cannot be memory-mapped.
    """
    if config.item_table is ItemTableUse.OFF:
        return False
    if in_bucket(out):
        if config.item_table is ItemTableUse.ON:
            raise ConfigError(f"config.item_table: a table needs a local --out, not {out}")
        return False
    if config.item_table is ItemTableUse.ON:
        return True
    return saving(DistinctItems(rows.users, encoder), rows.parts, config.batch_users) >= CHEAPER


def _finish(share: Share, folder: ExportFolder, out: str) -> bool:
    """Publishes the export once all have made their parts; hosts apart do not wait for others."""
    while not share.publish(folder, out):
        if not share.of_job:
            return False
        time.sleep(LOOK_SECONDS)
    return True
