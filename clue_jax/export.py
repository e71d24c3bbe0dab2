"""Parameters + prepared dataset -> embeddings on disk, exactly once, resumable part by part."""

from __future__ import annotations

import time
from typing import Any

import jax
from jax.sharding import Mesh

from clue_jax import publishing
from clue_jax.buckets import in_bucket
from clue_jax.composition import narrowed
from clue_jax.config import (
    ExportConfig,
    ItemTableUse,
    MeshConfig,
    validate_export,
)
from clue_jax.console import progress, say
from clue_jax.embeddings.writer import write_part
from clue_jax.errors import ConfigError
from clue_jax.exporting import pipeline
from clue_jax.exporting.folder import ITEMS, ExportFolder, claim, is_export, refuse_other_output
from clue_jax.exporting.item_vectors import CHEAPER, DistinctItems, ItemVectors, saving
from clue_jax.exporting.pipeline import Encoded
from clue_jax.exporting.share import LOOK_SECONDS, Share, share_of
from clue_jax.exporting.subject import Subject, read_subject
from clue_jax.inference import BatchEncoder, ItemEncoder, embedding_encoder
from clue_jax.model import clue
from clue_jax.parallel.agreement import check_agreed
from clue_jax.parallel.mesh import make_mesh, replicated, to_host


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
    share = share_of(config.host)
    refuse_other_output(out)
    if share.alone:  # of several, one may have published what all of them made
        publishing.refuse_existing(out, overwrite=config.overwrite)
    subject = read_subject(config, workdir, data)
    rows = subject.rows
    manifest = subject.manifest(_use_table(subject, out))
    check_agreed({"export": manifest["export_id"]})
    if not share.alone and is_export(out, manifest["export_id"]):
        say(f"{out}: this export is complete")
        return
    publishing.refuse_existing(out, overwrite=config.overwrite)
    _announce(subject, manifest)
    with share.folder(out) as path:
        folder = claim(path, manifest, len(rows.parts), overwrite=config.overwrite)
        if not folder.already():
            _write_parts(folder, share, subject)
        whole = _finish(share, folder, out)
    count = f"{len(rows.users):,} embeddings of {config.what.value}"
    if whole:
        say(f"wrote {count} to {out}")
    else:
        say(f"host {config.host}: done; {out} is there once all hosts are, or ran again")


def _announce(subject: Subject, manifest: dict[str, Any]) -> None:
    config, rows = subject.config, subject.rows
    say(
        f"checkpoint of step {subject.restored.step}: {len(rows.users):,} {config.what.value} to"
        " embed"
        + (f", {rows.suppressed:,} on the suppression list left out" if rows.suppressed else "")
        + (f", {rows.left_out:,} without a visible behaviour left out" if rows.left_out else "")
    )
    if config.retention_days:
        say(f"kept for {config.retention_days} days: nothing before {config.start} is read")
    if manifest["generic_guide"]:
        generic = ", ".join(manifest["generic_guide"])
        say(f"read through the generic guide, as the run knows no other for them: {generic}")


def _write_parts(folder: ExportFolder, share: Share, subject: Subject) -> None:
    """Embeds and writes each part of this process that is not there yet."""
    rows = subject.rows
    parts = share.parts(len(rows.parts))
    if not share.alone:
        say(f"{share.index} of {share.count}: makes {len(parts)} of {len(rows.parts)} parts")
    missing = [part for part in parts if not folder.finished(part, verify=True)]
    if len(missing) < len(parts):
        say(f"{len(parts) - len(missing)} of {len(parts)} parts were there already")
    if not missing:
        return
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    params = jax.device_put(jax.tree.map(to_host, subject.params()), replicated(mesh))
    encoder = _encoder(folder, share, subject, params, mesh)
    version, width = folder.manifest["model_version"], folder.manifest["embedding_width"]

    def write(part: Encoded) -> None:
        chosen = rows.parts[part.part]
        table = rows.table(chosen, narrowed(part.z_NSE, width), part.present_NS, version)
        file, npy = folder.file(part.part), folder.manifest["npy"]
        folder.mark(write_part(folder.path, file, table, folder.export_id, npy=npy))

    with progress("embedding", sum(len(rows.parts[part]) for part in missing)) as advance:
        pipeline.run(encoder, params, rows.users, rows.parts, missing, write, advance)


def _encoder(
    folder: ExportFolder, share: Share, subject: Subject, params: clue.Params, mesh: Mesh
) -> BatchEncoder:
    """Of batches: from texts, or from a table of items, which is made first."""
    encoder, users, config = subject.run.config.encoder, subject.rows.users, subject.config
    vectors = None
    if folder.manifest["item_table"]:
        items = DistinctItems(users, encoder)
        vectors = ItemVectors(folder.path / ITEMS, items)
        vectors.make(ItemEncoder(encoder, items.longest, mesh), params, share.index, share.count)
    batch_users, half_life = config.batch_users, config.half_life_days
    return embedding_encoder(encoder, users, batch_users, mesh, vectors, half_life)


def _use_table(subject: Subject, out: str) -> bool:
    """Whether items are encoded once for all batches; the same in every process and after a kill.

    Raises:
        ConfigError: it is asked for where it cannot be memory-mapped.
    """
    config, rows = subject.config, subject.rows
    if config.item_table is ItemTableUse.OFF:
        return False
    if in_bucket(out):
        if config.item_table is ItemTableUse.ON:
            raise ConfigError(f"config.item_table: a table needs a local --out, not {out}")
        return False
    if config.item_table is ItemTableUse.ON:
        return True
    items = DistinctItems(rows.users, subject.run.config.encoder)
    return saving(items, rows.parts, config.batch_users) >= CHEAPER


def _finish(share: Share, folder: ExportFolder, out: str) -> bool:
    """Publishes the export once all have made their parts; hosts apart do not wait for others."""
    while not share.publish(folder, out):
        if not share.of_job:
            return False
        time.sleep(LOOK_SECONDS)
    return True
