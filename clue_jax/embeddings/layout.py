"""Where the files of an export lie, which row is in which part, and in what order.

    <out>/model_version=<version>/part-<k>-of-<N>.parquet    and no other files there
    <out>/npy/embeddings/part-<k>-of-<N>.npy                 where asked for: float32 [rows, E],
    <out>/npy/ids/part-<k>-of-<N>.npy                        and the ids of the same rows
    <out>/card.md                                            for people, made from the manifest
    <out>/manifest.json                                      with it the export is complete
    <out>/_SUCCESS                                           empty, after the manifest

A row is in part k where k is the leading 64 bits of the SHA-256 of its user id, in UTF-8 and
big-endian, modulo N; of an item, its identity modulo N. So anybody can compute the part of a user,
and no user is in two parts. Within a part, rows are in order of that id: of users by bytes of
UTF-8, of items as unsigned integers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from etils import epath

from clue_jax.errors import DataError

SUCCESS = "_SUCCESS"
SHARDING = {
    "users": "leading 64 bits of SHA-256 of user_id in UTF-8, big-endian, modulo the parts",
    "items": "item_id as an unsigned integer, modulo the parts",
}
ORDER = {"users": "user_id, by bytes of UTF-8", "items": "item_id, as unsigned integers"}
_VERSION = re.compile(r"[A-Za-z0-9._-]+")


def page_beside(root: epath.Path) -> epath.Path:
    """Where `report` writes the page of an export: in it, it would be a foreign file."""
    return root.parent / f"{root.name}.report.html"


def part_file(model_version: str, index: int, count: int) -> str:
    """Path of part `index` of `count` inside an export.

    Raises:
        DataError: a model version that cannot be the name of a folder.
    """
    if not _VERSION.fullmatch(model_version):
        raise DataError(f"model version {model_version!r}: use letters, digits, '.', '_' and '-'")
    return f"model_version={model_version}/part-{index:05d}-of-{count:05d}.parquet"


def npy_files(file: str) -> tuple[str, str]:
    """Paths of the vectors and of the ids of a part as .npy."""
    stem = PurePosixPath(file).stem
    return f"npy/embeddings/{stem}.npy", f"npy/ids/{stem}.npy"


def files_of(*parts: Mapping[str, Any]) -> dict[str, str]:
    """Path -> SHA-256 of all files of parts, from their entries in the manifest."""
    found: dict[str, str] = {}
    for part in parts:
        found |= {part["file"]: part["sha256"], **part.get("npy", {})}
    return found


def user_shards(user_ids: Iterable[str], count: int) -> np.ndarray:
    """The part of each user, [N] int64.

    Examples:
        >>> user_shards(["u42", "u43", "u44"], count=8)
        array([1, 2, 2])
    """
    digests = [hashlib.sha256(user_id.encode("utf-8")).digest()[:8] for user_id in user_ids]
    return (np.frombuffer(b"".join(digests), ">u8") % np.uint64(count)).astype(np.int64)


def item_shards(item_ids: np.ndarray, count: int) -> np.ndarray:
    """The part of each item, [N] int64, from identities of 64 bits, signed or not."""
    return (np.asarray(item_ids).view(np.uint64) % np.uint64(count)).astype(np.int64)
