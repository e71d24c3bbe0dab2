"""Ranking metrics with ties counted half and non-finite scores refused: NumPy only.

Conventions, the same in training and in every evaluation:

- The rank of the target is 1 + (candidates that score strictly better) + 1/2 (other candidates that
  score the same): the mean of the ranks it has when ties are broken at random. A constant score
  earns the rank of a coin, never rank 1.
- A half rank lies between two places. Metrics at k count it when `rank <= k`, so a tie between
  places k and k + 1 (rank k + 1/2) is a miss.
- k may exceed the number of candidates C: no rank is above C, so recall at k is 1 there.
- NaN and infinity are refused: under a plain `>` nothing beats a NaN, and it would rank first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clue_jax.errors import ConfigError, DataError, NonFiniteError

# Equal vectors at two places of a matrix product may differ in their last bits. Products are taken
# in float64, and scores this close, relative to the lengths of the vectors, count as equal.
TIE_TOLERANCE = 1e-12

# [start, stop) of the queries and [start, stop) of the candidates -> their scores.
ScoreTile = Callable[[slice, slice], np.ndarray]


def ranks_of(scores_QC: np.ndarray, target_Q: np.ndarray) -> np.ndarray:
    """Ranks of the targets, float64 [Q], from 1.

    Args:
        scores_QC: score of each candidate for each query, higher is better.
        target_Q: index of the right candidate of each query.

    Raises:
        NonFiniteError: names the first row with a NaN or infinity.
        DataError: shapes or target indices that do not fit.

    Examples:
        >>> scores_QC = np.array([[0.9, 0.1, 0.5], [0.3, 0.3, 0.3]])
        >>> ranks_of(scores_QC, np.array([2, 0]))  # second; in the middle of three that tie
        array([2., 2.])
    """
    scores_QC, target_Q = np.asarray(scores_QC), np.asarray(target_Q)
    if scores_QC.ndim != 2 or target_Q.shape != scores_QC.shape[:1]:
        raise DataError(
            f"scores {scores_QC.shape} and targets {target_Q.shape}: expected [Q, C] and [Q]"
        )
    if target_Q.size and not (0 <= target_Q.min() and target_Q.max() < scores_QC.shape[1]):
        raise DataError(f"a target is not one of {scores_QC.shape[1]} candidates")
    _refuse_non_finite(scores_QC, "the scores of query")
    right_Q = np.take_along_axis(scores_QC, target_Q[:, None], axis=1)[:, 0]
    places_Q = _places(scores_QC, right_Q, np.zeros(len(right_Q)))
    return places_Q + 0.5  # the target ties with itself


def matching_ranks(
    queries_NE: np.ndarray, candidates_NE: np.ndarray, tile: int = 2048
) -> np.ndarray:
    """Rank of candidate i for query i among all N candidates by dot product, float64 [N].

    Memory beyond the arguments: one score tile, `8 * tile**2` bytes, and a few of its size.

    Raises:
        NonFiniteError: names the first query or candidate row with a NaN or infinity.
        DataError: the two shapes differ.
        ConfigError: `tile` is below 1.

    Examples:
        >>> queries_NE = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> candidates_NE = np.array([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
        >>> ranks_Q = matching_ranks(queries_NE, candidates_NE)
        >>> ranks_Q
        array([2., 1., 3.])
        >>> f"{recall_at(ranks_Q, 1):.3f} {mrr(ranks_Q):.3f} {ndcg_at(ranks_Q, 2):.3f}"
        '0.333 0.611 0.544'
    """
    if queries_NE.shape != candidates_NE.shape or queries_NE.ndim != 2:
        raise DataError(
            f"queries {queries_NE.shape} and candidates {candidates_NE.shape} must both be [N, E]"
        )
    _refuse_non_finite(queries_NE, "query")
    _refuse_non_finite(candidates_NE, "candidate")

    def score(rows: slice, columns: slice) -> np.ndarray:
        return queries_NE[rows].astype(np.float64) @ candidates_NE[columns].T.astype(np.float64)

    lengths_N = [
        np.sqrt(np.einsum("ne,ne->n", a, a, dtype=np.float64)) for a in (queries_NE, candidates_NE)
    ]
    slack_N = TIE_TOLERANCE * lengths_N[0] * lengths_N[1].max(initial=0.0)
    return tiled_ranks(score, len(queries_NE), tile, slack_N)


def tiled_ranks(
    score: ScoreTile, count: int, tile: int = 2048, slack_N: np.ndarray | None = None
) -> np.ndarray:
    """Like `matching_ranks`, with scores computed tile by tile.

    Args:
        score: gives the scores of a range of queries for a range of candidates.
        count: N.
        tile: queries, and candidates, of one tile.
        slack_N: differences up to this count as ties, by query; None: only equal scores do.

    Raises:
        NonFiniteError: names the query row.
        ConfigError: `tile` is below 1.
    """
    if tile < 1:
        raise ConfigError(f"tile = {tile}: must be at least 1")
    slack_N = np.zeros(count) if slack_N is None else slack_N
    result_N = np.empty(count)
    spans = [slice(first, min(first + tile, count)) for first in range(0, count, tile)]
    for rows in spans:
        right_Q = np.diagonal(_finite(score(rows, rows), rows)).copy()
        better_Q = np.zeros(len(right_Q))
        for columns in spans:
            better_Q += _places(_finite(score(rows, columns), rows), right_Q, slack_N[rows])
        result_N[rows] = better_Q + 0.5
    return result_N


def recall_at(ranks_Q: np.ndarray, k: int) -> float:
    """Share of queries whose target is among the first k (hit rate; one target a query)."""
    return float(hits_at(ranks_Q, k).mean())


def mrr(ranks_Q: np.ndarray) -> float:
    """Mean reciprocal rank; of a half rank the reciprocal is taken as it is."""
    return float(reciprocal(ranks_Q).mean())


def ndcg_at(ranks_Q: np.ndarray, k: int) -> float:
    """Normalised discounted cumulative gain with one relevant candidate a query.

    The mean of 1 / log2(1 + rank) where rank <= k, else 0; the ideal gain is 1.
    """
    return float((hits_at(ranks_Q, k) / np.log2(1.0 + ranks_Q)).mean())


def hits_at(ranks_Q: np.ndarray, k: int) -> np.ndarray:
    """1.0 where rank <= k, else 0.0, [Q].

    Raises:
        ConfigError: k is below 1.
        DataError: no ranks, or values that are none.
    """
    if k < 1:
        raise ConfigError(f"a metric at k = {k}: k must be at least 1")
    return (_checked(ranks_Q) <= k).astype(np.float64)


def reciprocal(ranks_Q: np.ndarray) -> np.ndarray:
    """1 / rank, [Q]; raises like `hits_at`."""
    return 1.0 / _checked(ranks_Q)


def _checked(ranks_Q: np.ndarray) -> np.ndarray:
    ranks_Q = np.asarray(ranks_Q, np.float64)
    if ranks_Q.size == 0:
        raise DataError("no ranks: a metric over no queries is not defined")
    if not (ranks_Q >= 1.0).all() or not np.isfinite(ranks_Q).all():
        raise DataError("ranks must be finite and at least 1")
    return ranks_Q


def _places(scores_QC: np.ndarray, right_Q: np.ndarray, slack_Q: np.ndarray) -> np.ndarray:
    """Candidates that score better, and half of those that score the same, [Q]."""
    better_Q = (scores_QC > (right_Q + slack_Q)[:, None]).sum(axis=1)
    not_worse_Q = (scores_QC >= (right_Q - slack_Q)[:, None]).sum(axis=1)
    return 0.5 * (better_Q + not_worse_Q)


def _finite(scores_QC: np.ndarray, rows: slice) -> np.ndarray:
    _refuse_non_finite(scores_QC, "the scores of query", rows.start)
    return scores_QC


def _refuse_non_finite(array_NX: np.ndarray, what: str, first: int = 0) -> None:
    # A sum is finite only if every term is (or terms overflow, which the second look tells apart).
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(array_NX.sum()):
            return
    bad = np.flatnonzero(~np.isfinite(array_NX).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"{what} row {first + int(bad[0])}: not finite ({len(bad)} such rows); a NaN cannot be"
            " ranked"
        )
