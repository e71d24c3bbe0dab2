"""What the page shows of an export: a sample of its vectors on a plane, and how near they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax.embeddings.reader import open_export, verified_parts
from clue_jax.embeddings.stats import Statistics, statistics
from clue_jax.embeddings.vectors import matrix
from clue_jax.report.labelled import frequent
from clue_jax.report.plots import GROUPS, OTHERS

SAMPLE = 1_000  # rows of an export that are drawn
DRAWN = 900  # vectors on a map of several for each user, so that marks can be told apart
TIES = 24  # users whose views are joined by lines
FEWEST = 3  # rows, below which there is no plane to speak of


@dataclass(frozen=True)
class Map:
    """Vectors on the plane of their two directions of most variance.

    Attributes:
        by: what the groups are.
        points_N2: coordinates.
        shares: of the variance in each of the two directions.
        groups_N: number of the group of each point; -1: of others.
        names: of the groups.
        ties_M4: pairs of points to be joined.
    """

    by: str
    points_N2: np.ndarray
    shares: tuple[float, float]
    groups_N: np.ndarray
    names: tuple[str, ...]
    ties_M4: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


@dataclass(frozen=True)
class Spread:
    """What is known of an export and drawn from it; no ids.

    Attributes:
        statistics: of all of its rows.
        maps: by service, and by label where there are labels.
        cosines: name -> cosines of pairs; of users: of the same user's views, and of two users'.
        means: lengths of the means of users' vectors by service, which the export scales to one.
    """

    statistics: Statistics
    maps: list[Map]
    cosines: dict[str, np.ndarray]
    means: np.ndarray


def read_spread(path: epath.PathLike, labels: Mapping[str, Mapping[str, str]]) -> Spread:
    """Reads an export, each part verified.

    Args:
        path: the folder `export` wrote.
        labels: name -> user id -> label; a map of users for each.

    Raises:
        DataError: it is damaged or empty.
    """
    manifest = open_export(path)
    found = statistics(path)
    rows = _sample(path, manifest)
    if manifest["what"] == "items":
        z_NE = matrix(rows, "embedding")[0]
        services = rows.column("service").to_pylist()
        return Spread(found, _maps("service", z_NE, services), {}, np.zeros(0))
    views = {s: matrix(rows, f"embedding_{s}") for s in manifest["dataset"]["services"]}
    z_NE, ids = matrix(rows, "embedding")[0], rows.column("user_id").to_pylist()
    maps = _view_map(views)
    for name, of_user in labels.items():
        maps += _maps(name, z_NE, [of_user.get(user, OTHERS) for user in ids])
    return Spread(found, maps, _view_cosines(views), _mean_lengths(views))


def _sample(path: epath.PathLike, manifest: dict[str, Any]) -> pa.Table:
    """Rows that lie evenly over the export, so the same ones each time."""
    wanted = np.unique(np.linspace(0, manifest["rows"] - 1, SAMPLE).astype(int))
    kept, first = [], 0
    for table in verified_parts(path, manifest):
        inside = wanted[(first <= wanted) & (wanted < first + len(table))] - first
        kept.append(table.take(pa.array(inside)))
        first += len(table)
    return pa.concat_tables(kept)


def plane_of(z_NE: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Coordinates [N, 2] along the two principal directions, and their shares of the variance.

    A direction and its opposite are as good: of each the greatest component is positive.
    """
    centred_NE = z_NE.astype(np.float64) - z_NE.mean(axis=0, dtype=np.float64)
    _, deviations, directions_EE = np.linalg.svd(centred_NE, full_matrices=False)
    two_2E = directions_EE[:2]
    signs_2 = np.sign(two_2E[np.arange(len(two_2E)), np.abs(two_2E).argmax(axis=1)])
    variance = deviations**2
    shares = variance[:2] / (variance.sum() or 1.0)
    points_N2 = centred_NE @ (two_2E * signs_2[:, None]).T
    return points_N2, (float(shares[0]), float(shares[1]))


def _maps(by: str, z_NE: np.ndarray, values: list[str]) -> list[Map]:
    """One map, or none where there is too little to draw."""
    if len(z_NE) < FEWEST or z_NE.shape[1] < 2:
        return []
    named = {str(row): value for row, value in enumerate(values) if value != OTHERS}
    names = tuple(sorted(frequent(named, GROUPS)))
    place = {name: number for number, name in enumerate(names)}
    groups_N = np.array([place.get(value, -1) for value in values])
    return [Map(by, *plane_of(z_NE), groups_N, names)]


def _view_map(views: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Map]:
    """All vectors of some users by service, and lines between those of a few of them."""
    names = tuple(views)
    present_SN = np.array([present_N for _, present_N in views.values()])
    total = int(present_SN.sum())
    some = np.arange(len(present_SN.T))[:: max(1, -(-total // DRAWN))]
    present_SN = present_SN[:, some]
    z_SNE = np.array([z_NE[some] for z_NE, _ in views.values()])
    z_VE = z_SNE[present_SN]
    if len(z_VE) < FEWEST or z_VE.shape[1] < 2:
        return []
    groups_V, users_V = np.nonzero(present_SN)
    points_V2, shares = plane_of(z_VE)
    several = np.flatnonzero(present_SN.sum(axis=0) >= 2)
    chosen = several[:: max(1, -(-len(several) // TIES))]
    pairs = [np.flatnonzero(users_V == user)[:2] for user in chosen]
    ties_M4 = np.array([points_V2[pair].ravel() for pair in pairs]).reshape(-1, 4)
    groups_V = np.where(groups_V < GROUPS, groups_V, -1)
    return [Map("service", points_V2, shares, groups_V, names[:GROUPS], ties_M4)]


def _view_cosines(views: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of all pairs of services: a user's two views, and the views of two users."""
    same, other = [np.zeros(0)], [np.zeros(0)]
    services = list(views.values())
    for k, (first_NE, has_first_N) in enumerate(services):
        for second_NE, has_second_N in services[k + 1 :]:
            both_N = has_first_N & has_second_N
            cosine_NN = first_NE[both_N] @ second_NE[both_N].T
            is_same_NN = np.eye(len(cosine_NN), dtype=bool)
            same.append(cosine_NN[is_same_NN])
            other.append(cosine_NN[~is_same_NN])
    found = {"same user": np.concatenate(same), "different users": np.concatenate(other)}
    return found if all(map(len, found.values())) else {}


def _mean_lengths(views: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Of users of two services or more; of one alone the length is one."""
    counts_N = np.sum([present_N for _, present_N in views.values()], axis=0)
    sum_NE = np.sum([z_NE for z_NE, _ in views.values()], axis=0)  # zeros where there is none
    several_N = counts_N >= 2
    return np.linalg.norm(sum_NE[several_N], axis=1) / counts_N[several_N]
