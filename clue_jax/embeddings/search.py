"""Exact search of an export by cosine: neighbours of a user, and more users like given ones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax import files
from clue_jax.console import say
from clue_jax.embeddings.id_list import read_ids
from clue_jax.embeddings.reader import open_export, verified_parts
from clue_jax.embeddings.vectors import matrix
from clue_jax.errors import ConfigError, DataError

Match = tuple[str, float]  # user id, cosine


@dataclass(frozen=True)
class Audience:
    """Users like the seeds, the nearest first, and how many seeds the export has and lacks."""

    matches: list[Match]
    seeds: int
    unknown: int


def neighbours(path: epath.PathLike, user: str, k: int) -> list[Match]:
    """The k users whose embeddings have the greatest cosine with that of `user`, without itself.

    Args:
        path: the folder `export` wrote.
        user: an id of this export.
        k: at most; all others where there are fewer.

    Raises:
        DataError: no such user, or the export is damaged.
    """
    manifest = open_export(path, "users")
    query_NE = _vectors(path, manifest, [user])
    if not len(query_NE):
        raise DataError(f"{path}: no user {user!r} among its {manifest['rows']:,}")
    return _nearest(path, manifest, query_NE[0], k, [user])


def lookalike(
    path: epath.PathLike, seeds: Collection[str], size: int, min_audience: int
) -> Audience:
    """The users nearest to the mean direction of the seeds, which are left out.

    Args:
        path: the folder `export` wrote.
        seeds: ids; those that the export lacks are counted.
        size: users wanted; all others where there are fewer.
        min_audience: fewer seeds, or a smaller audience, could single somebody out.

    Raises:
        ConfigError: fewer seeds or a smaller audience than `min_audience`.
        DataError: the seeds cancel each other out, or the export is damaged.
    """
    if size < min_audience:
        raise ConfigError(f"--size={size}: smaller than --min_audience={min_audience}")
    seeds = set(seeds)
    manifest = open_export(path, "users")
    seeds_NE = _vectors(path, manifest, seeds)
    if len(seeds_NE) < min_audience:
        raise ConfigError(
            f"{path}: has {len(seeds_NE):,} of {len(seeds):,} seeds, fewer than"
            f" --min_audience={min_audience}"
        )
    mean_E = seeds_NE.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean_E))
    if length < 1e-6:
        raise DataError(f"{path}: the {len(seeds_NE):,} seeds have no common direction")
    matches = _nearest(path, manifest, mean_E / length, size, seeds)
    if len(matches) < min_audience:
        raise ConfigError(
            f"{path}: {len(matches):,} users besides the seeds, fewer than"
            f" --min_audience={min_audience}"
        )
    return Audience(matches, len(seeds_NE), len(seeds) - len(seeds_NE))


def write_lookalike(
    path: epath.PathLike, seeds: epath.PathLike, size: int, min_audience: int, out: str
) -> None:
    """`lookalike` from a file of ids into a file of lines, or printed where `out` is empty.

    Raises:
        ConfigError, DataError: see `lookalike` and `read_ids`.
        StorageError: `out` is there already, or cannot be written.
    """
    if out:
        files.refuse_existing(out, overwrite=False)
    found = lookalike(path, read_ids(seeds), size, min_audience)
    lines = match_lines(found.matches)
    if out:
        files.write_text(out, "".join(f"{line}\n" for line in lines))
    else:
        say("\n".join(lines))
    unknown = f" ({found.unknown:,} more are not in the export)" if found.unknown else ""
    say(
        f"{len(lines):,} users like {found.seeds:,} seeds{unknown}" + (f", in {out}" if out else "")
    )


def match_lines(matches: list[Match]) -> list[str]:
    """A line of id, tab and cosine for each."""
    return [f"{user}\t{cosine:+.6f}" for user, cosine in matches]


def _vectors(path: epath.PathLike, manifest: dict[str, Any], ids: Collection[str]) -> np.ndarray:
    """Embeddings of those users that are there, in the order of the export."""
    wanted = pa.array(list(ids), pa.string())
    found = [np.zeros((0, manifest["embedding_width"]), np.float32)]
    for table in verified_parts(path, manifest):
        rows = table.filter(pc.is_in(table.column("user_id"), wanted))
        found.append(matrix(rows, "embedding")[0])
    return np.concatenate(found)


def _nearest(
    path: epath.PathLike,
    manifest: dict[str, Any],
    query_E: np.ndarray,
    k: int,
    left_out: Collection[str],
) -> list[Match]:
    """The best k of all parts, of which only their own best are kept; ties in order of id."""
    excluded = pa.array(list(left_out), pa.string())
    best: list[Match] = []
    for table in verified_parts(path, manifest):
        others = table.filter(pc.invert(pc.is_in(table.column("user_id"), excluded)))
        cosine_N = matrix(others, "embedding")[0].astype(np.float64) @ query_E
        ids = others.column("user_id")
        # Everybody as near as the last of the part's best: among equals the id decides.
        least = np.partition(cosine_N, -k)[-k] if k < len(cosine_N) else -np.inf
        best += [
            (ids[int(row)].as_py(), float(cosine_N[row]))
            for row in np.flatnonzero(cosine_N >= least)
        ]
        best = sorted(best, key=lambda match: (-match[1], match[0]))[:k]
    return best
