"""A file of user ids, one a line: seeds of an audience, or users to be erased."""

from __future__ import annotations

from etils import epath

from clue_jax.errors import DataError


def read_ids(path: epath.PathLike) -> list[str]:
    """The ids of a UTF-8 file, each once, in order, without spaces around them and empty lines.

    Raises:
        DataError: no such file, not text in UTF-8, or no id in it.
    """
    try:
        lines = epath.Path(path).read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}; name a file of ids, one a line"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 (byte {error.start})") from error
    ids = list(dict.fromkeys(filter(None, map(str.strip, lines))))
    if not ids:
        raise DataError(f"{path}: no ids in it; write one a line")
    return ids
