"""Customers of one year among those of the other: 714 test users with 10 behaviours in each.

    python -m clue_jax evaluate --config=configs/evaluate/online_retail.py \\
        --embeddings=runs/online_retail/users --out=runs/online_retail/evaluation

TF-IDF, fitted on the queries' and candidates' texts, reaches (mean of both directions): R@1 .515,
R@10 .676, MRR .574; customers buy the same goods again, so words alone go far. Chance R@10 is .014.
10 s on one core. Tune with `:validation` and look at test users once a recipe.

Variant `next`: the first purchase from 2011-09-09 on, three months before the logs end, among all
goods of the second year (full ranking), for customers of validation and test.

    python -m clue_jax export --workdir=runs/online_retail --data=data/prepared/online_retail \\
        --out=runs/online_retail/before --config.cutoff=2011-09-09 --config.half_life_days=30
    python -m clue_jax export --workdir=runs/online_retail --data=data/prepared/online_retail \\
        --out=runs/online_retail/items --config.what=items
    python -m clue_jax evaluate --config=configs/evaluate/online_retail.py:next \\
        --embeddings=runs/online_retail/before --out=runs/online_retail/next
"""

from clue_jax.config import (
    DownstreamConfig,
    EvaluateConfig,
    MatchingConfig,
    TaskConfig,
    TaskKind,
)
from clue_jax.errors import ConfigError

VARIANTS = ("", "validation", "next")


def get_config(variant: str = "") -> EvaluateConfig:
    if variant not in VARIANTS:
        raise ConfigError(
            f"configs/evaluate/online_retail.py:{variant}: no such variant; use none, validation or"
            " next"
        )
    if variant == "next":
        return EvaluateConfig(suites=("downstream",), downstream=_next())
    return EvaluateConfig(
        matching=MatchingConfig(
            services=("year1", "year2"), splits=(variant or "test",), min_behaviours=10
        )
    )


def _next() -> DownstreamConfig:
    return DownstreamConfig(
        items="runs/online_retail/items",
        tasks=(TaskConfig("next_purchase", TaskKind.RETRIEVAL, service="year2", timestamp=""),),
        features=("clue", "tfidf", "factors", "item_mean", "item_recent", "sasrec", "clue+best"),
        heads=("linear",),
        weight_decays=(1e-1, 1.0),
        half_life_days=30.0,
        steps=100,
    )
