"""Membership: is it told by an export whether somebody was among the users of the training?

Training pulls the vectors of a user's services together. The simple attack holds those to have been
trained on whose vectors are nearest, by the mean of the cosines over pairs of services; the model
of attack.py reads more, and most where the attacker has an encoder of their own that was not
trained on these users. Measured on users whose split is known: `auc` of training users over others,
and the share of training users found where one in a hundred others is taken for one (Carlini et al.
2022, "Membership Inference Attacks From First Principles": what matters is whether anybody is told
with confidence). Splits are dealt by a hash, so nothing but training sets them apart. Of the
vectors of a reference alone nothing must be told; where it is, the reference was trained on these
users as well, and calibrates their trace away.

Attacks with many encoders of one's own, trained with and without a user, find more.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from clue_jax.config import EvaluateConfig
from clue_jax.config.evaluation import named_folders
from clue_jax.console import say
from clue_jax.embeddings.reader import Embeddings, read_embeddings
from clue_jax.errors import DataError
from clue_jax.evaluation.attack import features, told
from clue_jax.evaluation.bootstrap import resample
from clue_jax.evaluation.exported import places_in, taken
from clue_jax.evaluation.matching import eligible, service_pairs
from clue_jax.evaluation.results import ATTACK, MODEL, REFERENCE, Result, exact_rows, rows_of
from clue_jax.evaluation.scores import Auc, Found
from clue_jax.evaluation.two_sides import sampled

FALSE_ALARMS = 0.01
METRICS = ("auc", "tpr_at_1_percent_fpr")
TRAIN = "train"


@dataclass(frozen=True)
class Membership:
    """What an attacker holds, read and found good; all exports are of the same users in order."""

    config: EvaluateConfig
    export: Embeddings
    crops: Mapping[str, Embeddings]  # of the same encoder, from parts of the histories
    references: Mapping[str, Embeddings]  # of encoders that were not trained on these users

    def rows(self, services: tuple[str, ...]) -> np.ndarray:
        """Users with enough behaviours in all of some services, a sample where there are many."""
        audit = self.config.audit
        found = [
            eligible(self.export, pair, audit, "audit")
            for pair in itertools.combinations(services, 2)
        ]
        rows = functools.reduce(np.intersect1d, found)
        return sampled(self.export.user_ids, rows, audit)

    def member_n(self, rows: np.ndarray) -> np.ndarray:
        """Whether users of some rows were trained on."""
        trained_n: np.ndarray = self.export.splits[rows] == TRAIN
        return trained_n


def read_membership(config: EvaluateConfig, export: Embeddings) -> Membership:
    """Reads the other exports of the attack, and refuses what nobody can be told by.

    Raises:
        DataError: an export without training users, without others, or with too few of them; a crop
            by another encoder, a reference by the same one, or one that lacks users or services.
    """
    audit = config.audit
    crops = {
        name: _other(export, folder, f"audit.crops={name}", same=True)
        for name, folder in named_folders(audit.crops).items()
    }
    references = {
        name: _other(export, folder, f"audit.reference={name}", same=False)
        for name, folder in named_folders(audit.reference).items()
    }
    found = Membership(config, export, crops, references)
    _check(found)
    return found


def membership_results(of: Membership, prefix: str) -> list[Result]:
    """Results of every pair of services, and of all together where there are more than two."""
    results = []
    for services in _tasks(of):
        name = f"{prefix}{'<->'.join(services) if len(services) == 2 else '+'.join(services)}"
        results += _of_services(of, services, name)
    return results


def _tasks(of: Membership) -> Iterator[tuple[str, ...]]:
    """Services that an attack is about; all together only where enough users have them all."""
    pairs = service_pairs(of.export.services, of.config.audit.services, "audit")
    yield from pairs
    everything = tuple(dict.fromkeys(service for pair in pairs for service in pair))
    if len(everything) > 2:
        member_n = of.member_n(of.rows(everything))
        if min(member_n.sum(), (~member_n).sum()) >= of.config.min_audience:
            yield everything


def _of_services(of: Membership, services: tuple[str, ...], task: str) -> list[Result]:
    config, rows = of.config, of.rows(services)
    member_n, pairs = of.member_n(rows), list(itertools.combinations(services, 2))
    exports = {MODEL: of.export} | {f"{REFERENCE} {n}": e for n, e in of.references.items()}
    scores = {name: _near(export, pairs, rows) for name, export in exports.items()}
    sides = [
        (export.by_service[a][rows], export.by_service[b][rows])
        for export in (of.export, *of.crops.values(), *of.references.values())
        for a, b in pairs
    ]
    counts_nS = np.stack([of.export.counts[service][rows] for service in services], axis=1)
    scores[ATTACK] = told(
        features(sides, counts_nS), member_n, config.audit.attack_folds, config.seed
    )
    results = []
    for name in (MODEL, ATTACK, *list(exports)[1:]):
        trained = int(exports.get(name, of.export).manifest["train_seed"])
        results += _rows(config, task, name, scores[name], member_n, trained)
    luck = dict(zip(METRICS, (0.5, FALSE_ALARMS), strict=True))
    return [*results, *exact_rows(task, "chance", luck, len(rows), config.seed)]


def _near(export: Embeddings, pairs: list[tuple[str, str]], rows: np.ndarray) -> np.ndarray:
    """Mean cosine of a user's vectors over pairs of services, float64 [n]."""
    cosines = [
        np.einsum("ne,ne->n", export.by_service[a][rows], export.by_service[b][rows])
        for a, b in pairs
    ]
    return np.asarray(np.mean(cosines, axis=0, dtype=np.float64))


def _rows(
    config: EvaluateConfig,
    task: str,
    model: str,
    score_n: np.ndarray,
    member_n: np.ndarray,
    trained: int,
) -> list[Result]:
    """Both metrics of an attack, with intervals over the users; the model of it stays as it is."""
    label_n = member_n.astype(np.float64)
    auc, found = Auc(label_n, score_n), Found(label_n, score_n, FALSE_ALARMS)

    def statistic(weights_RU: np.ndarray) -> np.ndarray:
        return np.stack([auc(weights_RU), found(weights_RU)], axis=1)

    sample = resample(statistic, len(score_n), config.audit.bootstrap, config.seed)
    return rows_of(task, model, METRICS, sample, len(score_n), trained)


# -------------------------------------------------------------------------------- what is refused


def _check(of: Membership) -> None:
    config, there = of.config, of.export.manifest.get("splits", ())
    others = [split for split in there if split != TRAIN]
    if TRAIN not in there or not others:
        raise DataError(
            f"whether training users are told from others needs an export of both; this one has"
            f" {', '.join(there)}: export with --config.splits=train,validation,test, or leave it"
            " out with --config.audit.membership=false"
        )
    for pair in service_pairs(of.export.services, config.audit.services, "audit"):
        member_n = of.member_n(of.rows(pair))
        for count, who in ((int(member_n.sum()), "training"), (int((~member_n).sum()), "other")):
            if count < config.min_audience:
                raise DataError(
                    f"{' and '.join(pair)}: {count:,} {who} users have at least"
                    f" {config.audit.min_behaviours} behaviours in both, fewer than"
                    f" config.min_audience={config.min_audience}; lower"
                    " --config.audit.min_behaviours, or leave it out with"
                    " --config.audit.membership=false"
                )


def _other(export: Embeddings, folder: str, key: str, same: bool) -> Embeddings:
    """Another export, of the users of the evaluated one in its order."""
    other, where = read_embeddings(folder), f"config.{key}: {folder}"
    version = other.manifest["model_version"]
    if same != (version == export.manifest["model_version"]):
        raise DataError(
            f"{where} is of model {version}, which is {'not ' if same else ''}the one of the"
            f" evaluated export; name an export of {'that' if same else 'another'} encoder, one"
            f" that was {'made from fewer behaviours' if same else 'not trained on these users'}"
        )
    lacking = sorted(set(export.services) - set(other.services))
    if lacking:
        raise DataError(f"{where} has no service {lacking[0]!r}; export it from the same dataset")
    rows = places_in(other, export.user_ids)
    if (rows < 0).any():
        raise DataError(
            f"{where} lacks {int((rows < 0).sum()):,} of the {len(rows):,} users of the evaluated"
            " export; export it from the same dataset with the same splits and window"
        )
    found = taken(other, rows)
    for service in export.services:
        absent = export.present[service] & ~found.present[service]
        if absent.any():
            raise DataError(
                f"{where} has no vector of {int(absent.sum()):,} users for {service!r}; export it"
                " from the same dataset with the same window"
            )
    say(f"{key.partition('=')[0]}: {key.partition('=')[2]}, model {version}")
    return found
