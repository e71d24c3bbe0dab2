"""What a step of a run computes on a dataset, known before the run begins."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

from clue_jax.config import DataConfig, EncoderConfig, PretrainConfig, to_json
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.source import Dataset
from clue_jax.files import canonical_json
from clue_jax.model.sizes import step_flops
from clue_jax.parallel.mesh import make_mesh

Cost = Callable[[PretrainConfig], float]  # FLOPs of a step, as executed
STEPS = 4  # batches that a mean is taken over; they differ by a few per cent


class StepCost:
    """FLOPs of a step in closed form, as a mean over some batches that the run will draw.

    How much of a batch repeats, and so is encoded once by each group of devices, depends on the
    data and on how users are drawn, not on the encoder's size or the seed: runs that draw alike
    share their batches here. Devices are those of this process; runs are made where it is.
    """

    def __init__(self, dataset: Dataset):
        self._source = Source("users", dataset.fingerprint, dataset.table("train", DataConfig()))
        self._counts: dict[str, tuple[dict[str, float], int]] = {}

    def __call__(self, config: PretrainConfig) -> float:
        counts, pairs = self._drawn(config)
        return step_flops(config, counts, pairs)

    def _drawn(self, config: PretrainConfig) -> tuple[dict[str, float], int]:
        """Mean counts of a step, and pairs of views."""
        read = dataclasses.replace(config, seed=0, encoder=_readers(config.encoder))
        told = to_json(read)
        key = canonical_json(
            [told["encoder"], told["sampling"], told["mesh"], config.train.batch_users]
        )
        if key not in self._counts:
            batches = TrainBatches([self._source], read, make_mesh(config.mesh))
            total: Counter[str] = Counter()
            # From all of the run, as histories may grow with a schedule.
            for number in range(STEPS):
                total.update(batches.host_batch(number * config.train.steps // STEPS)[1])
            means = {name: count / STEPS for name, count in total.items()}
            self._counts[key] = means, len(batches.pairs)
        return self._counts[key]


def _readers(encoder: EncoderConfig) -> EncoderConfig:
    """An encoder that reads the same and computes nothing."""
    none = dataclasses.replace(encoder.item, num_layers=0)
    return dataclasses.replace(encoder, width=1, embedding_width=1, item=none, service=none)
