"""What `synthesize` writes: search, shop and news of the same people, with words of their own.

    python -m clue_jax prepare --config=configs/data/synthetic.py --out=data/prepared/synthetic
    python -m clue_jax prepare --config=configs/data/synthetic.py:quickstart \\
        --out=data/prepared/quickstart

Variants are those of configs/synthesize.py. Expected, with no row rejected:
  default     20,000 users, 1,513,354 behaviours on 14,999 items, 4 s
  quickstart   3,000 users,   154,986 behaviours on  4,499 items, 1 s
  smoke          200 users,     4,565 behaviours on    357 items
"""

from clue_jax.config import (
    PrepareConfig,
    SourceConfig,
    SplitConfig,
    SynthesizeConfig,
    TokenizerConfig,
)
from clue_jax.errors import ConfigError

VARIANTS = ("", "quickstart", "smoke")
VOCABULARY = {"": 4_096, "quickstart": 4_096, "smoke": 1_024}


def get_config(variant: str = "") -> PrepareConfig:
    if variant not in VARIANTS:
        raise ConfigError(
            f"configs/data/synthetic.py:{variant}: no such variant; use none, quickstart or smoke"
        )
    name = variant or "synthetic"
    return PrepareConfig(
        name=name,
        source=f"data/{name}",
        help=(
            "make the logs with: python -m clue_jax synthesize --config=configs/synthesize.py"
            f"{':' if variant else ''}{variant} --out=data/{name}; or name another folder with"
            " --config.source=DIR"
        ),
        sources=tuple(
            SourceConfig(
                path=f"{service}/part-*.parquet",
                service=service,
                item_id="item_id",
                text="{brand} {title} | {category}",
            )
            for service in SynthesizeConfig().services
        ),
        # A few hundred test users, so that the quickstart's figures are not left to luck.
        split=SplitConfig(test=0.1 if variant == "" else 0.2),
        tokenizer=TokenizerConfig(vocab_size=VOCABULARY[variant]),
    )
