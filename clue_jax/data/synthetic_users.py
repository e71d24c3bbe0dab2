"""Synthetic people: interests that drift over months, and the behaviours they lead to.

Users come in blocks of fixed size, each with random streams of its own: what a user does depends on
the seed and the user's number only, not on files, chunks or the number of users.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np

from clue_jax.config import SynthesizeConfig
from clue_jax.data.synthetic_world import Catalogue, Topics, World, stream
from clue_jax.data.timestamps import DAY_SECONDS

BLOCK_USERS = 1_000
MONTH_DAYS = 30  # interests change at multiples of it, counted from the first day
HOME_DOMAIN_BONUS = 1.5  # log-odds of a topic inside the domain a user is at home in
WEIGHT_DRIFT = 0.25  # spread of the monthly log-change of an interest's weight


@dataclass(frozen=True)
class Behaviours:
    """What a block of users did on one service, by user and oldest first."""

    user: np.ndarray  # [M] int64, number of the user in the population
    seconds: np.ndarray  # [M] int64, since the epoch
    item: np.ndarray  # [M] int64, position in the service's catalogue


@dataclass(frozen=True)
class Block:
    """Users `first` to `first + BLOCK_USERS` with latents and behaviours."""

    first: int
    interests: np.ndarray  # [users, months, interests] int32, leaf topics
    weights: np.ndarray  # [users, months, interests] float32, sums to 1 over interests
    behaviours: tuple[Behaviours, ...]  # per service


def num_months(config: SynthesizeConfig) -> int:
    """Months of `MONTH_DAYS` days that the logs span, the last one perhaps cut short."""
    return -(-config.num_days // MONTH_DAYS)


def live(config: SynthesizeConfig, world: World, block: int) -> Block:
    """Draws the users of one block: latents first, then every service's behaviours."""
    rng = stream(config, 1, block)
    interests, weights = _draw_interests(rng, config, world.topics)
    lengths = _draw_lengths(rng, config)
    first = block * BLOCK_USERS
    behaviours = tuple(
        _behave(
            stream(config, 2, block, position),
            config,
            world.topics,
            catalogue,
            interests,
            weights,
            lengths[:, position],
            first,
        )
        for position, catalogue in enumerate(world.catalogues)
    )
    return Block(first, interests, weights, behaviours)


def _draw_interests(
    rng: np.random.Generator, config: SynthesizeConfig, topics: Topics
) -> tuple[np.ndarray, np.ndarray]:
    months, held = num_months(config), config.interests_per_user
    home = topics.domain[rng.choice(len(topics), size=BLOCK_USERS, p=topics.popularity)]
    score = np.log(topics.popularity) + HOME_DOMAIN_BONUS * (topics.domain == home[:, None])
    # Gumbel noise: the order of noisy scores is a draw without replacement. The first topics are
    # the interests at the start, the next ones wait to replace them.
    queue = np.argsort(-(score + rng.gumbel(size=score.shape)), axis=1)[:, : held + months - 1]
    queue = queue.astype(np.int32)
    interests = np.empty((BLOCK_USERS, months, held), np.int32)
    interests[:, 0] = queue[:, :held]
    replaced = rng.random((BLOCK_USERS, months - 1)) < config.drift
    slot = rng.integers(held, size=(BLOCK_USERS, months - 1))
    arrival = (held + np.cumsum(replaced, axis=1) - 1) % queue.shape[1]
    users = np.arange(BLOCK_USERS)
    for month in range(1, months):
        interests[:, month] = interests[:, month - 1]
        who = users[replaced[:, month - 1]]
        newcomer = queue[who, arrival[who, month - 1]]
        interests[who, month, slot[who, month - 1]] = newcomer
    steps = rng.normal(0.0, WEIGHT_DRIFT, size=(BLOCK_USERS, months, held))
    steps[:, 0] = 0.0
    start = rng.gamma(2.0, size=(BLOCK_USERS, 1, held))
    weights = start * np.exp(np.cumsum(steps, axis=1))
    return interests, (weights / weights.sum(axis=2, keepdims=True)).astype(np.float32)


def _draw_lengths(rng: np.random.Generator, config: SynthesizeConfig) -> np.ndarray:
    """Behaviours per user and service; zero where the service is never used, never everywhere."""
    shape = (BLOCK_USERS, len(config.services))
    # Half of the spread is the person, who is busy everywhere, half the service.
    spread = (rng.normal(size=(BLOCK_USERS, 1)) + rng.normal(size=shape)) / np.sqrt(2.0)
    sigma = config.behaviours_sigma
    length = config.mean_behaviours * np.exp(sigma * spread - sigma**2 / 2)
    length = np.maximum(1, np.rint(length)).astype(np.int64)
    present = rng.random(shape) >= config.missing_service
    kept = rng.integers(shape[1], size=BLOCK_USERS)
    lost = ~present.any(axis=1)
    present[lost, kept[lost]] = True
    return length * present


def _behave(
    rng: np.random.Generator,
    config: SynthesizeConfig,
    topics: Topics,
    catalogue: Catalogue,
    interests: np.ndarray,
    weights: np.ndarray,
    length: np.ndarray,
    first: int,
) -> Behaviours:
    count = int(length.sum())
    span = config.num_days * DAY_SECONDS
    # People are awake in the evening more than at night.
    clock = rng.normal(19.0, 4.5, size=count) % 24.0 * 3600
    second = rng.integers(config.num_days, size=count) * DAY_SECONDS + clock.astype(np.int64)
    # One integer sort orders by user and, within a user, by time.
    ordered = np.sort(np.repeat(np.arange(BLOCK_USERS), length) * span + second)
    user, second = np.divmod(ordered, span)
    month = second // (MONTH_DAYS * DAY_SECONDS)
    running = np.cumsum(weights[user, month], axis=1)
    interest = (rng.random((count, 1)) * running[:, -1:] >= running[:, :-1]).sum(axis=1)
    topic = interests[user, month, interest]
    stray = np.flatnonzero(rng.random(count) < config.noise)
    topic[stray] = rng.choice(len(topics), size=len(stray), p=topics.popularity)
    item = catalogue.draw(topic, rng.random(count))
    item = item[_repeats(rng, length, config.repeat)]
    return Behaviours(user + first, second + first_second(config), item)


def _repeats(rng: np.random.Generator, length: np.ndarray, chance: float) -> np.ndarray:
    """For each behaviour the one whose item it takes: itself, or an earlier one of the user."""
    count = int(length.sum())
    start = np.repeat(np.cumsum(length) - length, length)
    position = np.arange(count)
    earlier = start + (rng.random(count) * (position - start)).astype(np.int64)
    source = np.where(rng.random(count) < chance, earlier, position)
    # A repeat may repeat a repeat: follow the chain until nothing moves.
    while not np.array_equal(source, source[source]):
        source = source[source]
    return source


def first_second(config: SynthesizeConfig) -> int:
    """Epoch seconds of midnight UTC on the first day."""
    day = datetime.date.fromisoformat(config.first_day)
    return (day - datetime.date(1970, 1, 1)).days * DAY_SECONDS
