"""An impression log of synthetic users: which advertisement was shown, and was it clicked.

A logging policy draws the advertisement and notes the probability with which it did (its
propensity); the position is drawn evenly, apart from it. Whoever looks at the position clicks with
a probability that depends on their interests, so that

    P(click) = P(looks | position) * P(clicks | user, advertisement).

The stated policy is one that knows the users. Its true lift, in expected clicks over those of the
logging policy for the same visits, is what estimates from the log should find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.config import SynthesizeConfig
from clue_jax.data.synthetic_labels import (
    cutoff_second,
    interest_mass,
    label_month,
    logistic,
)
from clue_jax.data.synthetic_users import MONTH_DAYS, Block
from clue_jax.data.synthetic_world import Topics, World, stream
from clue_jax.data.timestamps import DAY_SECONDS

ADVERTISEMENTS = 12  # at most, one a leaf topic
LOOKS = (1.0, 0.7, 0.5, 0.35)  # chance that a position is looked at
MEAN_VISITS = 8.0
CLICK_LOGITS = (-3.0, 4.0, 2.0)  # without interest, for all of it in the topic, in the category
UNIFORM_SHARE = 0.4  # of the logging policy; no propensity is below its part of this
STATED_SHARPNESS = 1.5  # of the stated policy over the true logits
STATED_UNIFORM = 0.1


@dataclass(frozen=True)
class Advertisements:
    """What can be shown, and how the logging policy shows it."""

    topic: np.ndarray  # [A] leaf topic
    quality: np.ndarray  # [A] added to the logit of a click
    logged: np.ndarray  # [A] probabilities of the logging policy


@dataclass(frozen=True)
class Impressions:
    """Visits of a block of users, by user; M visits and A advertisements."""

    user: np.ndarray  # [M] number of the user in the population
    seconds: np.ndarray  # [M] since the epoch
    advertisement: np.ndarray  # [M]
    position: np.ndarray  # [M] from 1
    propensity: np.ndarray  # [M] with which the logging policy showed it
    click: np.ndarray  # [M] bool
    true_clicks: np.ndarray  # [users, A] P(click), mean over positions
    stated: np.ndarray  # [users, A] probabilities of the stated policy


def place_advertisements(config: SynthesizeConfig, topics: Topics) -> Advertisements:
    """The advertisements of a world."""
    rng = stream(config, 3, 2)
    count = min(ADVERTISEMENTS, len(topics))
    topic = rng.choice(len(topics), size=count, replace=False, p=topics.popularity)
    favoured = np.exp(rng.normal(0.0, 0.7, size=count))
    logged = (1 - UNIFORM_SHARE) * favoured / favoured.sum() + UNIFORM_SHARE / count
    return Advertisements(topic, rng.normal(0.0, 0.4, size=count), logged)


def show(config: SynthesizeConfig, world: World, ads: Advertisements, block: Block) -> Impressions:
    """Draws the visits of a block of users in the month of the labels."""
    rng = stream(config, 5, block.first)
    logits = _logits(config, world.topics, ads, block)
    visits = rng.poisson(MEAN_VISITS, size=len(logits))
    rows, count = np.repeat(np.arange(len(logits)), visits), int(visits.sum())
    seconds = np.sort(rows * MONTH_DAYS * DAY_SECONDS + _moments(rng, count))
    seconds = cutoff_second(config) + seconds - rows * MONTH_DAYS * DAY_SECONDS
    advertisement = rng.choice(len(ads.topic), size=count, p=ads.logged)
    position = rng.integers(len(LOOKS), size=count)
    chance = np.array(LOOKS)[position] * logistic(logits[rows, advertisement])
    sharp = np.exp(STATED_SHARPNESS * (logits - logits.max(axis=1, keepdims=True)))
    stated = (1 - STATED_UNIFORM) * sharp / sharp.sum(axis=1, keepdims=True)
    return Impressions(
        user=rows + block.first,
        seconds=seconds,
        advertisement=advertisement,
        position=position + 1,
        propensity=ads.logged[advertisement],
        click=rng.random(count) < chance,
        true_clicks=float(np.mean(LOOKS)) * logistic(logits),
        stated=stated + STATED_UNIFORM / len(ads.topic),
    )


def _logits(
    config: SynthesizeConfig, topics: Topics, ads: Advertisements, block: Block
) -> np.ndarray:
    """Of a click on what is looked at, [users, A]."""
    mass = interest_mass(config, topics, block, label_month(config))
    same_category = topics.category[:, None] == topics.category[ads.topic]
    base, for_topic, for_category = CLICK_LOGITS
    of_category = mass @ same_category.astype(np.float64)
    return base + ads.quality + for_topic * mass[:, ads.topic] + for_category * of_category


def _moments(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(MONTH_DAYS * DAY_SECONDS, size=count)
