"""Neighbours of a user, and more users like given ones: by exact cosine, or by an index."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax import files, publishing
from clue_jax.console import say
from clue_jax.data.id_list import read_ids
from clue_jax.embeddings.exact import ExactSearch, Match, column_of
from clue_jax.embeddings.index import UserIndex, open_index
from clue_jax.embeddings.reader import open_export, verified_parts
from clue_jax.errors import ConfigError, DataError


@dataclass(frozen=True)
class Audience:
    """Users like the seeds, the nearest first, and how many seeds the export has and lacks."""

    matches: list[Match]
    seeds: int
    unknown: int


def neighbours(
    path: epath.PathLike, user: str, k: int, service: str = "", index: bool = False
) -> list[Match]:
    """The k users whose embeddings have the greatest cosine with that of `user`, without itself.

    Args:
        path: the folder `export` wrote.
        user: an id of this export.
        k: at most; all others where there are fewer.
        service: whose vectors to compare; empty: those of all services combined.
        index: search the index of the export, which may miss some.

    Raises:
        ConfigError: the export has no such service, or usearch is not installed.
        DataError: no such user, one without a vector of the service, no index, or the export is
            damaged.

    Examples:
        >>> (nearest, cosine), *others = neighbours("runs/first/users", "u000000042", k=3)
        >>> len(others)
        2
        >>> cosine >= others[0][1] >= others[1][1]
        True
        >>> neighbours("runs/first/users", "nobody", k=3)
        Traceback (most recent call last):
        clue_jax.errors.DataError: runs/first/users: no user 'nobody' among its ...
    """
    users = _searched(path, service, index)
    query_NE = users.vectors([user])
    if not len(query_NE):
        raise DataError(f"{path}: {_why_absent(path, user, service)}")
    return users.nearest(query_NE[0], k, [user])


def lookalike(
    path: epath.PathLike,
    seeds: Collection[str],
    size: int,
    min_audience: int,
    service: str = "",
    index: bool = False,
) -> Audience:
    """The users nearest to the mean direction of the seeds, which are left out.

    Args:
        path: the folder `export` wrote.
        seeds: ids; those that the export lacks, or has without such a vector, are counted.
        size: users wanted; all others where there are fewer.
        min_audience: fewer seeds, or a smaller audience, could single somebody out.
        service: as of `neighbours`.
        index: as of `neighbours`.

    Raises:
        ConfigError: fewer seeds or a smaller audience than `min_audience`; as of `neighbours`.
        DataError: the seeds cancel each other out, no index, or the export is damaged.
    """
    if size < min_audience:
        raise ConfigError(f"--size={size}: smaller than --min_audience={min_audience}")
    seeds = set(seeds)
    users = _searched(path, service, index)
    seeds_NE = users.vectors(seeds)
    if len(seeds_NE) < min_audience:
        raise ConfigError(
            f"{path}: has {len(seeds_NE):,} of {len(seeds):,} seeds, fewer than"
            f" --min_audience={min_audience}"
        )
    mean_E = seeds_NE.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean_E))
    if length < 1e-6:
        raise DataError(f"{path}: the {len(seeds_NE):,} seeds have no common direction")
    matches = users.nearest(mean_E / length, size, seeds)
    if len(matches) < min_audience:
        raise ConfigError(
            f"{path}: {len(matches):,} users besides the seeds, fewer than"
            f" --min_audience={min_audience}"
        )
    return Audience(matches, len(seeds_NE), len(seeds) - len(seeds_NE))


def write_lookalike(
    path: epath.PathLike,
    seeds: epath.PathLike,
    size: int,
    min_audience: int,
    out: str,
    service: str = "",
    index: bool = False,
) -> None:
    """`lookalike` from a file of ids into a file of lines, or printed where `out` is empty.

    Raises:
        ConfigError, DataError: see `lookalike` and `read_ids`.
        StorageError: `out` is there already, or cannot be written.
    """
    if out:
        publishing.refuse_existing(out, overwrite=False)
    found = lookalike(path, read_ids(seeds).ids, size, min_audience, service, index)
    lines = match_lines(found.matches)
    if out:
        files.write_text(out, "".join(f"{line}\n" for line in lines))
    else:
        say("\n".join(lines))
    place = f"have no vector of {service!r}" if service else "are not in the export"
    unknown = f" ({found.unknown:,} more {place})" if found.unknown else ""
    say(
        f"{len(lines):,} users like {found.seeds:,} seeds{unknown}" + (f", in {out}" if out else "")
    )


def match_lines(matches: list[Match]) -> list[str]:
    """A line of id, tab and cosine for each."""
    return [f"{user}\t{cosine:+.6f}" for user, cosine in matches]


def _searched(path: epath.PathLike, service: str, index: bool) -> ExactSearch | UserIndex:
    return open_index(path, service) if index else ExactSearch(path, service)


def _why_absent(path: epath.PathLike, user: str, service: str) -> str:
    manifest, wanted = open_export(path, "users"), pa.scalar(user, pa.string())
    parts = verified_parts(path, manifest)
    for table in parts:
        row = table.filter(pc.equal(table.column("user_id"), wanted))
        if len(row) and row.column(column_of(path, manifest, service)).null_count:
            return f"user {user!r} has no vector of {service!r}, as it has no behaviour there"
        if len(row):
            return f"user {user!r} is not in the index: it was on the suppression list of it"
    return f"no user {user!r} among its {manifest['rows']:,}"
