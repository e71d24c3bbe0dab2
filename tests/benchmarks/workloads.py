"""Users and batches that both sides of a benchmark compute.

`zipf_users` are like logs: items repeat within and across histories, texts and histories are
uneven. `uniform_users` leave nothing to gain: every text is distinct and as long as all others, so
padded and packed batches are the same work and a ratio compares the arithmetic alone.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from clue_jax.config import (
    EncoderConfig,
    PrepareConfig,
    PretrainConfig,
    SourceConfig,
    SynthesizeConfig,
    TokenizerConfig,
)
from clue_jax.data.candidates import candidates
from clue_jax.data.prepare import prepare
from clue_jax.data.ragged import offsets_of, ranges
from clue_jax.data.records import Users
from clue_jax.data.sampling import Views
from clue_jax.data.source import open_dataset
from clue_jax.data.synthetic import synthesize
from clue_jax.data.tokenizer import BYTES, FIRST_SERVICE_GUIDE

SERVICES = ("search", "shop")
VOCABULARY = 4_096  # tokens, in both kinds of users


def zipf_users(
    count: int,
    *,
    services: tuple[str, ...] = SERVICES,
    mean_behaviours: float = 30.0,
    items_per_service: int = 5_000,
    seed: int = 0,
) -> Users:
    """Synthetic users with behaviours in two services or more, by way of the project's own stages.

    Args:
        count: users.
        services: names.
        mean_behaviours: per user and service; lengths are log-normal.
        items_per_service: catalogue size; popularity in it follows Zipf's law.
        seed: of the population.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Training users who have two services are more than half of all that are made.
        made = 2 * count + 200, services, mean_behaviours, items_per_service, seed
        users = open_dataset(dataset(folder, *made)).users("train")
    return users.take(
        candidates(users, users.services, PretrainConfig(), count).members["row"][:count]
    )


def dataset(
    folder: str | Path,
    num_users: int,
    services: tuple[str, ...],
    mean_behaviours: float,
    items_per_service: int,
    seed: int,
) -> Path:
    """Synthesizes and prepares in `folder`; gives the path of the dataset."""
    population = SynthesizeConfig(
        num_users=num_users,
        services=services,
        mean_behaviours=mean_behaviours,
        items_per_service=items_per_service,
        seed=seed,
    )
    logs, data = f"{folder}/logs", f"{folder}/data"
    # The last line that a side prints is its result; what stages say goes elsewhere.
    with contextlib.redirect_stdout(sys.stderr):
        synthesize(population, logs)
        prepare(_preparation(logs, services), data)
    return Path(data)


def _preparation(logs: str, services: tuple[str, ...]) -> PrepareConfig:
    sources = tuple(
        SourceConfig(
            path=f"{service}/part-*.parquet",
            service=service,
            item_id="item_id",
            text="{brand} {title} | {category}",
        )
        for service in services
    )
    return PrepareConfig(
        source=logs, sources=sources, tokenizer=TokenizerConfig(vocab_size=VOCABULARY)
    )


def uniform_users(count: int, histories: int, tokens: int, *, seed: int = 0) -> Users:
    """Users with `histories` behaviours in each of two services, no two of the same item.

    Args:
        count: N users.
        histories: behaviours per user and service.
        tokens: of each item, guide included.
        seed: of the texts.
    """
    rng = np.random.default_rng(seed)
    per_user = len(SERVICES) * histories
    items = count * per_user
    texts = rng.integers(
        FIRST_SERVICE_GUIDE + len(SERVICES) + BYTES, VOCABULARY, (items, tokens), dtype=np.int32
    )
    texts[:, 0] = FIRST_SERVICE_GUIDE + np.arange(items) // histories % len(SERVICES)
    return Users(
        user_ids=np.array([f"user-{n}" for n in range(count)], object),
        services=SERVICES,
        item_ids=np.arange(items, dtype=np.uint64),
        item_offsets=offsets_of(np.full(count, per_user)),
        tokens=texts.ravel(),
        token_offsets=offsets_of(np.full(items, tokens)),
        behaviour_items=np.tile(np.arange(per_user, dtype=np.int32), count),
        behaviour_times=np.arange(items, dtype=np.int64),
        behaviour_offsets=offsets_of(np.full(count * len(SERVICES), histories)),
    )


def padded_npz(users: Users, views: Views, config: EncoderConfig, path: str | Path) -> None:
    """Writes views as the peer reads them, padded to the caps of the encoder.

    The file has `tokens` [N, V, T, L] int32 and `is_token` bool; a behaviour is real when it has a
    token.
    """
    sizes = np.diff(views.offsets)
    row = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(row)) - views.offsets[row]
    starts = users.token_offsets[views.items]
    lengths = np.minimum(users.token_offsets[views.items + 1] - starts, config.max_item_tokens)
    slot = (row * config.max_history + place) * config.max_item_tokens
    where = ranges(slot, lengths)
    shape = len(users), views.num_views, config.max_history, config.max_item_tokens
    tokens, is_token = np.zeros(shape, np.int32), np.zeros(shape, bool)
    tokens.reshape(-1)[where] = users.tokens[ranges(starts, lengths)]
    is_token.reshape(-1)[where] = True
    np.savez(path, tokens=tokens, is_token=is_token)
