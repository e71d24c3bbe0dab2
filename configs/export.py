"""Embeddings of every user of a prepared dataset, from the newest good checkpoint of a run.

    python -m clue_jax export --workdir=runs/first --data=data/prepared --out=runs/first/users
    python -m clue_jax export --config=configs/export.py:items --workdir=runs/first \\
        --data=data/prepared --out=runs/first/items

Variants: the default (users) and `items` (a vector per distinct item). Leave out what a later label
needs with `--config.cutoff=2024-06-01` or `--config.hold_out_last=1`. Several hosts share an export
with `--config.host=0/2` and `--config.host=1/2`; the same command again continues what was killed.
"""

from clue_jax.config import ExportConfig, ExportWhat
from clue_jax.errors import ConfigError

VARIANTS = ("", "items")


def get_config(variant: str = "") -> ExportConfig:
    if variant not in VARIANTS:
        raise ConfigError(f"configs/export.py:{variant}: no such variant; use none or items")
    return ExportConfig(what=ExportWhat.ITEMS if variant == "items" else ExportWhat.USERS)
