"""The synthetic world that all users live in: a topic tree and each service's catalogue of items.

Domains hold categories, categories hold leaf topics. Every service sells, shows or answers the same
leaf topics with items, words, brands and prices of its own; inside a topic, popularity of items
follows Zipf's law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.config import SynthesizeConfig
from clue_jax.data import synthetic_text

LEAVES_PER_CATEGORY = 4
CATEGORIES_PER_DOMAIN = 4
TOPIC_EXPONENT = 0.5  # popularity of topics falls off slower than that of items


@dataclass(frozen=True)
class Topics:
    """The tree, from its leaves up."""

    category: np.ndarray  # [topics] int32
    domain: np.ndarray  # [topics] int32
    popularity: np.ndarray  # [topics] float64, sums to 1

    def __len__(self) -> int:
        return len(self.category)


@dataclass(frozen=True)
class Catalogue:
    """Items of one service, ordered by topic and, inside a topic, by falling popularity."""

    service: str
    item_ids: list[str]  # [I]
    titles: list[str]
    brands: list[str]
    categories: list[str]
    prices: np.ndarray  # [I] float64
    topic: np.ndarray  # [I] int32
    popularity: np.ndarray  # [I] float64, sums to 1 inside each topic
    cumulative: np.ndarray  # [I] float64: topic + cumulative popularity inside it, so increasing
    last: np.ndarray  # [topics] int64, position of a topic's least popular item

    def draw(self, topic_M: np.ndarray, uniform_M: np.ndarray) -> np.ndarray:
        """Items [M] int64 of the given topics, by popularity; `uniform_M` in [0, 1)."""
        found = np.searchsorted(self.cumulative, topic_M + uniform_M, side="right")
        # Rounding of topic + uniform must not slip into the next topic.
        return np.minimum(found, self.last[topic_M])


@dataclass(frozen=True)
class World:
    topics: Topics
    catalogues: tuple[Catalogue, ...]  # in the order of the services


def stream(config: SynthesizeConfig, *purpose: int) -> np.random.Generator:
    """Random numbers of a company, for one purpose alone."""
    own = (config.company,) if config.company else ()
    return np.random.default_rng([config.seed, *purpose, *own])


def build_world(config: SynthesizeConfig) -> World:
    """The world of a config: a function of its seed, services and sizes, not of its users.

    Companies of one seed share topics and vocabularies; each has a catalogue of its own.
    """
    rng = np.random.default_rng([config.seed, 0])
    topics = _grow_topics(rng, config.num_topics)
    vocabularies = synthetic_text.invent_vocabularies(
        rng,
        len(config.services),
        len(topics),
        int(topics.category[-1]) + 1,
        int(topics.domain[-1]) + 1,
    )
    goods = stream(config, 0) if config.company else rng
    catalogues = tuple(
        _stock(goods, service, vocabulary, topics, config)
        for service, vocabulary in zip(config.services, vocabularies, strict=True)
    )
    return World(topics, catalogues)


def _grow_topics(rng: np.random.Generator, count: int) -> Topics:
    leaf = np.arange(count, dtype=np.int32)
    category = leaf // LEAVES_PER_CATEGORY
    popularity = (1.0 + rng.permutation(count)) ** -TOPIC_EXPONENT
    return Topics(category, category // CATEGORIES_PER_DOMAIN, popularity / popularity.sum())


def _stock(
    rng: np.random.Generator,
    service: str,
    vocabulary: synthetic_text.Vocabulary,
    topics: Topics,
    config: SynthesizeConfig,
) -> Catalogue:
    count = config.items_per_service
    # One item for every topic, the rest by popularity of the topic.
    topic = np.sort(
        np.concatenate(
            [
                np.arange(len(topics)),
                rng.choice(len(topics), size=count - len(topics), p=topics.popularity),
            ]
        )
    ).astype(np.int32)
    category, domain = topics.category[topic], topics.domain[topic]
    popularity, cumulative = _zipf(topic, len(topics), config.zipf_exponent)
    brand = (rng.random(count) ** 2 * synthetic_text.BRANDS).astype(np.int64)
    category_median = np.exp(rng.normal(3.0, 0.8, size=len(vocabulary.category)))
    brand_tier = np.exp(rng.normal(0.0, 0.3, size=vocabulary.brands.shape))
    price = category_median[category] * brand_tier[category, brand]
    price = price * np.exp(rng.normal(0.0, 0.4, size=count))
    # A department's name: the service's first words for the domain and the category.
    departments = zip(vocabulary.domain[domain, 0], vocabulary.category[category, 0], strict=True)
    return Catalogue(
        service=service,
        # A stable identity that says nothing about topic or popularity.
        item_ids=[f"{service}-{number:07d}" for number in rng.permutation(count)],
        titles=synthetic_text.write_titles(rng, vocabulary, topic, category, domain),
        brands=vocabulary.brands[category, brand].tolist(),
        categories=[f"{upper} {lower}" for upper, lower in departments],
        prices=np.round(price, 2),
        topic=topic,
        popularity=popularity,
        cumulative=cumulative,
        last=np.searchsorted(topic, np.arange(len(topics)), side="right") - 1,
    )


def _zipf(topic: np.ndarray, topics: int, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """Popularity inside each topic and its running sum, shifted by the topic's number."""
    counts = np.bincount(topic, minlength=topics)
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(topic)) - starts[topic]
    weight = (1.0 + rank) ** -exponent
    popularity = weight / np.bincount(topic, weights=weight)[topic]
    running = np.cumsum(popularity)
    running = running - (running[starts] - popularity[starts])[topic]
    return popularity, topic + np.minimum(running, 1.0)
