"""Where the files of an export lie, which row is in which part, and in what order.

    <out>/model_version=<version>/part-<k>-of-<N>.parquet    and no other files there
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
from collections.abc import Iterable, Iterator

import numpy as np
from etils import epath

from clue_jax.errors import DataError

SUCCESS = "_SUCCESS"
CARD = "card.md"
SHARDING = {
    "users": "leading 64 bits of SHA-256 of user_id in UTF-8, big-endian, modulo the parts",
    "items": "item_id as an unsigned integer, modulo the parts",
}
ORDER = {"users": "user_id, by bytes of UTF-8", "items": "item_id, as unsigned integers"}
_VERSION = re.compile(r"[A-Za-z0-9._-]+")


def part_file(model_version: str, index: int, count: int) -> str:
    """Path of part `index` of `count` inside an export.

    Raises:
        DataError: a model version that cannot be the name of a folder.
    """
    if not _VERSION.fullmatch(model_version):
        raise DataError(f"model version {model_version!r}: use letters, digits, '.', '_' and '-'")
    return f"model_version={model_version}/part-{index:05d}-of-{count:05d}.parquet"


def user_shards(user_ids: Iterable[str], count: int) -> np.ndarray:
    """The part of each user, [N] int64."""
    digests = [hashlib.sha256(user_id.encode("utf-8")).digest()[:8] for user_id in user_ids]
    return (np.frombuffer(b"".join(digests), ">u8") % np.uint64(count)).astype(np.int64)


def item_shards(item_ids: np.ndarray, count: int) -> np.ndarray:
    """The part of each item, [N] int64, from identities of 64 bits, signed or not."""
    return (np.asarray(item_ids).view(np.uint64) % np.uint64(count)).astype(np.int64)


def clear(folder: epath.Path) -> None:
    """Removes everything in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            path.rmtree()
        else:
            path.unlink()


def files_under(folder: epath.Path, below: str = "") -> Iterator[str]:
    """Paths of all files under a folder, relative to it, in order."""
    for path in sorted(folder.iterdir()):
        name = f"{below}{path.name}"
        if path.is_dir():
            yield from files_under(path, f"{name}/")
        else:
            yield name
