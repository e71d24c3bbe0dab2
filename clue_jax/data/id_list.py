"""A file of user ids, one a line: seeds of an audience, users to be erased or left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from etils import epath

from clue_jax.errors import ConfigError, DataError


@dataclass(frozen=True)
class IdList:
    """Ids of a file, and the SHA-256 of the bytes that they were read from.

    Attributes:
        ids: in the order of the file, each once.
        sha256: of the file.
    """

    ids: list[str]
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        """What tells lists apart and names nobody."""
        return {"ids": len(self.ids), "sha256": self.sha256}


def suppression(path: str, key: str = "config.suppress") -> IdList | None:
    """The users to be left out; None where no path is given.

    Raises:
        ConfigError: the list cannot be read; names the `key` that it was given by.
    """
    if not path:
        return None
    try:
        return read_ids(path)
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from error


def read_ids(path: epath.PathLike) -> IdList:
    """The ids of a UTF-8 file, in order, without spaces around them and empty lines.

    Raises:
        DataError: no such file, not text in UTF-8, no id in it, or one that is there twice; names
            lines and never ids.
    """
    try:
        content = epath.Path(path).read_bytes()
        lines = content.decode("utf-8").split("\n")
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}; name a file of ids, one a line"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 (byte {error.start})") from error
    found: dict[str, int] = {}
    for number, value in enumerate(map(str.strip, lines), 1):
        if value in found:
            raise DataError(
                f"{path}: line {number} has the id of line {found[value]} again; write each once"
            )
        if value:
            found[value] = number
    if not found:
        raise DataError(f"{path}: no ids in it; write one a line")
    return IdList(list(found), hashlib.sha256(content).hexdigest())
