"""Whom a run learns from, and whom it is validated on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jax.sharding import Mesh

from clue_jax.config import PretrainConfig
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.id_list import IdList
from clue_jax.data.source import Dataset
from clue_jax.data.suppressed import drawable
from clue_jax.training.validation import Validation


@dataclass(frozen=True)
class RunUsers:
    """The people of a run.

    Attributes:
        batches: of the training users.
        validation: on the held-out ones, where it is asked for.
        suppressed: whom neither has; None without a list.
    """

    batches: TrainBatches
    validation: Validation | None
    suppressed: IdList | None


def users_of(
    config: PretrainConfig,
    datasets: Mapping[str, Dataset],
    suppressed: IdList | None,
    mesh: Mesh,
) -> RunUsers:
    """The users of datasets, by name, that a run learns from and is validated on.

    Raises:
        ConfigError: a batch that does not divide over the devices, or is more than may be drawn.
        DataError: a dataset is damaged.
    """
    sources = [
        Source(name, dataset.fingerprint, drawable(dataset, "train", config, suppressed))
        for name, dataset in datasets.items()
    ]
    batches, validation = TrainBatches(sources, config, mesh), None
    if config.train.eval_every:
        held_out = {
            name: drawable(dataset, "validation", config, suppressed)
            for name, dataset in datasets.items()
        }
        validation = Validation(held_out, config, mesh)
    return RunUsers(batches, validation, suppressed)
