"""Art buyers among office buyers and the reverse: 917 test users with 5 behaviours in each.

    python -m clue_jax evaluate --config=configs/evaluate/art_office.py \\
        --embeddings=runs/art_office/users --out=runs/art_office/evaluation

TF-IDF, fitted on the queries' and candidates' texts, reaches (mean of both directions, then
art->office, then office->art): R@1 .0196 .0218 .0174, R@10 .0802 .0840 .0763, MRR .0440 .0465
.0415; a 95 % half-width of R@10 is .019 in one direction and .017 for the mean. Chance R@10 is
.0109. 10 s on one core. Tune with `:validation` and look at test users once a recipe. With
`--config.matching.probe=runs/art_office` also without what users repeat in both services.

Variant `next`: the last office item, and the last art item, among all of the service (full ranking)
for 1,577 users of validation and test, from exports that did not see it. The data have no dates:
what knows the other service, too, is marked "order unknown". A head a fold and feature tells 15,000
items apart: tens of minutes on 2 cores, a minute with `--config.downstream.heads=knn`, which leaves
cosines alone, and without sasrec among `--config.downstream.features`.

    python -m clue_jax export --workdir=runs/art_office --data=data/prepared/art_office \\
        --out=runs/art_office/before --config.hold_out_last=1
    python -m clue_jax export --workdir=runs/art_office --data=data/prepared/art_office \\
        --out=runs/art_office/items --config.what=items
    python -m clue_jax evaluate --config=configs/evaluate/art_office.py:next \\
        --embeddings=runs/art_office/before --out=runs/art_office/next
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
SERVICES = ("art", "office")


def get_config(variant: str = "") -> EvaluateConfig:
    if variant not in VARIANTS:
        raise ConfigError(
            f"configs/evaluate/art_office.py:{variant}: no such variant; use none, validation or"
            " next"
        )
    if variant == "next":
        return EvaluateConfig(suites=("downstream",), downstream=_next())
    return EvaluateConfig(
        matching=MatchingConfig(services=SERVICES, splits=(variant or "test",), min_behaviours=5)
    )


def _next() -> DownstreamConfig:
    return DownstreamConfig(
        items="runs/art_office/items",
        tasks=tuple(
            TaskConfig(f"next_{service}", TaskKind.RETRIEVAL, service=service, timestamp="")
            for service in SERVICES
        ),
        features=(
            "clue",
            "clue/art",
            "clue/office",
            "tfidf",
            "factors",
            "item_mean",
            "sasrec",
            "clue+best",
        ),
        # A head a fold has a catalogue of 15,000 items to tell apart.
        heads=("linear",),
        weight_decays=(1e-1, 1.0),
        folds=3,
        steps=100,
    )
