"""Who takes part, how blocks are dealt, and ranks in both directions."""

import numpy as np
import pytest
import scipy.sparse as sp

from clue_jax.config import MatchingConfig
from clue_jax.embeddings.reader import Embeddings
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation import matching
from clue_jax.ranking import ranks_of


def export_of(counts):
    """An export with counts by service; all embeddings are the first axis."""
    size = len(next(iter(counts.values())))
    z_NE = np.tile(np.eye(4, dtype=np.float32)[0], (size, 1))
    return Embeddings(
        user_ids=np.array([f"u{n}" for n in range(size)], object),
        splits=np.array(["test"] * size, object),
        embedding_NE=z_NE,
        by_service=dict.fromkeys(counts, z_NE),
        present={s: np.array(c) > 0 for s, c in counts.items()},
        counts={s: np.array(c, np.int32) for s, c in counts.items()},
        manifest={},
    )


def test_eligible_means_enough_in_both():
    export = export_of({"art": [5, 9, 4, 5, 0], "office": [5, 4, 9, 6, 9]})
    (pair,) = matching.eligible_pairs(export, MatchingConfig(min_behaviours=5), seed=0)
    assert pair.rows.tolist() == [0, 3]
    assert pair.tasks() == {"art<->office (mean)": 2, "art->office": 2, "office->art": 2}


def test_blocks_are_tasks_of_their_own_where_they_are_smaller():
    export = export_of({"art": [5] * 25, "office": [5] * 25})
    (pair,) = matching.eligible_pairs(export, MatchingConfig(block=10), seed=0)
    assert pair.tasks() == {
        "art<->office (mean)": 25,
        "art->office": 25,
        "office->art": 25,
        "art<->office (mean) blocks of 10": 10,
        "art->office blocks of 10": 10,
        "office->art blocks of 10": 10,
    }


def test_too_few_are_refused_with_counts():
    export = export_of({"art": [5, 9, 4], "office": [5, 4, 9]})
    with pytest.raises(DataError, match=r"1 of 3 users of test .* 5 .* \(2 in art, 2 in office\)"):
        matching.eligible_pairs(export, MatchingConfig(min_behaviours=5), seed=0)


def test_every_pair_or_the_chosen():
    there = ("a", "b", "c")
    assert matching.service_pairs(there, ()) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert matching.service_pairs(there, ("c", "a")) == [("c", "a")]
    with pytest.raises(ConfigError, match="no service 'x' in this export; it has a, b, c"):
        matching.service_pairs(there, ("a", "x"))
    with pytest.raises(ConfigError, match="needs two services, but there is only a"):
        matching.service_pairs(("a",), ())


def test_blocks_are_full_disjoint_and_seeded():
    blocks = matching.deal_blocks(25, 10, seed=1)
    assert [len(block) for block in blocks] == [10, 10]
    dealt = np.concatenate(blocks)
    assert len(np.unique(dealt)) == 20 and dealt.max() < 25
    assert dealt.tolist() != sorted(dealt)
    assert all(map(np.array_equal, blocks, matching.deal_blocks(25, 10, seed=1)))
    assert not np.array_equal(dealt, np.concatenate(matching.deal_blocks(25, 10, seed=2)))


@pytest.mark.parametrize("count", [9, 10])
def test_one_block_would_be_everyone(count):
    assert matching.deal_blocks(count, 10, seed=1) == []


def test_sparse_and_dense_rank_alike():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, (2, 30, 4)).astype(float)
    expected = ranks_of(first @ second.T, np.arange(30))
    assert np.array_equal(matching.rank_all(first, second), expected)
    sparse = matching.rank_all(sp.csr_array(first), sp.csr_array(second))
    assert np.array_equal(sparse, expected)


def test_ranks_in_a_block_are_those_among_its_users():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 25, 4))
    blocks = matching.deal_blocks(25, 10, seed=1)
    found = matching.rank_blocks(first, second, blocks)
    expected = [ranks_of(first[block] @ second[block].T, np.arange(10)) for block in blocks]
    assert np.array_equal(found, np.concatenate(expected))
    assert len(found) == 20


def test_directions_differ_and_a_user_keeps_its_row():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 40, 4))
    rows = np.arange(5, 30)
    pair = matching.Pair("a", "b", rows, matching.deal_blocks(25, 10, 0))
    found = pair.match(lambda first, second, rows: (z[0][rows], z[1][rows]))
    assert list(found) == list(pair.tasks())
    there = ranks_of(z[0][rows] @ z[1][rows].T, np.arange(25))
    back = ranks_of(z[1][rows] @ z[0][rows].T, np.arange(25))
    assert not np.array_equal(there, back)
    mrr = list(matching.METRICS).index("mrr")
    assert np.array_equal(found["a->b"][:, mrr], 1 / there)
    assert np.array_equal(found["b->a"][:, mrr], 1 / back)
    # Row by row, so that a resample takes a user's queries of both directions together.
    assert np.allclose(found["a<->b (mean)"][:, mrr], (1 / there + 1 / back) / 2)
    hits = found["a->b blocks of 10"][:, list(matching.METRICS).index("recall_at_10")]
    assert hits.tolist() == [1.0] * 20
