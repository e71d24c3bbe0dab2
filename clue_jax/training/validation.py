"""Evaluation on held-out users during training: cross-service matching within the split."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from clue_jax.config import PretrainConfig
from clue_jax.data.records import UserTable
from clue_jax.inference import Embedder
from clue_jax.model import clue
from clue_jax.ranking import matching_ranks, mrr, recall_at


class Validation:
    """Held-out users of each dataset, ranked among their own."""

    def __init__(self, tables: Mapping[str, UserTable], config: PretrainConfig, mesh: Mesh):
        self.held_out = {name: _HeldOut(users, config, mesh) for name, users in tables.items()}

    def __call__(self, params: clue.Params) -> list[dict[str, Any]]:
        """Recall and MRR of each dataset, and last their means; of one dataset the means alone.

        A dataset without two held-out users to tell apart has none.
        """
        found = {name: held_out(params) for name, held_out in self.held_out.items()}
        each = {name: metrics for name, metrics in found.items() if metrics}
        if not each:
            return []
        rows = [{"split": "validation", "dataset": name, **row} for name, row in each.items()]
        names = next(iter(each.values()))
        means = {key: statistics.fmean(row[key] for row in rows) for key in names}
        whole = {"split": "validation", **means, "users": sum(row["users"] for row in rows)}
        return [*(rows if len(self.held_out) > 1 else ()), whole]


class _HeldOut:
    """Ranks every held-out user's view in one service among all users' views in another.

    Metrics are means over both directions of every pair of services, weighted by users.
    """

    def __init__(self, users: UserTable, config: PretrainConfig, mesh: Mesh):
        least = config.train.eval_min_behaviours
        held_out = users.take(in_two_services(users, least, config.train.eval_users))
        self.enough_NS = held_out.counts() >= least
        self.embedder = None
        if len(held_out) >= 2:
            self.embedder = Embedder(config.encoder, held_out, mesh=mesh)

    def __call__(self, params: clue.Params) -> dict[str, Any] | None:
        """Recall and MRR, or None when the split has no two users to tell apart."""
        if self.embedder is None:
            return None
        z_NSE, _ = self.embedder(params)
        ranks, chances = [], []
        for first, second in itertools.permutations(range(z_NSE.shape[1]), 2):
            both = self.enough_NS[:, first] & self.enough_NS[:, second]
            if both.sum() >= 2:
                ranks.append(matching_ranks(z_NSE[both, first], z_NSE[both, second]))
                chances.append(np.full(both.sum(), min(1.0, 10 / both.sum())))
        if not ranks:
            return None
        pooled = np.concatenate(ranks)
        return {
            "recall_at_1": recall_at(pooled, 1),
            "recall_at_10": recall_at(pooled, 10),
            "mrr": mrr(pooled),
            "users": len(self.enough_NS),
            "chance": float(np.concatenate(chances).mean()),
        }


def in_two_services(users: UserTable, min_behaviours: int, most: int) -> np.ndarray:
    """Rows of the first `most` users with enough behaviours in two services."""
    found = np.zeros(0, np.int64)
    for part in users.outlines():
        enough_NS = part.counts >= min_behaviours
        found = np.append(found, part.rows[enough_NS.sum(axis=1) >= 2])[:most]
        if len(found) == most:
            break
    return found
