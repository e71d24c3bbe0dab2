"""Cross-service user matching: who is this person on the other service?

Every user with enough behaviours in both services is a query through one of them and a candidate
through the other. A pair of services gives the tasks `a->b`, `b->a` and `a<->b (mean)`, the mean of
the two, in two forms:

- a query ranks all eligible users of the chosen splits;
- `... blocks of N`: where there are more than N, users are dealt at random to blocks of N and a
  query ranks those of its block, so that figures of data sets of different size compare. Users that
  fill no block are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

from clue_jax.config import AuditConfig, MatchingConfig
from clue_jax.embeddings.reader import Embeddings
from clue_jax.errors import ConfigError, DataError
from clue_jax.ranking import hits_at, matching_ranks, reciprocal, tiled_ranks

METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall_at_1": lambda ranks_N: hits_at(ranks_N, 1),
    "recall_at_10": lambda ranks_N: hits_at(ranks_N, 10),
    "mrr": reciprocal,
}

Vectors: TypeAlias = np.ndarray | sp.csr_array
# (first service, second service, rows of users) -> unit vectors of those users in each.
Model = Callable[[str, str, np.ndarray], tuple[Vectors, Vectors]]


@dataclass(frozen=True)
class Pair:
    """Two services and the users that have enough of both."""

    first: str
    second: str
    rows: np.ndarray  # [n] of the export's users
    blocks: list[np.ndarray]  # positions in `rows`, all of one length; none: too few users

    def tasks(self) -> dict[str, int]:
        """Names of the tasks, and how many candidates a query has in each."""
        tasks = dict.fromkeys(self._names(""), len(self.rows))
        if self.blocks:
            size = len(self.blocks[0])
            tasks |= dict.fromkeys(self._names(f" blocks of {size}"), size)
        return tasks

    def match(self, model: Model) -> dict[str, np.ndarray]:
        """Scores [n, X] of one model by task: a row per query, a column per metric."""
        first, second = model(self.first, self.second, self.rows)
        there, back = rank_all(first, second), rank_all(second, first)
        scores = dict(zip(self._names(""), _scores(there, back), strict=True))
        if self.blocks:
            there = rank_blocks(first, second, self.blocks)
            back = rank_blocks(second, first, self.blocks)
            names = self._names(f" blocks of {len(self.blocks[0])}")
            scores |= zip(names, _scores(there, back), strict=True)
        return scores

    def _names(self, form: str) -> tuple[str, str, str]:
        a, b = self.first, self.second
        return f"{a}<->{b} (mean){form}", f"{a}->{b}{form}", f"{b}->{a}{form}"


def eligible_pairs(embeddings: Embeddings, config: MatchingConfig, seed: int) -> list[Pair]:
    """The pairs of services to match, and who takes part.

    Raises:
        ConfigError: a service that the export does not have, or not two.
        DataError: a pair with fewer than 2 eligible users; says how many there are.
    """
    pairs = []
    for first, second in service_pairs(embeddings.services, config.services, "matching"):
        rows = eligible(embeddings, (first, second), config, "matching")
        pairs.append(Pair(first, second, rows, deal_blocks(len(rows), config.block, seed)))
    return pairs


def eligible(
    embeddings: Embeddings, pair: tuple[str, str], config: MatchingConfig | AuditConfig, part: str
) -> np.ndarray:
    """Rows of the users that have enough behaviours in both services.

    Args:
        embeddings: users of the splits of the config alone.
        pair: two services.
        config: part of that of the evaluation.
        part: its name there.

    Raises:
        DataError: fewer than 2 users; says how many there are.
    """
    enough = [embeddings.counts[service] >= config.min_behaviours for service in pair]
    rows = np.flatnonzero(enough[0] & enough[1])
    if len(rows) < 2:
        first, second = pair
        raise DataError(
            f"{first} and {second}: {len(rows)} of {len(embeddings):,} users of"
            f" {'+'.join(config.splits)} have at least {config.min_behaviours} behaviours in"
            f" both ({enough[0].sum():,} in {first}, {enough[1].sum():,} in {second}); {part}"
            f" needs 2: lower --config.{part}.min_behaviours, or choose other splits or"
            " services"
        )
    return rows


def service_pairs(
    there: Sequence[str], wanted: Sequence[str], part: str = "matching"
) -> list[tuple[str, str]]:
    """The pairs of services to match; without a wish, all of them.

    Args:
        there: services of the export.
        wanted: of the config.
        part: of the config that wants them, for the error.

    Raises:
        ConfigError: an unknown service, or fewer than two to choose from.
    """
    for service in wanted:
        if service not in there:
            raise ConfigError(
                f"config.{part}.services: no service {service!r} in this export; it has"
                f" {', '.join(there)}"
            )
    chosen = wanted or there
    if len(chosen) < 2:
        raise ConfigError(
            f"config.{part}.services: {part} needs two services, but there is only"
            f" {', '.join(chosen) or 'none'}"
        )
    return list(itertools.combinations(chosen, 2))


def deal_blocks(count: int, block: int, seed: int) -> list[np.ndarray]:
    """Deals positions below `count` to random blocks; none where one block would hold all."""
    if count <= block:
        return []
    order = np.random.default_rng(seed).permutation(count)
    return list(order[: count - count % block].reshape(-1, block))


def rank_all(queries: Vectors, candidates: Vectors) -> np.ndarray:
    """Rank of candidate i for query i by dot product, [n].

    Raises:
        NonFiniteError: names the query.
    """
    if isinstance(queries, np.ndarray) and isinstance(candidates, np.ndarray):
        return matching_ranks(queries, candidates)

    sparse: tuple[sp.csr_array, sp.csr_array] = (queries, candidates)

    def score(rows: slice, columns: slice) -> np.ndarray:
        return (sparse[0][rows] @ sparse[1][columns].T).toarray()

    return tiled_ranks(score, queries.shape[0])


def rank_blocks(queries: Vectors, candidates: Vectors, blocks: list[np.ndarray]) -> np.ndarray:
    """Like `rank_all` among the users of each block, block by block."""
    return np.concatenate([rank_all(queries[block], candidates[block]) for block in blocks])


def _scores(there: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Metrics [n, X] of ranks [n] in both directions, their mean before them."""
    there, back = (
        np.stack([metric(ranks) for metric in METRICS.values()], axis=1) for ranks in (there, back)
    )
    return (there + back) / 2, there, back
