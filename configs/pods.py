"""Pretraining on whole TPU pods, and what the TPU compiler says of it (docs/results/pods.md).

    clue-jax compile --config=configs/pods.py:160M_v5e_256 --topology=v5e:16x16
    clue-jax train --config=configs/pods.py:160M_v5e_256 --data=... --workdir=gs://...

Variants are SIZE_POD, of the sizes 160M and 725M and the pods
  v5e_256     --topology=v5e:16x16
  v5p_512     --topology=v5p:8x8x8
  v6e_256x2   --topology=v6e:16x16 --slices=2
  tpu7x_128   --topology=tpu7x:4x4x4, 64 chips of two devices each
Compiling takes one to three minutes on 2 cores. None of them has been trained yet; learning rates
are those of configs/pretrain.py, for batches of 1,024, and are to be tuned for 65,536.
"""

from clue_jax.config import (
    LossConfig,
    MeshConfig,
    Precision,
    PretrainConfig,
    TrainConfig,
)
from clue_jax.errors import ConfigError
from clue_jax.model.sizes import preset

# Parameters lie in shards inside a slice, whose links are fast; data are what crosses slices.
MESHES = {
    "v5e_256": MeshConfig(data=16, fsdp=16),
    "v5p_512": MeshConfig(data=64, fsdp=8),
    "v6e_256x2": MeshConfig(data=32, fsdp=16),
    "tpu7x_128": MeshConfig(data=16, fsdp=8),
}
SIZES = ("160M", "725M")
VARIANTS = tuple(f"{size}_{pod}" for size in SIZES for pod in MESHES)


def get_config(variant: str = VARIANTS[0]) -> PretrainConfig:
    size, _, pod = variant.partition("_")
    if size not in SIZES or pod not in MESHES:
        raise ConfigError(
            f"configs/pods.py:{variant}: no such variant; use one of {', '.join(VARIANTS)}"
        )
    config = PretrainConfig(
        encoder=preset(size),
        loss=LossConfig(precision=Precision.BFLOAT16),
        mesh=MESHES[pod],
        train=TrainConfig(steps=20_000, batch_users=65_536, log_every=20, eval_every=1_000),
    )
    config.optim.learning_rate, config.optim.warmup_fraction = 2e-4, 0.01
    config.optim.clip_norm = 0.1
    config.checkpoint.every_steps = 1_000
    return config
