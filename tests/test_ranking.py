"""Ranks and metrics against brute force; ties, NaN and odd k."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clue_jax.errors import ConfigError, DataError, NonFiniteError
from clue_jax.ranking import (
    hits_at,
    matching_ranks,
    mrr,
    ndcg_at,
    ranks_of,
    recall_at,
    tiled_ranks,
)


def brute_force(scores, target):
    """1 + strictly better + half of the other ties, one comparison at a time."""
    result = []
    for row, right in zip(scores, target, strict=True):
        rank = 1.0
        for candidate, score in enumerate(row):
            if candidate != right:
                rank += 1.0 if score > row[right] else 0.5 if score == row[right] else 0.0
        result.append(rank)
    return result


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_ranks_equal_brute_force(queries, candidates, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (queries, candidates)).astype(float)  # many ties
    target = rng.integers(0, candidates, queries)
    assert ranks_of(scores, target).tolist() == brute_force(scores, target)


@pytest.mark.parametrize("tile", [1, 3, 7, 100])
def test_matching_does_not_depend_on_tiles(tile):
    rng = np.random.default_rng(0)
    queries, candidates = rng.integers(-2, 3, (2, 23, 3)).astype(np.float32)
    expected = brute_force(queries @ candidates.T, range(23))
    assert matching_ranks(queries, candidates, tile=tile).tolist() == expected


def test_a_collapsed_encoder_earns_the_rank_of_a_coin():
    # 1,037 columns and 77 terms make BLAS use different kernels at the edge of the matrix.
    vector = np.random.default_rng(1).normal(size=77).astype(np.float32)
    same = np.tile(vector, (1037, 1))
    assert np.all(matching_ranks(same, same, tile=500) == (1037 + 1) / 2)
    assert recall_at(matching_ranks(same, same), 10) == 0.0


def test_the_best_and_the_worst():
    eye = np.eye(5)
    assert matching_ranks(eye, eye).tolist() == [1.0] * 5
    assert matching_ranks(eye, -eye).tolist() == [5.0] * 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused_by_row(bad):
    scores = np.zeros((4, 3))
    assert len(ranks_of(scores, np.zeros(4, int))) == 4  # control
    scores[2, 1] = bad
    with pytest.raises(NonFiniteError, match="query row 2"):
        ranks_of(scores, np.zeros(4, int))
    with pytest.raises(NonFiniteError, match="query row 2"):
        matching_ranks(scores, np.zeros((4, 3)))
    with pytest.raises(NonFiniteError, match="candidate row 2"):
        matching_ranks(np.zeros((4, 3)), scores)


def test_both_infinities_and_an_overflowing_product_are_refused():
    with pytest.raises(NonFiniteError, match="row 0"):
        ranks_of(np.array([[np.inf, -np.inf]]), np.array([0]))
    large = np.full((3, 2), 1e200)
    with pytest.raises(NonFiniteError, match="query row 0"), np.errstate(over="ignore"):
        matching_ranks(large, large)


def test_a_bad_tile_names_the_row_among_all():
    def score(rows, columns):
        tile = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
        if rows.start <= 5 < rows.stop:
            tile[5 - rows.start] = np.nan
        return tile

    with pytest.raises(NonFiniteError, match="query row 5:"):
        tiled_ranks(score, 9, tile=2)


def test_large_finite_scores_are_no_overflow():
    scores = np.full((2, 4), 1.5e308)
    assert ranks_of(scores, np.array([0, 3])).tolist() == [2.5, 2.5]


@pytest.mark.parametrize("target", [[0], [0, 3], [-1, 0]])
def test_targets_must_fit(target):
    with pytest.raises(DataError, match="target"):
        ranks_of(np.zeros((2, 3)), np.array(target))


def test_shapes_must_fit():
    with pytest.raises(DataError, match=r"\(3, 2\) and candidates \(4, 2\)"):
        matching_ranks(np.zeros((3, 2)), np.zeros((4, 2)))


def test_metrics_by_hand():
    given_ranks = np.array([1.0, 2.0, 4.0, 10.5])
    assert recall_at(given_ranks, 1) == 0.25
    assert recall_at(given_ranks, 10) == 0.75  # 10.5 ties over the boundary: a miss
    assert recall_at(given_ranks, 11) == recall_at(given_ranks, 1_000_000) == 1.0
    assert mrr(given_ranks) == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10.5) / 4)
    assert ndcg_at(given_ranks, 2) == pytest.approx((1 + 1 / np.log2(3)) / 4)
    assert hits_at(given_ranks, 2).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("metric", [recall_at, ndcg_at])
def test_k_below_one_is_refused(metric):
    with pytest.raises(ConfigError, match="k = 0"):
        metric(np.ones(2), 0)


def test_a_tile_below_one_is_refused():
    with pytest.raises(ConfigError, match="tile = 0"):
        matching_ranks(np.ones((2, 2)), np.ones((2, 2)), tile=0)


@pytest.mark.parametrize("values", [[], [np.nan], [0.5], [np.inf]])
def test_metrics_refuse_what_is_no_rank(values):
    with pytest.raises(DataError, match="rank"):
        mrr(np.array(values))
