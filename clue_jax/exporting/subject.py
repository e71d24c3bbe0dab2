"""What an export is of: a run's parameters, a dataset's users or items, and what may be seen."""

from __future__ import annotations

import dataclasses
from typing import Any

from clue_jax import files
from clue_jax.config import (
    ExportConfig,
    ExportWhat,
    MeshConfig,
    epoch_seconds,
    to_json,
)
from clue_jax.data.id_list import IdList, suppression
from clue_jax.data.retention import later, shortest, window_start
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.embeddings.layout import ORDER, SHARDING
from clue_jax.errors import ConfigError
from clue_jax.exporting.rows import Rows, rows_of
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh, replicated
from clue_jax.training.checkpoint import Restored
from clue_jax.training.parameters import load_params
from clue_jax.training.trained import TrainedRun, read_run

POOLING = (
    "an item is the mean of its tokens, a service the mean of its behaviours, both as the encoder"
    " has them; a user is the mean of its services; all are scaled to length one"
)
HALVED = "; in both means a behaviour's weight halves every {:g} days before the newest one"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What an export is of; use `read_subject`.

    Attributes:
        config: what to export, with the start that a retention window sets.
        run: whose encoder embeds.
        dataset: whose users, or items, are embedded.
        restored: the checkpoint.
        rows: of the export.
        suppressed: the suppression list; None without one.
    """

    config: ExportConfig
    run: TrainedRun
    dataset: Dataset
    restored: Restored
    rows: Rows
    suppressed: IdList | None

    def params(self) -> clue.Params:
        """Of the encoder, with the generic guide where the run knows no service of this name."""
        trained = self.restored.parts["params"]
        return self.run.with_generic(trained, self.dataset.tokenizer)["encoder"]

    def manifest(self, item_table: bool) -> dict[str, Any]:
        """What the export is of and what the encoder did not see; it determines every byte."""
        config, run, dataset, rows = self.config, self.run, self.dataset, self.rows
        what, half_life = config.what.value, config.half_life_days
        manifest = {
            "what": what,
            "model_version": self.restored.model_version,
            "checkpoint": {"step": self.restored.step, "fingerprint": self.restored.fingerprint},
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
        # Without a list or a window, exports are what they were before there were any.
        if self.suppressed is not None:
            manifest["suppressed"] = self.suppressed.identity | {"users": rows.suppressed}
        if config.retention_days:
            manifest["retention_days"] = config.retention_days
        export_id = files.sha256_text(files.canonical_json(manifest))
        # A dataset may lie elsewhere by the time that an export is resumed.
        manifest["dataset"] |= {"path": str(dataset.path)}
        return {**manifest, "export_id": export_id}


def read_subject(config: ExportConfig, workdir: str, data: str) -> Subject:
    """Reads what is to be exported.

    Args:
        config: what, and which behaviours the encoder may see.
        workdir: a run directory of `train`.
        data: a prepared dataset with the run's tokenizer.

    Raises:
        ConfigError: a setting that cannot work with this run or dataset.
        DataError: the dataset is damaged, has a user twice, or nobody has a behaviour that may be
            seen.
        CheckpointError: no run there, no whole checkpoint, or one of another tokenizer.
    """
    suppressed = suppression(config.suppress)
    run, dataset = read_run(workdir), open_dataset(data, config.verify)
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
    rows = rows_of(config, dataset, run.config.encoder, suppressed)
    return Subject(config, run, dataset, restored, rows, suppressed)


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
