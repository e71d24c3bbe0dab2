"""What an attacker holds of the same people twice: two services, or two exports.

Two services of one export, and two exports of one encoder, share a space. Those of two encoders do
not: there the attacker knows some pairs and turns one space into the other with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from etils import epath
from scipy.linalg import orth

from clue_jax.composition import narrowed, unit
from clue_jax.config import AuditConfig
from clue_jax.config.evaluation import named_folders
from clue_jax.console import say
from clue_jax.data.hashing import hashes64
from clue_jax.embeddings.align import best_rotation
from clue_jax.embeddings.reader import Embeddings, read_embeddings
from clue_jax.errors import DataError
from clue_jax.evaluation.exported import places_in, taken
from clue_jax.evaluation.labels import read_columns
from clue_jax.evaluation.matching import eligible, service_pairs
from clue_jax.evaluation.results import MODEL


@dataclass(frozen=True)
class Sides:
    """Unit vectors of n people on two sides, row i of both being the same person.

    Attributes:
        name: FIRST<->SECOND, and what the attacker knows.
        first_nE: vectors of one side.
        second_nE: of the other, in the same space.
        behaviours_n: on both sides together.
    """

    name: str
    first_nE: np.ndarray
    second_nE: np.ndarray
    behaviours_n: np.ndarray


def two_services(export: Embeddings, audit: AuditConfig) -> list[Sides]:
    """Every pair of services of the export.

    Raises:
        ConfigError: an unknown service, or a single one and no other export either.
        DataError: fewer than 2 people with enough behaviours in both.
    """
    if len(export.services) < 2 and audit.beside and not audit.services:
        say(f"only {', '.join(export.services)} in this export: no services are linked")
        return []
    found = []
    for pair in service_pairs(export.services, audit.services, "audit"):
        rows = sampled(export.user_ids, eligible(export, pair, audit, "audit"), audit)
        first_nE, second_nE = (export.by_service[service][rows] for service in pair)
        counts_n2 = np.stack([export.counts[service][rows] for service in pair], axis=1)
        found.append(Sides("<->".join(pair), first_nE, second_nE, counts_n2.sum(axis=1)))
    return found


def two_exports(export: Embeddings, audit: AuditConfig) -> list[Sides]:
    """The evaluated export and each other one that the config names.

    Raises:
        DataError: an export or a table of pairs that cannot be used; too few people in both.
    """
    tables, found = named_folders(audit.pairs), []
    for name, folder in named_folders(audit.beside).items():
        other = read_embeddings(folder)
        here, there = _same_people(export, other, folder, tables.get(name, ""))
        mine, theirs = taken(export, here), taken(other, there)
        enough = (_behaviours(mine) >= audit.min_behaviours) & (
            _behaviours(theirs) >= audit.min_behaviours
        )
        rows = sampled(mine.user_ids, np.flatnonzero(enough), audit)
        found += _attacks(taken(mine, rows), taken(theirs, rows), name, audit)
    return found


# ------------------------------------------------------------------------------------- one space


def _attacks(mine: Embeddings, theirs: Embeddings, rival: str, audit: AuditConfig) -> list[Sides]:
    """Of people who are in the same order in both."""
    behaviours_n, title = _behaviours(mine) + _behaviours(theirs), f"{MODEL}<->{rival}"
    width = min(mine.embedding_NE.shape[1], theirs.embedding_NE.shape[1])
    if _one_space(mine, theirs):
        _refuse_few(len(mine), 0, rival, audit)
        first_nE, second_nE = (narrowed(side.embedding_NE, width) for side in (mine, theirs))
        return [Sides(title, first_nE, second_nE, behaviours_n)]
    most = max(audit.known)
    _refuse_few(len(mine), most, rival, audit)
    order = np.argsort(hashes64(f"known\0{user}" for user in mine.user_ids.tolist()))
    left = np.sort(order[most:])
    found = []
    for count in audit.known:
        first_nE, second_nE = turned(mine.embedding_NE, theirs.embedding_NE, order[:count])
        name = f"{title}, {count} known pairs"
        found.append(Sides(name, first_nE[left], second_nE[left], behaviours_n[left]))
    return found


def turned(
    first_nE: np.ndarray, second_nF: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two sides in one space, by the rotation that fits best on the people who are known.

    Both are centred first, by means that need no pairs. With fewer known people than dimensions
    only the directions that these span are compared: of the others a rotation knows nothing.

    Args:
        first_nE: unit vectors of n people.
        second_nF: of the same people; the narrower one is filled up with zeros.
        known: rows whose pairs are known.

    Returns:
        Unit vectors [n, max(E, F)] of both sides.
    """
    width = max(first_nE.shape[1], second_nF.shape[1])
    first, second = (
        np.pad(z_nX - z_nX.mean(axis=0), ((0, 0), (0, width - z_nX.shape[1])))
        for z_nX in (first_nE.astype(np.float64), second_nF.astype(np.float64))
    )
    first = first @ best_rotation(first[known].T @ second[known])
    span = orth(second[known].T)
    return unit(first @ span), unit(second @ span)


def _one_space(mine: Embeddings, theirs: Embeddings) -> bool:
    """Whether both are of one encoder, or one was turned into the space of the other."""
    versions = [side.manifest["model_version"] for side in (mine, theirs)]
    targets = [side.manifest.get("alignment", {}).get("to", {}) for side in (mine, theirs)]
    return versions[0] == versions[1] or any(
        target.get("model_version") == version
        for target, version in zip(targets, reversed(versions), strict=True)
    )


# ------------------------------------------------------------------------------------ the people


def _same_people(
    export: Embeddings, other: Embeddings, folder: str, pairs: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both exports that are of the same person, by a table of pairs or by their ids."""
    if pairs:
        table = read_columns(epath.Path(pairs), ("user_id", "other_id"))
        columns = [[str(v) for v in table.column(c).to_pylist()] for c in table.column_names]
        for name, ids in zip(table.column_names, columns, strict=True):
            if len(set(ids)) < len(ids):
                raise DataError(
                    f"{pairs}: {len(ids) - len(set(ids)):,} rows repeat a {name!r}; one row a pair"
                )
        other_of = dict(zip(*columns, strict=True))
    else:
        other_of = {user: user for user in export.user_ids.tolist()}
    others = [other_of.get(user, "") for user in export.user_ids.tolist()]
    there = places_in(other, np.array(others, object))
    here = np.flatnonzero(there >= 0)
    if not len(here):
        raise DataError(f"{folder}: {_nobody(export, other, pairs)}")
    return here, there[here]


def _nobody(export: Embeddings, other: Embeddings, pairs: str) -> str:
    if pairs:
        return f"no row of {pairs} names a user_id of the evaluated export and an other_id of this"
    return (
        f"none of the {len(export):,} people to be linked is among its {len(other):,} users; where"
        " the ids were made with another pseudonym key, name a table of true pairs with"
        " --config.audit.pairs=NAME=FILE (Parquet: user_id, other_id)"
    )


def _refuse_few(people: int, known: int, name: str, audit: AuditConfig) -> None:
    if people - known < 2:
        less = "--config.audit.known or " if known else ""
        told = f", of whom {known:,} are known to the attacker" if known else ""
        raise DataError(
            f"{MODEL} and {name}: {people:,} people have at least {audit.min_behaviours} behaviours"
            f" in both{told}; linkage needs 2 more: lower {less}--config.audit.min_behaviours"
        )


def sampled(user_ids: np.ndarray, rows: np.ndarray, audit: AuditConfig) -> np.ndarray:
    """At most `max_users` of some rows, those of the least hash."""
    if len(rows) <= audit.max_users:
        return rows
    chosen = np.argsort(hashes64(user_ids[rows].tolist()))[: audit.max_users]
    return np.sort(rows[chosen])


def _behaviours(export: Embeddings) -> np.ndarray:
    total_N: np.ndarray = np.sum(list(export.counts.values()), axis=0)
    return total_N
