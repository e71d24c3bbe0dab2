"""The scaling law of synthetic logs on two CPU cores.

    python -m clue_jax synthesize --config=configs/synthesize.py --config.num_users=20000 \\
        --out=data/scaling/logs
    python -m clue_jax prepare --config=configs/data/synthetic.py \\
        --config.source=data/scaling/logs --out=data/scaling/prepared
    python -m clue_jax scale --config=configs/scaling/cpu.py --data=data/scaling/prepared \\
        --workdir=runs/scaling

Variants:
  smoke    three runs of seconds; for tests
  minutes  sizes and steps alone, on 5,000 people
  study    the law over three orders of magnitude of compute, and each factor by itself; not yet
           run to its end
"""

from clue_jax.config import (
    EncoderConfig,
    HeldOutConfig,
    OptimConfig,
    PretrainConfig,
    RateRule,
    SamplingConfig,
    ScaleConfig,
    Sweep,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.errors import ConfigError


def _base() -> PretrainConfig:
    small = TransformerConfig(num_layers=1, num_heads=2, mlp_width=128)
    config = PretrainConfig(
        encoder=EncoderConfig(
            width=32,
            embedding_width=64,
            item=small,
            service=small,
            max_item_tokens=24,
            max_history=16,
        ),
        sampling=SamplingConfig(behaviours_kept=0.7),
        optim=OptimConfig(),
    )
    config.train = TrainConfig(steps=400, batch_users=128, log_every=20)
    return config


def _study() -> ScaleConfig:
    sizes = ("16x1", "32x1", "64x2", "128x2")
    return ScaleConfig(
        base=_base(),
        sweeps=(
            Sweep("rate", sizes=("16x1", "64x2"), steps=(200,), rates=(0.3, 1.0, 3.0)),
            Sweep("compute", sizes=sizes, steps=(100, 400, 1_600), seeds=(0, 1)),
            Sweep("users", sizes=("32x1",), users=(500, 2_000, 8_000), seeds=(0, 1)),
            Sweep("length", sizes=("16x1", "64x2"), behaviours=(8, 16, 32)),
            Sweep("batch", sizes=("16x1", "64x2"), batches=(32, 128, 512), rates=(0.5, 1.0, 2.0)),
        ),
        held_out=HeldOutConfig(behaviours=16, negatives=127),
    )


def _minutes() -> ScaleConfig:
    sizes = ("16x1", "32x1", "64x1", "128x2")
    return ScaleConfig(
        base=_base(),
        sweeps=(Sweep("compute", sizes=sizes, steps=(25, 100, 400)),),
        held_out=HeldOutConfig(behaviours=16, negatives=127),
    )


def _smoke() -> ScaleConfig:
    base = _base()
    base.train.batch_users, base.loss.temperature = 32, 0.3
    return ScaleConfig(
        base=base,
        sweeps=(
            Sweep("small", sizes=("8x1",), steps=(20,)),
            Sweep("large", sizes=("16x1",), steps=(20, 60)),
        ),
        rate=RateRule(learning_rate=2e-2),
        held_out=HeldOutConfig(behaviours=8, negatives=7),
        resamples=20,
    )


PLANS = {"study": _study, "minutes": _minutes, "smoke": _smoke}
VARIANTS = ("", *PLANS)


def get_config(variant: str = "") -> ScaleConfig:
    name = variant or "study"
    if name not in PLANS:
        raise ConfigError(
            f"configs/scaling/cpu.py:{variant}: no such variant; use one of {', '.join(PLANS)}"
        )
    return PLANS[name]()
