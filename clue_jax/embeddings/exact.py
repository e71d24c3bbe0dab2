"""Search of an export by all cosines, one part in memory at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax.embeddings.reader import open_export, verified_parts
from clue_jax.embeddings.vectors import matrix
from clue_jax.errors import ConfigError

Match = tuple[str, float]  # user id, cosine


class ExactSearch:
    """The users of an export, each with one of its vectors.

    Args:
        path: the folder `export` wrote.
        service: whose vectors to compare; empty: those of all services combined.

    Raises:
        ConfigError: the export has no such service.
        DataError: no export of users, or its manifest is damaged.
    """

    def __init__(self, path: epath.PathLike, service: str = ""):
        self.path, self.manifest = path, open_export(path, "users")
        self.column = column_of(path, self.manifest, service)

    def vectors(self, ids: Collection[str]) -> np.ndarray:
        """[M, E] of those of the users that have one, in the order of the export."""
        wanted = pa.array(list(ids), pa.string())
        found = [np.zeros((0, self.manifest["embedding_width"]), np.float32)]
        for table in verified_parts(self.path, self.manifest):
            rows = table.filter(pc.is_in(table.column("user_id"), wanted))
            found.append(rows_with(rows, self.column)[1])
        return np.concatenate(found)

    def nearest(self, query_E: np.ndarray, k: int, left_out: Collection[str]) -> list[Match]:
        """The best k of all parts, of which only their own best are kept; ties in order of id."""
        excluded = pa.array(list(left_out), pa.string())
        best: list[Match] = []
        for table in verified_parts(self.path, self.manifest):
            others = table.filter(pc.invert(pc.is_in(table.column("user_id"), excluded)))
            ids, z_NE = rows_with(others, self.column)
            cosine_N = z_NE.astype(np.float64) @ query_E
            # Everybody as near as the last of the part's best: among equals the id decides.
            least = np.partition(cosine_N, -k)[-k] if k < len(cosine_N) else -np.inf
            best += [
                (ids[int(row)].as_py(), float(cosine_N[row]))
                for row in np.flatnonzero(cosine_N >= least)
            ]
            best = nearest_first(best)[:k]
        return best


def column_of(path: epath.PathLike, manifest: dict[str, Any], service: str) -> str:
    """The column with the vectors of a service, or with the combined ones.

    Raises:
        ConfigError: the export has no such service.
    """
    services = manifest["dataset"]["services"]
    if service and service not in services:
        raise ConfigError(f"--service={service}: {path} has {', '.join(services)}")
    return f"embedding_{service}" if service else "embedding"


def rows_with(table: pa.Table, column: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Ids and vectors [N, E] of the rows in which the column is not null."""
    z_NE, present_N = matrix(table, column)
    if present_N.all():
        return table.column("user_id"), z_NE
    return table.column("user_id").filter(pa.array(present_N)), z_NE[present_N]


def nearest_first(matches: list[Match]) -> list[Match]:
    """The greatest cosine first, equal ones in order of id."""
    return sorted(matches, key=lambda match: (-match[1], match[0]))
