"""Membership: is it told by an export whether somebody was among the users of the training?

Training pulls the vectors of a user's two services together. The nearer they are, the likelier the
attack holds the user to have been trained on. Measured on users whose split is known: `auc` of
training users over others, and the share of training users found where one in a hundred others is
taken for one (Carlini et al. 2022, "Membership Inference Attacks From First Principles": what
matters is whether anybody is told with confidence). Splits are dealt by a hash, so nothing but
training sets them apart. The attack is a simple one; with encoders of one's own, trained with and
without a user, more is found.
"""

from __future__ import annotations

import numpy as np

from clue_jax.config import EvaluateConfig
from clue_jax.embeddings.reader import Embeddings
from clue_jax.errors import DataError
from clue_jax.evaluation.bootstrap import resample
from clue_jax.evaluation.matching import eligible, service_pairs
from clue_jax.evaluation.results import MODEL, Result, exact_rows, rows_of
from clue_jax.evaluation.scores import Auc, Found

FALSE_ALARMS = 0.01
METRICS = ("auc", "tpr_at_1_percent_fpr")
TRAIN = "train"


def check_membership(config: EvaluateConfig, export: Embeddings) -> None:
    """Refuses an export that has no training users, or no others, to be told apart.

    Raises:
        DataError: see above; names the split.
    """
    there = export.manifest.get("splits", ())
    others = [split for split in there if split != TRAIN]
    if TRAIN not in there or not others:
        raise DataError(
            f"whether training users are told from others needs an export of both; this one has"
            f" {', '.join(there)}: export with --config.splits=train,validation,test, or leave it"
            " out with --config.audit.membership=false"
        )
    for pair in service_pairs(export.services, config.audit.services, "audit"):
        member_n = export.splits[eligible(export, pair, config.audit, "audit")] == TRAIN
        for count, who in ((int(member_n.sum()), "training"), (int((~member_n).sum()), "other")):
            if count < config.min_audience:
                raise DataError(
                    f"{' and '.join(pair)}: {count:,} {who} users have at least"
                    f" {config.audit.min_behaviours} behaviours in both, fewer than"
                    f" config.min_audience={config.min_audience}; lower"
                    " --config.audit.min_behaviours, or leave it out with"
                    " --config.audit.membership=false"
                )


def membership_results(config: EvaluateConfig, export: Embeddings, prefix: str) -> list[Result]:
    """Results of every pair of services, on all users of the export who have enough in both."""
    trained, results = int(export.manifest["train_seed"]), []
    for first, second in service_pairs(export.services, config.audit.services, "audit"):
        rows = eligible(export, (first, second), config.audit, "audit")
        near_n = np.einsum("ne,ne->n", export.by_service[first], export.by_service[second])[rows]
        results += _of_pair(
            config, f"{prefix}{first}<->{second}", near_n, export.splits[rows] == TRAIN, trained
        )
    return results


def _of_pair(
    config: EvaluateConfig, task: str, near_n: np.ndarray, member_n: np.ndarray, trained: int
) -> list[Result]:
    label_n, near_n = member_n.astype(np.float64), near_n.astype(np.float64)
    auc, found = Auc(label_n, near_n), Found(label_n, near_n, FALSE_ALARMS)

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        return np.stack([auc(weights_RU), found(weights_RU)], axis=1)

    users = len(near_n)
    sample = resample(statistic, users, config.audit.bootstrap, config.seed)
    luck = dict(zip(METRICS, (0.5, FALSE_ALARMS), strict=True))
    return [
        *rows_of(task, MODEL, METRICS, sample, users, trained),
        *exact_rows(task, "chance", luck, users, config.seed),
    ]
