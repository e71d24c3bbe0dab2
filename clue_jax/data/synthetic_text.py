"""Wording of the synthetic services: each names the same topic with words of its own.

Invented, pronounceable words stand for a service's vocabulary; no word belongs to two services.
A few generic English words are common to all and lean, weakly, to some topics, so that matching by
word overlap (TF-IDF) is above chance and far below what a learned encoder reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ONSETS = "b c d f g h j k l m n p r s t v z br st tr".split()
VOWELS = "aeiouy"
CODAS = ("", "l", "m", "n", "r", "s", "t", "x")
# Two syllables while they are plenty, three beyond that.
TWO_SYLLABLES = (len(ONSETS) * len(VOWELS)) ** 2 * len(CODAS)
THREE_SYLLABLES = TWO_SYLLABLES * len(ONSETS) * len(VOWELS)

SHARED_WORDS = tuple(
    "best classic compact complete daily double easy extra family fresh garden gift guide home"
    " light live local mini modern natural original outdoor pack premium quick review sale set"
    " simple small soft special spring starter summer travel ultra vintage weekend winter".split()
)

LEAF_WORDS = 12  # words a service has for one leaf topic
CATEGORY_WORDS = 5
DOMAIN_WORDS = 4
FILLER_WORDS = 30  # words of a service that say nothing about the topic
BRANDS = 6  # brands of a service in one category
SHARED_LEAN = 2  # shared words that a leaf topic leans to, the same in every service

# What a word of a title comes from, and how often.
WORD_KINDS = ("leaf", "category", "domain", "filler", "shared")
WORD_CHANCES = (0.45, 0.20, 0.08, 0.24, 0.03)
TITLE_WORDS = (3, 6)  # shortest and longest title


@dataclass(frozen=True)
class Vocabulary:
    """The words of one service, by level of the topic tree."""

    leaf: np.ndarray  # [topics, LEAF_WORDS] str
    category: np.ndarray  # [categories, CATEGORY_WORDS] str
    domain: np.ndarray  # [domains, DOMAIN_WORDS] str
    filler: np.ndarray  # [FILLER_WORDS] str
    brands: np.ndarray  # [categories, BRANDS] str
    shared: np.ndarray  # [topics, SHARED_LEAN] str, equal in every service


def invent_words(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws `count` distinct pronounceable words, none of them a shared one; [count] str."""
    syllables = 2 if 4 * count < TWO_SYLLABLES else 3
    space = TWO_SYLLABLES if syllables == 2 else THREE_SYLLABLES
    numbers = rng.choice(space, size=count + len(SHARED_WORDS), replace=False)
    words = (_spell(int(number), syllables) for number in numbers)
    return np.array([word for word in words if word not in SHARED_WORDS][:count])


def _spell(number: int, syllables: int) -> str:
    number, coda = divmod(number, len(CODAS))
    spelled = CODAS[coda]
    for _ in range(syllables):
        number, onset = divmod(number, len(ONSETS))
        number, vowel = divmod(number, len(VOWELS))
        spelled = ONSETS[onset] + VOWELS[vowel] + spelled
    return spelled


def invent_vocabularies(
    rng: np.random.Generator, services: int, topics: int, categories: int, domains: int
) -> list[Vocabulary]:
    """One vocabulary per service over a tree of `topics` leaves; invented words never repeat."""
    shapes = {
        "leaf": (topics, LEAF_WORDS),
        "category": (categories, CATEGORY_WORDS),
        "domain": (domains, DOMAIN_WORDS),
        "filler": (FILLER_WORDS,),
        "brands": (categories, BRANDS),
    }
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    words = invent_words(rng, services * sum(sizes)).reshape(services, -1)
    shared = np.array(SHARED_WORDS)[rng.integers(len(SHARED_WORDS), size=(topics, SHARED_LEAN))]
    return [
        Vocabulary(
            **{
                name: part.reshape(shape)
                for (name, shape), part in zip(
                    shapes.items(), np.split(row, np.cumsum(sizes)[:-1]), strict=True
                )
            },
            shared=shared,
        )
        for row in words
    ]


def write_titles(
    rng: np.random.Generator,
    vocabulary: Vocabulary,
    topic_I: np.ndarray,
    category_I: np.ndarray,
    domain_I: np.ndarray,
) -> list[str]:
    """A title for each item from its topic's words; the first word always names the leaf topic."""
    longest = TITLE_WORDS[1]
    shape = (len(topic_I), longest)
    kinds = rng.choice(len(WORD_KINDS), size=shape, p=WORD_CHANCES)
    kinds[:, 0] = 0
    draw = rng.random(shape)

    def words(table: np.ndarray, rows_I: np.ndarray | None = None) -> np.ndarray:
        column = (draw * table.shape[-1]).astype(np.int64)
        return table[column] if rows_I is None else table[rows_I[:, None], column]

    chosen = np.select(
        [kinds == kind for kind in range(len(WORD_KINDS))],
        [
            words(vocabulary.leaf, topic_I),
            words(vocabulary.category, category_I),
            words(vocabulary.domain, domain_I),
            words(vocabulary.filler),
            words(vocabulary.shared, topic_I),
        ],
        default="",
    )
    lengths = rng.integers(TITLE_WORDS[0], longest + 1, size=len(topic_I))
    return [
        " ".join(dict.fromkeys(row[:length]))  # no word twice
        for row, length in zip(chosen.tolist(), lengths.tolist(), strict=True)
    ]
