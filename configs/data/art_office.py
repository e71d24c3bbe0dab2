"""Two departments of one store, bought in by the same people (Amazon reviews 2018).

    python -m clue_jax prepare --config=configs/data/art_office.py --out=data/prepared/art_office

Expected: 9,577 users, 182,385 behaviours (art 97,028, office 85,357), 33,278 items, no row filtered
or rejected; 3 s on one core.

Then, for a test R@10 of .130 beside .080 of TF-IDF in 5 minutes (docs/results/matching.md):

    python -m clue_jax train --config=configs/pretrain.py:art_office \\
        --data=data/prepared/art_office --workdir=runs/art_office
    python -m clue_jax export --workdir=runs/art_office --data=data/prepared/art_office \\
        --out=runs/art_office/users
    python -m clue_jax evaluate --config=configs/evaluate/art_office.py \\
        --embeddings=runs/art_office/users --out=runs/art_office/evaluation

The tables have no dates; `position` orders a person's history across both departments. The split
(8,000, 577 and 1,000 people) is theirs. The reviews come without a grant to pass them on.
"""

from clue_jax.config import PrepareConfig, SourceConfig, TokenizerConfig
from clue_jax.errors import ConfigError

VARIANTS = ("",)


def get_config(variant: str = "") -> PrepareConfig:
    if variant not in VARIANTS:
        raise ConfigError(f"configs/data/art_office.py:{variant}: no such variant; there is none")
    return PrepareConfig(
        name="art_office",
        source="data/raw/art_office",
        help=(
            "it should hold art.parquet and office.parquet with the columns user_id, position,"
            " item_id, text and split, made from 'Arts, Crafts and Sewing' and 'Office Products' of"
            " https://nijianmo.github.io/amazon/; name another folder with --config.source=DIR"
        ),
        sources=tuple(
            SourceConfig(
                path=f"{service}.parquet",
                service=service,
                timestamp="",
                order="position",
                item_id="item_id",
                split="split",
            )
            for service in ("art", "office")
        ),
        tokenizer=TokenizerConfig(vocab_size=8_192),
    )
