"""Art buyers among office buyers and the reverse: 917 test users with 5 behaviours in each.

    python -m clue_jax evaluate --config=configs/evaluate/art_office.py \\
        --embeddings=runs/art_office/users --out=runs/art_office/evaluation

TF-IDF, fitted on the queries' and candidates' texts, reaches (mean of both directions, then
art->office, then office->art): R@1 .0196 .0218 .0174, R@10 .0802 .0840 .0763, MRR .0440 .0465
.0415; a 95 % half-width of R@10 is .019 in one direction and .017 for the mean. Chance R@10 is
.0109. 10 s on one core. Tune with `:validation` and look at test users once a recipe.
"""

from clue_jax.config import EvaluateConfig, MatchingConfig
from clue_jax.errors import ConfigError

VARIANTS = ("", "validation")


def get_config(variant: str = "") -> EvaluateConfig:
    if variant not in VARIANTS:
        raise ConfigError(
            f"configs/evaluate/art_office.py:{variant}: no such variant; use none or validation"
        )
    return EvaluateConfig(
        matching=MatchingConfig(
            services=("art", "office"), splits=(variant or "test",), min_behaviours=5
        )
    )
