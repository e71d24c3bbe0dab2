"""Linkage: how often an attacker finds the same person on the other side, among how many.

Each person of one side is looked for among all of the other by cosine, in both directions. All
people are on both sides, which helps the attacker: figures are of people who are there to be found.

- `recall_at_1` and `recall_at_10`: the right person is the nearest, or among the ten nearest.
- `median_rank` of the right person, over both directions.
- `linked_share`: people whom an attacker would link who only trusts mutual nearest neighbours;
  `link_precision`: the share of those links that are right. Where cosines are random about half of
  the people are linked, and 1/n of the links are right.

Smaller galleries of candidates are not drawn: of the candidates that are nearer than the right one,
a random gallery holds a hypergeometric number, which gives the expected recall over all galleries
of a size. Recall falls as a gallery grows; nothing is said of larger ones than there are people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from clue_jax.config import EvaluateConfig
from clue_jax.evaluation.bootstrap import bootstrap, resample
from clue_jax.evaluation.groups import Partition, by_history
from clue_jax.evaluation.matching import rank_all
from clue_jax.evaluation.results import MODEL, Result, exact_rows, rows_of
from clue_jax.evaluation.scores import Scored
from clue_jax.evaluation.two_sides import Sides
from clue_jax.ranking import hits_at

AT = (1, 10)
RECALLS = tuple(f"recall_at_{k}" for k in AT)
RANKED = (*RECALLS, "median_rank")
LINKED = ("linked_share", "link_precision")
CHUNK = 256  # queries whose cosines are in memory at a time


@dataclass(frozen=True)
class _Ranked:
    """The ranks of one attack, in both directions, and what its results are called."""

    config: EvaluateConfig
    task: str
    trained: int
    ranks_2n: np.ndarray

    @property
    def people(self) -> int:
        return self.ranks_2n.shape[1]

    def results(self, name: str, scored: Scored, luck: Mapping[str, float]) -> list[Result]:
        """Of some of the people, and what chance gives for the same metrics."""
        people = scored.cells // 2
        settings = self.config.audit.bootstrap, self.config.seed
        sample = resample(scored.statistic, people, *settings, scored.cells)
        known = {metric: luck[metric] for metric in scored.metrics if metric in luck}
        return [
            *rows_of(name, MODEL, scored.metrics, sample, people, self.trained),
            *exact_rows(name, "chance", known, people, self.config.seed),
        ]

    def of_gallery(self, size: int) -> list[Result]:
        """The recalls that are expected among `size` candidates."""
        name, luck = f"{self.task} among {size}", chance(size)
        hits_nX = np.stack(
            [gallery_hits(self.ranks_2n, k, self.people, size).mean(axis=0) for k in AT], axis=1
        )
        sample = bootstrap(hits_nX, self.config.audit.bootstrap, self.config.seed)
        known = {metric: luck[metric] for metric in RECALLS}
        return [
            *rows_of(name, MODEL, RECALLS, sample, self.people, self.trained),
            *exact_rows(name, "chance", known, self.people, self.config.seed),
        ]


def linkage_results(
    config: EvaluateConfig, sides: Sides, prefix: str, trained: int
) -> list[Result]:
    """Results of one attack: of all people, of smaller galleries, and by length of history.

    Args:
        config: of the evaluation.
        sides: what the attacker holds.
        prefix: of the names of tasks.
        trained: seed of the evaluated export's encoder.

    Raises:
        NonFiniteError: a vector that cannot be ranked.
        DataError: no resample has a link.
    """
    both = (sides.first_nE, sides.second_nE)
    ranks_2n = np.stack([rank_all(*both), rank_all(*reversed(both))])
    ranked = _Ranked(config, f"{prefix}{sides.name} (mean)", trained, ranks_2n)
    luck = chance(ranked.people)
    links = mutual_links(*both, config.seed)
    results = ranked.results(ranked.task, score_links(ranks_2n, *links), luck)
    for size in config.audit.galleries:
        if size < ranked.people:
            results += ranked.of_gallery(size)
    lengths = Partition("", by_history(sides.behaviours_n, config.audit.histories))
    shown, _ = lengths.shown(np.ones(ranked.people, bool), config.min_audience)
    for group in shown:
        scored = score_links(ranks_2n[:, lengths.members[group]])
        results += ranked.results(f"{ranked.task}, {group}", scored, luck)
    return results


def chance(people: int) -> dict[str, float]:
    """What random cosines are expected to give."""
    recalls = {f"recall_at_{k}": min(1.0, k / people) for k in AT}
    return recalls | {"median_rank": (people + 1) / 2, "link_precision": 1 / people}


def score_links(
    ranks_2n: np.ndarray, linked_n: np.ndarray | None = None, right_n: np.ndarray | None = None
) -> Scored:
    """Metrics `RANKED` of ranks in both directions, and `LINKED` where links are given."""
    count = ranks_2n.shape[1]
    scores_nX = np.stack([hits_at(ranks_2n.ravel(), k).reshape(2, -1).mean(axis=0) for k in AT], 1)
    order = np.argsort(ranks_2n.ravel())
    sorted_rank, owner = ranks_2n.ravel()[order], order % count

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        total_R = weights_RU.sum(axis=1)
        # The lower median: where half of the weight of both directions is reached.
        middle_R = (np.cumsum(weights_RU[:, owner], axis=1) >= total_R[:, None]).argmax(axis=1)
        columns = [weights_RU @ scores_nX / total_R[:, None], sorted_rank[middle_R][:, None]]
        if linked_n is not None and right_n is not None:
            links_R = weights_RU @ linked_n
            with np.errstate(invalid="ignore"):
                precision_R = weights_RU @ right_n / links_R
            columns.append(np.stack([links_R / total_R, precision_R], axis=1))
        return np.concatenate(columns, axis=1)

    return Scored(RANKED + LINKED * (linked_n is not None), statistic, 2 * count)


def mutual_links(
    first_nE: np.ndarray, second_nE: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Who is linked by mutual nearest neighbours, and whose link is right; float64 [n] each.

    Args:
        first_nE: unit vectors of people.
        second_nE: of the same people in the same order, which is hidden from the attacker: among
            equal cosines the order must not tell.
        seed: of the order that hides it.
    """
    order = np.random.default_rng(seed).permutation(len(first_nE))
    hidden_nE = second_nE[order]
    there_n, back_n = _nearest(first_nE, hidden_nE), _nearest(hidden_nE, first_nE)
    everybody = np.arange(len(first_nE))
    linked_n = back_n[there_n] == everybody
    right_n = linked_n & (order[there_n] == everybody)
    return linked_n.astype(np.float64), right_n.astype(np.float64)


def gallery_hits(rank_X: np.ndarray, k: int, people: int, size: int) -> np.ndarray:
    """Chance that the right candidate is among the first k of a random gallery, [...].

    Args:
        rank_X: of the right candidate among all people; see ranking.py for ties.
        k: places.
        people: candidates that were ranked.
        size: of the gallery, the right candidate included; at most `people`.
    """
    nearer, where = np.unique(np.ceil(rank_X - 1.0), return_inverse=True)
    hit = hypergeom.cdf(k - 1, people - 1, nearer, size - 1)
    return hit[where].reshape(rank_X.shape)


def _nearest(queries_nE: np.ndarray, candidates_nE: np.ndarray) -> np.ndarray:
    """Position of the candidate of the greatest cosine for each query."""
    candidates_En = candidates_nE.astype(np.float64).T
    found = [
        (queries_nE[first : first + CHUNK] @ candidates_En).argmax(axis=1)
        for first in range(0, len(queries_nE), CHUNK)
    ]
    return np.concatenate(found)
