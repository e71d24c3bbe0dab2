"""Contrastive pretraining, from seconds on one core to the sizes of the paper.

    python -m clue_jax train --config=configs/pretrain.py:art_office \\
        --data=data/prepared/art_office --workdir=runs/art_office

Variants, with what came out (mean of both directions; docs/results/matching.md):
  smoke          10 s on one core, of which 4 compile; for tests
  quickstart     two Transformers of one layer on synthetic logs; 50 s on 2 cores
  art_office     best recipe found for configs/data/art_office.py; 4 minutes on 2 cores; test R@10
                 .130 over 3 seeds (.133 .132 .124), TF-IDF .080
  online_retail  best recipe found for configs/data/online_retail.py; 90 s on 2 cores; test R@10
                 .701 over 3 seeds (.706 .701 .698), TF-IDF .676; but R@1 .451, TF-IDF .515
  4M 15M 65M 110M 160M 725M   encoders of the paper's sizes (model/sizes.py), for accelerators; not
                 trained to the end yet
"""

from clue_jax.config import (
    EncoderConfig,
    LossConfig,
    OptimConfig,
    PretrainConfig,
    SamplingConfig,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.errors import ConfigError
from clue_jax.model.sizes import PRESETS, preset

# Peak learning rate and batch of each size: those of the authors' follow-up at the nearest size
# (LMRec, arXiv 2212.03760, appendix); the paper's own table was not available.
PEAK = {
    "4M": (2e-3, 512),
    "15M": (1e-3, 1_024),
    "65M": (8e-4, 1_024),
    "110M": (2e-4, 1_024),
    "160M": (2e-4, 1_024),
    "725M": (2e-4, 1_024),
}


def _smoke() -> PretrainConfig:
    tiny = TransformerConfig(num_layers=1, num_heads=2, mlp_width=32)
    config = PretrainConfig(
        encoder=EncoderConfig(width=16, embedding_width=16, item=tiny, service=tiny, max_history=16)
    )
    config.encoder.row_tokens = config.encoder.row_behaviours = 64
    config.train = TrainConfig(steps=20, batch_users=32, log_every=5, eval_every=10)
    config.checkpoint.every_steps = 5
    return config


def _quickstart() -> PretrainConfig:
    small = TransformerConfig(num_layers=1, num_heads=4, mlp_width=256)
    config = PretrainConfig(
        encoder=EncoderConfig(
            width=64,
            embedding_width=64,
            item=small,
            service=small,
            max_item_tokens=24,
            max_history=32,
        ),
        sampling=SamplingConfig(behaviours_kept=0.7),
        optim=OptimConfig(learning_rate=3e-3),
    )
    config.train = TrainConfig(steps=200, batch_users=256, eval_every=50, eval_min_behaviours=5)
    config.checkpoint.every_steps = 100
    return config


def _bag_of_items() -> PretrainConfig:
    """Token embeddings and means alone: what real logs of a few thousand people can teach."""
    none = TransformerConfig(num_layers=0)
    return PretrainConfig(
        encoder=EncoderConfig(
            width=256,
            embedding_width=256,
            item=none,
            service=none,
            project=False,
            normalize_items=True,
            item_rows=128,
        ),
        sampling=SamplingConfig(behaviours_kept=0.7, token_dropout=0.3, within_service_weight=0.5),
        loss=LossConfig(temperature=0.15, learn_temperature=False),
        optim=OptimConfig(learning_rate=1e-3, clip_norm=1e9),
    )


def _art_office() -> PretrainConfig:
    config = _bag_of_items()
    config.sampling.item_steps = 600
    config.optim.item_learning_rate = 2e-3
    config.train = TrainConfig(steps=900, batch_users=1_024, log_every=20, eval_min_behaviours=5)
    config.checkpoint.every_steps = 100
    return config


def _online_retail() -> PretrainConfig:
    config = _bag_of_items()
    config.encoder.max_history = config.encoder.row_behaviours = 512
    config.sampling.token_dropout = 0.0
    config.loss.temperature = 0.05
    config.optim.learning_rate = 4e-3
    config.train = TrainConfig(steps=200, batch_users=1_024, log_every=20, eval_min_behaviours=10)
    config.checkpoint.every_steps = 100
    return config


def _size(name: str) -> PretrainConfig:
    learning_rate, batch_users = PEAK[name]
    config = PretrainConfig(
        encoder=preset(name),
        optim=OptimConfig(learning_rate=learning_rate, warmup_fraction=0.01, clip_norm=0.1),
    )
    config.train = TrainConfig(
        steps=100_000, batch_users=batch_users, log_every=20, eval_every=1_000
    )
    config.checkpoint.every_steps = 1_000
    return config


RECIPES = {
    "smoke": _smoke,
    "quickstart": _quickstart,
    "art_office": _art_office,
    "online_retail": _online_retail,
}
VARIANTS = (*RECIPES, *PRESETS)


def get_config(variant: str = "") -> PretrainConfig:
    if variant in RECIPES:
        return RECIPES[variant]()
    if variant in PRESETS:
        return _size(variant)
    raise ConfigError(
        f"configs/pretrain.py:{variant}: no such variant; use one of {', '.join(VARIANTS)}"
    )
