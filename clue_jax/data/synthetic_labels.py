"""Labels of synthetic users, caused by their interests in the month after the cutoff.

    subscribes   binary: a logistic function of how much the interests lean to some topics
    segment      binary: whether a campaign for one category reaches the user
    favourite    multi-class: the category of most interest, with noise
    spend        regression: logarithm of money spent, linear in the interests, with noise
    next_item    the first behaviour on one service from the cutoff on

Each label comes with what nobody can do better than: the probability, mean or order of items it was
drawn from (column `best`). Labels depend on the seed and the user's number only, as the logs do,
and use random streams of their own, so that the logs are the same with and without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.config import SynthesizeConfig
from clue_jax.data.synthetic_users import (
    MONTH_DAYS,
    Behaviours,
    Block,
    first_second,
)
from clue_jax.data.synthetic_world import Catalogue, Topics, World, stream
from clue_jax.data.timestamps import DAY_SECONDS

SUBSCRIBE_LOGITS = (-0.8, 2.5)  # at no leaning, and for each unit of it
SEGMENT_CHANCES = (0.02, 0.9)  # without interest in the campaign's category, and for all of it
FAVOURITE_NOISE = 0.1  # chance that the favourite is drawn by popularity
SPEND_MEAN, SPEND_SLOPE, SPEND_NOISE = 3.0, 0.8, 0.5  # of the natural logarithm
BEST_ITEMS = 20  # items of the best order that are kept


@dataclass(frozen=True)
class Tastes:
    """What labels depend on; the same for everybody, a function of the seed.

    Leanings have mean 0 and variance 1 over the topics' popularity.
    """

    subscribe: np.ndarray  # [topics]
    spend: np.ndarray  # [topics]
    campaign: int  # a category


@dataclass(frozen=True)
class Labels:
    """Labels of a block of users with what they were drawn from."""

    seconds: np.ndarray  # [users, 4] int64, when each of the first four labels was known
    subscribes: np.ndarray  # [users] bool
    subscribes_best: np.ndarray  # [users] probability
    segment: np.ndarray  # [users] bool
    segment_best: np.ndarray  # [users] probability
    favourite: np.ndarray  # [users] category
    favourite_best: np.ndarray  # [users, categories] probabilities
    spend: np.ndarray  # [users]
    spend_best: np.ndarray  # [users] mean


@dataclass(frozen=True)
class NextItems:
    """The first behaviour from the cutoff on, of the users who have one."""

    user: np.ndarray  # [n] number of the user in the population
    seconds: np.ndarray  # [n] since the epoch
    item: np.ndarray  # [n] position in the service's catalogue
    best: np.ndarray  # [n, BEST_ITEMS] the most probable items, the first one first
    chances: np.ndarray  # [n, BEST_ITEMS] their probabilities


def label_month(config: SynthesizeConfig) -> int:
    """The month that labels are about: the last whole one; 0 or less: too short for labels."""
    return config.num_days // MONTH_DAYS - 1


def cutoff_second(config: SynthesizeConfig) -> int:
    """Epoch seconds from which on nothing may be seen by what predicts the labels."""
    return first_second(config) + label_month(config) * MONTH_DAYS * DAY_SECONDS


def label_service(config: SynthesizeConfig) -> int:
    """Position of the service whose next item is a label: the second one, where there are two."""
    return min(1, len(config.services) - 1)


def draw_tastes(config: SynthesizeConfig, topics: Topics) -> Tastes:
    """The leanings of all topics."""
    rng = stream(config, 3, 1)
    chances = np.bincount(topics.category, weights=topics.popularity)
    campaign = int(rng.choice(len(chances), p=chances))
    return Tastes(_leaning(rng, topics), _leaning(rng, topics), campaign)


def interest_mass(config: SynthesizeConfig, topics: Topics, block: Block, month: int) -> np.ndarray:
    """Share of each topic in the interests of a month, [users, topics]."""
    users = len(block.interests)
    mass = np.zeros((users, len(topics)))
    rows = np.repeat(np.arange(users), config.interests_per_user)
    weights = block.weights[:, month].astype(np.float64)
    np.add.at(mass, (rows, block.interests[:, month].ravel()), weights.ravel())
    return mass


def label_block(config: SynthesizeConfig, world: World, tastes: Tastes, block: Block) -> Labels:
    """Draws the labels of a block; the world must have a month for them, see `label_month`."""
    rng = stream(config, 4, block.first)
    topics = world.topics
    mass = interest_mass(config, topics, block, label_month(config))
    users, categories = len(mass), int(topics.category[-1]) + 1
    # Sums over the leaves of each category.
    of_category = np.add.reduceat(mass, _starts(topics.category), axis=1)
    popularity = np.bincount(topics.category, weights=topics.popularity)
    seconds = cutoff_second(config) + rng.integers(MONTH_DAYS * DAY_SECONDS, size=(users, 4))

    subscribes_best = logistic(
        SUBSCRIBE_LOGITS[0] + SUBSCRIBE_LOGITS[1] * (mass @ tastes.subscribe)
    )
    segment_best = SEGMENT_CHANCES[0] + SEGMENT_CHANCES[1] * of_category[:, tastes.campaign]
    squares = of_category**2
    favourite_best = (1 - FAVOURITE_NOISE) * squares / squares.sum(axis=1, keepdims=True)
    favourite_best += FAVOURITE_NOISE * popularity
    spend_best = SPEND_MEAN + SPEND_SLOPE * (mass @ tastes.spend)
    drawn = rng.random((users, 3))
    below = np.cumsum(favourite_best, axis=1) <= drawn[:, 2:]
    return Labels(
        seconds=seconds,
        subscribes=drawn[:, 0] < subscribes_best,
        subscribes_best=subscribes_best,
        segment=drawn[:, 1] < segment_best,
        segment_best=segment_best,
        favourite=np.minimum(below.sum(axis=1), categories - 1),
        favourite_best=favourite_best,
        spend=spend_best + rng.normal(0.0, SPEND_NOISE, size=users),
        spend_best=spend_best,
    )


def next_items(config: SynthesizeConfig, world: World, block: Block) -> NextItems:
    """The next item of each user who has one, and the items that were most probable."""
    position = label_service(config)
    behaviours, catalogue = block.behaviours[position], world.catalogues[position]
    late = np.flatnonzero(behaviours.seconds >= cutoff_second(config))
    # Behaviours are by user and oldest first: the first late one of each user.
    user, first = np.unique(behaviours.user[late], return_index=True)
    chosen = late[first]
    number = user - block.first
    start = np.searchsorted(behaviours.user, user)
    month = (behaviours.seconds[chosen] - first_second(config)) // (MONTH_DAYS * DAY_SECONDS)
    kept = min(BEST_ITEMS, len(catalogue.topic))
    best, chances = np.zeros((len(user), kept), np.int64), np.zeros((len(user), kept))
    for m in np.unique(month):
        mass = interest_mass(config, world.topics, block, int(m))
        rows = np.flatnonzero(month == m)
        fresh = _fresh_chances(config, world.topics, catalogue, mass[number[rows]])
        p = _with_repeats(config, behaviours, fresh, start[rows], chosen[rows])
        top = np.argpartition(-p, kept - 1, axis=1)[:, :kept]
        order = np.argsort(-np.take_along_axis(p, top, axis=1), axis=1, kind="stable")
        best[rows] = np.take_along_axis(top, order, axis=1)
        chances[rows] = np.take_along_axis(p, best[rows], axis=1)
    return NextItems(user, behaviours.seconds[chosen], behaviours.item[chosen], best, chances)


def logistic(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit))."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def _leaning(rng: np.random.Generator, topics: Topics) -> np.ndarray:
    """Random, alike for the leaves of a category."""
    category = rng.normal(size=int(topics.category[-1]) + 1)[topics.category]
    leaf = rng.normal(size=len(topics))
    raw = 0.8 * category + 0.6 * leaf
    raw = raw - topics.popularity @ raw
    return raw / np.sqrt(topics.popularity @ raw**2)


def _starts(sorted_values: np.ndarray) -> np.ndarray:
    return np.searchsorted(sorted_values, np.arange(int(sorted_values[-1]) + 1))


def _fresh_chances(
    config: SynthesizeConfig, topics: Topics, catalogue: Catalogue, mass: np.ndarray
) -> np.ndarray:
    """Probability of each item for a behaviour that repeats none, [n, items]."""
    of_topic = (1 - config.noise) * mass + config.noise * topics.popularity
    return of_topic[:, catalogue.topic] * catalogue.popularity


def _with_repeats(
    config: SynthesizeConfig,
    behaviours: Behaviours,
    fresh: np.ndarray,
    start: np.ndarray,
    chosen: np.ndarray,
) -> np.ndarray:
    """Probability of each item where earlier behaviours of the user may be repeated."""
    earlier = chosen - start
    p = fresh * np.where(earlier > 0, 1 - config.repeat, 1.0)[:, None]
    rows = np.repeat(np.arange(len(chosen)), earlier)
    inside = np.arange(earlier.sum()) - np.repeat(np.cumsum(earlier) - earlier, earlier)
    items = behaviours.item[np.repeat(start, earlier) + inside]
    np.add.at(p, (rows, items), config.repeat / np.maximum(earlier, 1)[rows])
    return p
