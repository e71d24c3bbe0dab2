"""Scaling on real logs of a few thousand people, on two CPU cores: what their number limits.

    python -m clue_jax prepare --config=configs/data/art_office.py --out=data/prepared/art_office
    python -m clue_jax scale --config=configs/scaling/real.py:art_office \\
        --data=data/prepared/art_office --workdir=runs/scaling_art_office

    python -m clue_jax prepare --config=configs/data/online_retail.py \\
        --out=data/prepared/online_retail
    python -m clue_jax scale --config=configs/scaling/real.py:online_retail \\
        --data=data/prepared/online_retail --workdir=runs/scaling_online_retail

Sizes, training users and samples are varied. Each of these people is seen many times, so compute
alone buys little here: the questions are what more users, and what a larger encoder, would give.

Variants:
  art_office     20 runs
  online_retail  the same on two years of one shop
"""

from clue_jax.config import (
    EncoderConfig,
    HeldOutConfig,
    LossConfig,
    PretrainConfig,
    RateRule,
    SamplingConfig,
    ScaleConfig,
    Sweep,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.errors import ConfigError

SIZES = ("16x1", "32x1", "64x1")
# Behaviours that are read, and samples of each run.
READ = {"art_office": (16, (12_800, 25_600)), "online_retail": (32, (12_800, 25_600))}
PEOPLE = {"art_office": (1_000, 3_000, 0), "online_retail": (800, 1_600, 0)}
VARIANTS = tuple(READ)


def get_config(variant: str = "") -> ScaleConfig:
    if variant not in READ:
        raise ConfigError(
            f"configs/scaling/real.py:{variant}: no such variant; use one of {', '.join(READ)}"
        )
    behaviours, samples = READ[variant]
    small = TransformerConfig(num_layers=1, num_heads=2, mlp_width=128)
    base = PretrainConfig(
        encoder=EncoderConfig(
            width=32,
            embedding_width=64,
            item=small,
            service=small,
            max_item_tokens=24,
            max_history=behaviours,
        ),
        sampling=SamplingConfig(behaviours_kept=0.7, token_dropout=0.3, within_service_weight=0.5),
        loss=LossConfig(temperature=0.15),
    )
    base.train = TrainConfig(steps=100, batch_users=128, log_every=20)
    return ScaleConfig(
        base=base,
        sweeps=(
            Sweep("size", sizes=SIZES, samples=samples, seeds=(0, 1)),
            Sweep(
                "users", sizes=SIZES[1:], users=PEOPLE[variant], samples=samples[:1], seeds=(0, 1)
            ),
        ),
        rate=RateRule(learning_rate=2e-3, width=64, width_power=1.0, batch=64, batch_power=0.25),
        held_out=HeldOutConfig(min_behaviours=5, behaviours=behaviours, negatives=127),
    )
