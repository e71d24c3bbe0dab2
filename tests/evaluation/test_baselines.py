"""TF-IDF against a few lines of plain Python, and chance against simulation."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from clue_jax.data.items import ItemTable
from clue_jax.data.ragged import offsets_of
from clue_jax.data.records import Users
from clue_jax.evaluation.baselines import chance, tfidf, word_counts
from clue_jax.ranking import mrr, ranks_of, recall_at

TEXTS = [
    "Red WOOL, 50g",
    "wool needles",
    "paper & a pen",
    "",
    "É-mail pen_case",
    "red red pen",
    "one glue",
]


def some_users(histories, services=("art", "office")):
    """Users from [user][service] -> positions in TEXTS."""
    own = [sorted({i for service in user for i in service}) for user in histories]
    flat = [
        items.index(i) for user, items in zip(histories, own, strict=True) for s in user for i in s
    ]
    return Users(
        user_ids=np.array([f"u{n}" for n in range(len(histories))], object),
        services=services,
        item_ids=np.array([10 * i for items in own for i in items], np.uint64),
        item_offsets=offsets_of(np.array([len(items) for items in own])),
        tokens=np.zeros(sum(map(len, own)), np.int32),
        token_offsets=np.arange(sum(map(len, own)) + 1),
        behaviour_items=np.array(flat, np.int32),
        behaviour_times=np.arange(len(flat)),
        behaviour_offsets=offsets_of(np.array([len(s) for user in histories for s in user])),
    )


ITEMS = ItemTable(
    np.arange(len(TEXTS), dtype=np.uint64) * np.uint64(10),
    np.array(["art"] * len(TEXTS), object),
    np.array([""] * len(TEXTS), object),
    np.array(TEXTS, object),
)
HISTORIES = [
    [[0, 1, 0], [2]],
    [[1, 6], [5, 4]],
    [[], [0, 3]],
    [[3], [2, 2, 2]],
    [[4, 2], []],
]


def reference_cosines(histories):
    """TfidfVectorizer's definition, document by document: queries then candidates."""
    documents = [
        Counter(re.findall(r"(?u)\b\w\w+\b", " ".join(TEXTS[i] for i in user[s]).lower()))
        for s in (0, 1)
        for user in histories
    ]
    frequency = Counter(word for document in documents for word in document)
    vectors = []
    for document in documents:
        vector = {
            word: (1 + math.log(n)) * (1 + math.log((1 + len(documents)) / (1 + frequency[word])))
            for word, n in document.items()
            if frequency[word] >= 2
        }
        length = math.sqrt(sum(v * v for v in vector.values())) or 1.0
        vectors.append({word: v / length for word, v in vector.items()})
    half = len(histories)
    return [
        [sum(v * c.get(word, 0.0) for word, v in q.items()) for c in vectors[half:]]
        for q in vectors[:half]
    ]


def test_cosines_equal_plain_python():
    queries, candidates = tfidf(word_counts(some_users(HISTORIES), ITEMS))
    expected = np.array(reference_cosines(HISTORIES))
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_allclose((queries @ candidates.T).toarray(), expected, atol=1e-12)


def test_repeated_behaviours_count_and_order_does_not():
    counts = word_counts(some_users(HISTORIES), ITEMS)
    assert counts[0].sum(axis=1).tolist() == [3 + 2 + 3, 2 + 2, 0, 0, 2 + 2]
    other = word_counts(some_users([[[1, 0, 0], [2]], *HISTORIES[1:]]), ITEMS)
    assert (counts[0] != other[0]).nnz == 0


def test_documents_without_a_shared_word_tie_everywhere():
    queries, candidates = tfidf(word_counts(some_users(HISTORIES), ITEMS))
    scores = (queries @ candidates.T).toarray()
    assert not scores[2].any()
    assert ranks_of(scores, np.arange(5))[2] == 3.0  # the middle of five


@pytest.mark.parametrize("candidates", [1, 7, 40])
def test_chance_is_what_random_orders_give(candidates):
    expected = chance(candidates)
    rng = np.random.default_rng(0)
    found = ranks_of(rng.random((20_000, candidates)), np.zeros(20_000, int))
    assert recall_at(found, 1) == pytest.approx(expected["recall_at_1"], abs=0.01)
    assert recall_at(found, 10) == pytest.approx(expected["recall_at_10"], abs=0.02)
    assert mrr(found) == pytest.approx(expected["mrr"], abs=0.01)
