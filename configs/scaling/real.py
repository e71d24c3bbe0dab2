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

Variants, 20 runs each:
  art_office     bags of items, 64 to 256 wide: Transformers learn nothing of these logs in runs of
                 minutes
  online_retail  one layer of each level, 16 to 64 wide
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


def _art_office() -> ScaleConfig:
    none = TransformerConfig(num_layers=0)
    base = PretrainConfig(
        encoder=EncoderConfig(
            width=64,
            embedding_width=256,
            item=none,
            service=none,
            max_history=32,
            normalize_items=True,
            item_rows=128,
        ),
        sampling=SamplingConfig(
            behaviours_kept=0.7, token_dropout=0.3, within_service_weight=0.5, item_steps=100
        ),
        loss=LossConfig(temperature=0.15, learn_temperature=False),
    )
    base.optim.item_learning_rate, base.optim.clip_norm = 4e-3, 1e9
    base.train = TrainConfig(steps=300, batch_users=512, log_every=20)
    return _of(
        base,
        sizes=("64x0", "128x0", "256x0"),
        samples=(102_400, 204_800),
        people=(1_000, 3_000, 0),
        rate=RateRule(learning_rate=2e-3, width=256, width_power=0.0, batch=512, batch_power=0.0),
        behaviours=32,
    )


def _online_retail() -> ScaleConfig:
    small = TransformerConfig(num_layers=1, num_heads=2, mlp_width=128)
    base = PretrainConfig(
        encoder=EncoderConfig(
            width=32,
            embedding_width=64,
            item=small,
            service=small,
            max_item_tokens=24,
            max_history=32,
        ),
        sampling=SamplingConfig(behaviours_kept=0.7, token_dropout=0.3, within_service_weight=0.5),
        loss=LossConfig(temperature=0.15),
    )
    base.train = TrainConfig(steps=100, batch_users=128, log_every=20)
    return _of(
        base,
        sizes=("16x1", "32x1", "64x1"),
        samples=(12_800, 25_600),
        people=(800, 1_600, 0),
        rate=RateRule(learning_rate=2e-3, width=64, width_power=1.0, batch=64, batch_power=0.25),
        behaviours=32,
    )


def _of(
    base: PretrainConfig,
    sizes: tuple[str, ...],
    samples: tuple[int, ...],
    people: tuple[int, ...],
    rate: RateRule,
    behaviours: int,
) -> ScaleConfig:
    return ScaleConfig(
        base=base,
        sweeps=(
            Sweep("size", sizes=sizes, samples=samples, seeds=(0, 1)),
            Sweep("users", sizes=sizes[1:], users=people, samples=samples[:1], seeds=(0, 1)),
        ),
        rate=rate,
        held_out=HeldOutConfig(min_behaviours=5, behaviours=behaviours, negatives=127),
    )


PLANS = {"art_office": _art_office, "online_retail": _online_retail}
VARIANTS = tuple(PLANS)


def get_config(variant: str = "") -> ScaleConfig:
    if variant not in PLANS:
        raise ConfigError(
            f"configs/scaling/real.py:{variant}: no such variant; use one of {', '.join(PLANS)}"
        )
    return PLANS[variant]()
