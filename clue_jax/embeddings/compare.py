"""How far two exports differ on the users that both have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax.embeddings.reader import check_ids, open_export, verified_parts
from clue_jax.embeddings.stats import quantile_text
from clue_jax.embeddings.vectors import matrix
from clue_jax.errors import DataError


@dataclass(frozen=True)
class Difference:
    """Of exports A and B.

    Attributes:
        versions: model versions of both.
        both: users that both have.
        only: users that only A has, that only B has.
        cosines: float64 [both] of a user's two vectors, in the order of B.
        one_space: whether both are of one model, or B was aligned to A.
    """

    versions: tuple[str, str]
    both: int
    only: tuple[int, int]
    cosines: np.ndarray
    one_space: bool


def difference(a: epath.PathLike, b: epath.PathLike) -> Difference:
    """Compares the combined embeddings of users that are in both exports.

    Memory holds those of A, and one part of B at a time.

    Raises:
        DataError: one is damaged, or their vectors differ in width.
    """
    reference = Reference(a)
    manifest = reference.matching(b)
    cosines = [np.zeros(0)]
    for old_ME, new_ME in reference.pairs(b, manifest):
        cosines.append(np.einsum("me,me->m", old_ME, new_ME))
    found = np.concatenate(cosines)
    ours, target = reference.manifest, manifest.get("alignment", {}).get("to", {})
    versions = (ours["model_version"], manifest["model_version"])
    return Difference(
        versions,
        len(found),
        (ours["rows"] - len(found), manifest["rows"] - len(found)),
        found,
        versions[0] in (versions[1], target.get("model_version")),
    )


def describe_difference(found: Difference, changed: float) -> list[str]:
    """The difference as lines of text; a vector with a cosine below `changed` counts as changed."""
    (a, b), (only_a, only_b) = found.versions, found.only
    lines = [
        f"A is of model {a}, B of {b}" if a != b else f"both are of model {a}",
        f"{found.both:,} users in both, {only_a:,} only in A, {only_b:,} only in B",
    ]
    if found.both:
        share = np.mean(found.cosines < changed)
        lines += [
            f"cosine of the same user: {quantile_text(found.cosines)}",
            f"changed (cosine below {changed:g}): {share:.2%}",
        ]
    if not found.one_space:
        lines += ["two models have spaces of their own: compare after clue-jax embeddings align"]
    return lines


class Reference:
    """The combined vectors of one export in memory, to be found by user."""

    def __init__(self, path: epath.PathLike):
        self.path, self.manifest = path, open_export(path, "users")
        ids, z = [], [np.zeros((0, self.manifest["embedding_width"]), np.float32)]
        for table in verified_parts(path, self.manifest):
            ids.append(table.column("user_id"))
            z.append(matrix(table, "embedding")[0])
        check_ids(path, self.manifest, ids)
        chunks = [chunk for part in ids for chunk in part.chunks]
        self.ids = pa.chunked_array(chunks, pa.string())
        self.z_NE = np.concatenate(z)

    def matching(self, other: epath.PathLike) -> dict[str, Any]:
        """The manifest of another export, of vectors as wide."""
        manifest = open_export(other, "users")
        widths = [m["embedding_width"] for m in (self.manifest, manifest)]
        if widths[0] != widths[1]:
            raise DataError(
                f"{self.path} has {widths[0]} dimensions and {other} {widths[1]}; only exports of"
                " equal width can be compared"
            )
        return manifest

    def pairs(
        self, other: epath.PathLike, manifest: dict[str, Any]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each part of the other export, unit vectors [M, E] of users in both: here, there."""
        ids = []
        for table in verified_parts(other, manifest):
            ids.append(table.column("user_id"))
            places = pc.index_in(ids[-1], self.ids)
            known_N = ~np.asarray(places.is_null())
            here_M = np.asarray(places.drop_null()).astype(np.int64)
            there_NE = matrix(table, "embedding")[0]
            yield _unit(self.z_NE[here_M]), _unit(there_NE[known_N])
        check_ids(other, manifest, ids)


def _unit(z_NE: np.ndarray) -> np.ndarray:
    z_NE = z_NE.astype(np.float64)
    return z_NE / np.linalg.norm(z_NE, axis=1, keepdims=True)
