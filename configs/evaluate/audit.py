"""A privacy audit of an export: who can be linked, who was trained on, what can be read off.

    python -m clue_jax evaluate --config=configs/evaluate/audit.py --embeddings=runs/first/users \\
        --out=runs/first/audit

People of one service are looked for among those of another, at several sizes of galleries, and
training users are told from others: 5 s for 600 people on 2 cores, 30 s a linkage of 20,000, which
are a sample where there are more (`audit.max_users`). The same with other exports of these people,
of another window of time, or of another encoder whose space an attacker turns by the pairs of 100
people who are known already:

    python -m clue_jax evaluate --config=configs/evaluate/audit.py --embeddings=runs/first/users \\
        --config.audit.beside=month=runs/first/month,rival=runs/second/users --out=runs/first/audit

An attacker with an encoder of other people's logs tells training users far better; name its export
of these people with `--config.audit.reference=others=runs/others/users`.

Variants:
  attributes  also how well an attribute is predicted, beside TF-IDF and chance, and how far groups
              of users differ in that. `segment` and `subscribes` of the synthetic logs stand for
              what is sensitive, and users are in groups by their favourite category: copy this file
              for your own tables. A minute. What a smaller export of the same people still tells:
              `--config.downstream.beside=small=DIR --config.downstream.features=clue,small,tfidf`

    python -m clue_jax evaluate --config=configs/evaluate/audit.py:attributes \\
        --embeddings=runs/first/users --out=runs/first/audit
"""

from clue_jax.config import (
    DownstreamConfig,
    EvaluateConfig,
    GroupConfig,
    TaskConfig,
    TaskKind,
)
from clue_jax.errors import ConfigError

VARIANTS = ("", "attributes")
# An attribute has no date: whatever gives it away is what the audit is about.
ATTRIBUTES = tuple(
    TaskConfig(name, TaskKind.BINARY, name, label=name, timestamp="", timeless=True, best="best")
    for name in ("segment", "subscribes")
)


def get_config(variant: str = "") -> EvaluateConfig:
    if variant not in VARIANTS:
        raise ConfigError(
            f"configs/evaluate/audit.py:{variant}: no such variant; use none or attributes"
        )
    config = EvaluateConfig(suites=("audit",))
    if variant:
        config.suites = ("audit", "downstream")
        config.downstream = _attributes()
    return config


def _attributes() -> DownstreamConfig:
    return DownstreamConfig(
        labels="data/synthetic/labels",
        tasks=ATTRIBUTES,
        groups=(GroupConfig("favourite", "favourite", label="favourite"),),
        features=("clue", "tfidf"),
    )
