"""A file of user ids, one a line: seeds of an audience, users to be erased or left out."""

from __future__ import annotations

from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.errors import ConfigError, DataError


def suppression(path: str, key: str = "config.suppress") -> dict[str, Any] | None:
    """What tells suppression lists apart and names nobody; None where no path is given.

    Raises:
        ConfigError: the list cannot be read; names the `key` that it was given by.
    """
    if not path:
        return None
    try:
        count = len(read_ids(path))
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from error
    return {"ids": count, "sha256": files.sha256_file(epath.Path(path))}


def read_ids(path: epath.PathLike) -> list[str]:
    """The ids of a UTF-8 file, in order, without spaces around them and empty lines.

    Raises:
        DataError: no such file, not text in UTF-8, no id in it, or one that is there twice; names
            lines and never ids.
    """
    try:
        lines = epath.Path(path).read_bytes().decode("utf-8").split("\n")
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
    return list(found)
