"""The project's own train step on given users, compiled and timed: our side of most benchmarks."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax

from clue_jax.config import (
    EncoderConfig,
    MeshConfig,
    OptimConfig,
    PretrainConfig,
    SamplingConfig,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.data.batches import Batch, Source, TrainBatches
from clue_jax.data.records import Users
from clue_jax.model.sizes import step_flops
from clue_jax.parallel.mesh import make_mesh
from clue_jax.training.state import init_state
from clue_jax.training.step import make_step
from tests.benchmarks import workloads

FINGERPRINT = "0123456789abcdef"  # any: it only seeds the draws


def config_of(
    width: int,
    layers: int,
    batch_users: int,
    *,
    longest: int = 32,
    history: int = 64,
    **encoder: Any,
) -> PretrainConfig:
    """A run with the same shape at both levels, whole histories and nothing dropped."""
    stack = TransformerConfig(num_layers=layers, num_heads=width // 64, mlp_width=4 * width)
    return PretrainConfig(
        encoder=EncoderConfig(
            width=width,
            embedding_width=width,
            item=stack,
            service=stack,
            max_item_tokens=longest,
            max_history=history,
            **encoder,
        ),
        sampling=SamplingConfig(generic_guide=0.0),
        optim=OptimConfig(learning_rate=1e-4),
        train=TrainConfig(batch_users=batch_users),
    )


@dataclass
class Bench:
    """One compiled step and what it takes."""

    config: PretrainConfig
    compiled: Any
    state: Any
    batch: Batch
    pairs: int

    def seconds(self, steps: int = 5, warmup: int = 1) -> float:
        """Median of some steps on the same batch."""
        taken = []
        for _ in range(warmup + steps):
            began = time.perf_counter()
            self.state, metrics = self.compiled(self.state, self.batch.packed)
            jax.block_until_ready(metrics)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[warmup:])

    @property
    def flops(self) -> float:
        """Useful FLOPs of a step: forward and backward of what is real."""
        return step_flops(self.config, self.batch.stats, self.pairs)

    @property
    def temporary_bytes(self) -> int:
        return self.compiled.memory_analysis().temp_size_in_bytes


def bench(config: PretrainConfig, users: Users, devices: int = 1) -> Bench:
    """Compiles the step of `config` over `users` on the first devices, with their first batch."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    batches = TrainBatches([Source("users", FINGERPRINT, users)], config, mesh)
    step = make_step(config, batches.pairs, mesh, batches.capacity.items)
    state = init_state(config, workloads.VOCABULARY)
    batch = batches.global_batch(0)
    return Bench(
        config, step.lower(state, batch.packed).compile(), state, batch, len(batches.pairs)
    )
