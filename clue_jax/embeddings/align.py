"""One export turned into the space of another, so that what consumers trained on it still works."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath
from scipy.linalg import orthogonal_procrustes

from clue_jax import files, publishing
from clue_jax.buckets import clear
from clue_jax.config import StoredPrecision
from clue_jax.embeddings.compare import Reference
from clue_jax.embeddings.layout import part_file
from clue_jax.embeddings.reader import BESIDE, SEAL, verified_parts
from clue_jax.embeddings.vectors import embedding_columns, matrix, vector_columns
from clue_jax.embeddings.writer import Part, write_manifest, write_part
from clue_jax.errors import DataError

ROTATION = "alignment.npy"


@dataclass(frozen=True)
class Alignment:
    """What `align` did: the users it was fitted on, and how near they are, before and after.

    Attributes:
        users: that both exports have.
        before: mean cosine of a user's two vectors.
        after: the same once the new ones were turned.
        residual: root of the mean squared distance that is left.
    """

    users: int
    before: float
    after: float
    residual: float


def align(old: epath.PathLike, new: epath.PathLike, out: epath.PathLike) -> Alignment:
    """Writes NEW again, turned into the space of OLD by the rotation that fits best.

    The orthogonal matrix R of least ||X R - Y|| (Schönemann, Psychometrika 1966) over the users
    that both have, X their combined vectors in NEW and Y in OLD, turns all vectors of NEW, those of
    each service included: their cosines among each other stay. R is kept as `alignment.npy`.

    Args:
        old: export whose space consumers know.
        new: export of another model, of vectors as wide.
        out: folder for an export like NEW, of model version `<new>-in-space-of-<old>`.

    Raises:
        DataError: one is damaged, widths differ, or fewer users than dimensions are in both.
        StorageError: `out` is there already, or cannot be written.
    """
    publishing.refuse_existing(out, overwrite=False)
    reference = Reference(old)
    manifest = reference.matching(new)
    found, turn_EE = _fit(reference, new, manifest)
    whole = _manifest(reference.manifest, manifest, found)
    with publishing.staged_directory(out) as folder:
        clear(folder)  # what a run that was killed left
        payload = io.BytesIO()
        np.save(payload, turn_EE, allow_pickle=False)
        files.write_bytes(folder / ROTATION, payload.getvalue())
        whole[BESIDE] = {ROTATION: files.sha256_file(folder / ROTATION)}
        write_manifest(folder, whole, _turned_parts(folder, new, manifest, whole, turn_EE))
    return found


def _fit(
    reference: Reference, new: epath.PathLike, manifest: dict[str, Any]
) -> tuple[Alignment, np.ndarray]:
    """The best rotation, from sums over the users: one part of NEW is in memory at a time."""
    width, users = manifest["embedding_width"], 0
    cross_EE = np.zeros((width, width))
    for old_ME, new_ME in reference.pairs(new, manifest):
        cross_EE += new_ME.T @ old_ME
        users += len(old_ME)
    if users < width:
        raise DataError(
            f"{new}: {users:,} of its users are in {reference.path} too, but {width} dimensions"
            " need at least as many to be aligned"
        )
    turn_EE = best_rotation(cross_EE)
    before = float(np.trace(cross_EE)) / users
    after = float((turn_EE * cross_EE).sum()) / users
    residual = float(np.sqrt(max(2 - 2 * after, 0.0)))
    return Alignment(users, before, after, residual), turn_EE


def best_rotation(cross_EE: np.ndarray) -> np.ndarray:
    """The orthogonal R [E, E] of least ||X R - Y||, from X'Y; see `align`."""
    # ||X R - Y|| depends on R through X'Y alone, so that this is the R of X and Y.
    turn_EE: np.ndarray = orthogonal_procrustes(np.eye(len(cross_EE)), cross_EE)[0]
    return turn_EE


def _manifest(old: dict[str, Any], new: dict[str, Any], found: Alignment) -> dict[str, Any]:
    made = {"parts", "rows", "norms", "statistics", "created_at", "schema_version", SEAL, BESIDE}
    return {
        **{key: value for key, value in new.items() if key not in made},
        "model_version": f"{new['model_version']}-in-space-of-{old['model_version']}",
        "alignment": {
            "from": {"model_version": new["model_version"], SEAL: new[SEAL]},
            "to": {"model_version": old["model_version"], SEAL: old[SEAL]},
            "users": found.users,
            "mean_cosine_before": found.before,
            "mean_cosine_after": found.after,
            "residual": found.residual,
        },
    }


def _turned_parts(
    folder: epath.Path,
    new: epath.PathLike,
    manifest: dict[str, Any],
    whole: dict[str, Any],
    turn_EE: np.ndarray,
) -> list[Part]:
    count, identity = len(manifest["parts"]), files.sha256_text(files.canonical_json(whole))
    precision, entries = StoredPrecision(whole["precision"]), []
    for number, table in enumerate(verified_parts(new, manifest)):
        for name in embedding_columns(table.schema):
            z_NE, present_N = matrix(table, name)
            turned_NE = z_NE.astype(np.float64) @ turn_EE
            for column, values in vector_columns(name, turned_NE, present_N, precision).items():
                table = _with(table, column, values)
        version = pa.array([whole["model_version"]] * len(table), pa.string())
        table = _with(table, "model_version", version)
        file = part_file(whole["model_version"], number, count)
        npy = "npy" in manifest["parts"][number]
        entries.append(write_part(folder, file, table, identity, npy=npy))
    return entries


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(name), column)
