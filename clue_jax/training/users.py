"""Whom a run learns from, and whom it is validated on."""

from __future__ import annotations

from collections.abc import Mapping

from jax.sharding import Mesh

from clue_jax.config import PretrainConfig
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.source import Dataset
from clue_jax.data.suppressed import drawable
from clue_jax.training.validation import Validation


def users_of(
    config: PretrainConfig, datasets: Mapping[str, Dataset], mesh: Mesh
) -> tuple[TrainBatches, Validation | None]:
    """Batches of the training users of datasets, by name, and where asked for the held-out ones.

    Raises:
        ConfigError: a batch that does not divide over the devices, or is more than may be drawn.
        DataError: a dataset is damaged.
    """
    sources = [
        Source(name, dataset.fingerprint, drawable(dataset, "train", config))
        for name, dataset in datasets.items()
    ]
    batches, validation = TrainBatches(sources, config, mesh), None
    if config.train.eval_every:
        held_out = {name: drawable(d, "validation", config) for name, d in datasets.items()}
        validation = Validation(held_out, config, mesh)
    return batches, validation
