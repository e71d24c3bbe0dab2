"""Cross-service user matching of any export, on its test users.

    python -m clue_jax evaluate --config=configs/evaluate/matching.py \\
        --embeddings=runs/first/users --out=runs/first/evaluation

Every pair of services in both directions, users with at least 5 behaviours in each; beside TF-IDF,
the encoder before training, and chance. Tune with `:validation`, which takes validation users.
Expected: 1,000 users rank each other in seconds on one core, most of it the untrained encoder.
"""

from clue_jax.config import EvaluateConfig, MatchingConfig
from clue_jax.errors import ConfigError

VARIANTS = ("", "validation")


def get_config(variant: str = "") -> EvaluateConfig:
    if variant not in VARIANTS:
        raise ConfigError(
            f"configs/evaluate/matching.py:{variant}: no such variant; use none or validation"
        )
    return EvaluateConfig(matching=MatchingConfig(splits=(variant or "test",)))
