"""Expected hits in galleries, links, and statistics of ranks against plain computations."""

import numpy as np
import pytest

from clue_jax.evaluation.linkage import chance, gallery_hits, mutual_links, score_links
from clue_jax.evaluation.scores import Found
from clue_jax.ranking import hits_at
from tests.embeddings.exports import unit


@pytest.mark.parametrize("k", [1, 3])
def test_hits_in_a_gallery_are_those_of_galleries_that_are_drawn(k):
    people, size, rank = 12, 5, 4
    rng = np.random.default_rng(0)
    nearer = np.array(
        [(rng.permutation(people - 1)[: size - 1] < rank - 1).sum() for _ in range(20_000)]
    )
    found = gallery_hits(np.array([float(rank)]), k, people, size)
    assert found == pytest.approx((nearer < k).mean(), abs=0.01)


def test_the_gallery_of_everybody_is_the_ranking_itself():
    ranks = np.array([[1.0, 1.5, 2.0], [10.0, 10.5, 30.0]])
    for k in (1, 10):
        np.testing.assert_allclose(
            gallery_hits(ranks, k, 30, 30), hits_at(ranks.ravel(), k).reshape(2, 3), atol=1e-12
        )
    # A rank of its own at random: whatever the people, a gallery of m is hit with k / m.
    assert gallery_hits(np.arange(1.0, 31.0), 3, 30, 6).mean() == pytest.approx(3 / 6)


def test_statistics_of_weighted_people_are_those_of_repeated_ones():
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 30, (2, 9)).astype(float)
    linked, right = np.array([1.0] * 6 + [0.0] * 3), np.array([1.0, 0.0] * 3 + [0.0] * 3)
    weights = rng.integers(1, 4, 9)
    scored = score_links(ranks, linked, right)
    found = dict(zip(scored.metrics, scored.statistic(weights[None].astype(float))[0], strict=True))
    many = np.repeat(np.arange(9), weights)
    assert found["recall_at_10"] == pytest.approx((ranks[:, many] <= 10).mean())
    middle = np.sort(ranks[:, many].ravel())
    assert found["median_rank"] == middle[len(many) - 1]
    assert found["linked_share"] == pytest.approx(linked[many].mean())
    assert found["link_precision"] == pytest.approx(right[many].sum() / linked[many].sum())
    assert score_links(ranks).metrics == ("recall_at_1", "recall_at_10", "median_rank")
    assert set(chance(9)) < set(scored.metrics)


def test_links_are_mutual_nearest_neighbours():
    first = unit(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]]))
    second = unit(np.array([[0.0, 1.0], [0.9, 0.11], [1.0, 0.01], [-1.0, 0.1]]))
    linked, right = mutual_links(first, second, seed=0)
    np.testing.assert_array_equal(linked, [1, 1, 1, 1])
    np.testing.assert_array_equal(right, [0, 1, 0, 1])
    linked, _ = mutual_links(first, np.roll(second, 1, axis=0) * [1, 0], seed=0)
    assert linked.sum() < 4


def test_equal_cosines_do_not_tell_by_their_order():
    same = np.ones((50, 4)) / 2
    rights = [mutual_links(same, same, seed)[1].sum() for seed in range(40)]
    assert np.mean(rights) < 0.2


def test_the_share_that_is_found_at_a_rate_of_false_alarms():
    label = np.array([1, 1, 0, 1, 0, 0, 0, 1.0])
    score = np.array([9, 8, 7, 6, 5, 4, 3, 2.0])
    ones = np.ones((1, 8))
    for rate, share in ((0.0, 0.5), (0.25, 0.75), (0.5, 0.75), (1.0, 1.0)):
        assert Found(label, score, rate)(ones) == pytest.approx(share)
    # Ties share what is allowed; without a tie half a false alarm finds no more than none.
    assert Found(label, np.zeros(8), 0.25)(ones) == pytest.approx(0.25)
    assert Found(label, score, 0.125)(ones) == pytest.approx(0.5)
    assert np.isnan(Found(label, score, 0.1)(np.array([label, 1 - label]))).all()
