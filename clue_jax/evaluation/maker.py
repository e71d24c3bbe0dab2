"""The encoder that made an export, from its run or from a folder it was saved to."""

from __future__ import annotations

from clue_jax.embeddings.reader import Embeddings
from clue_jax.encoder import UserEncoder
from clue_jax.errors import DataError


def encoder_that_made(export: Embeddings, path: str, key: str) -> UserEncoder:
    """Reads the encoder that an export is of.

    Args:
        export: of users.
        path: run directory, or folder of a saved encoder.
        key: of the config that names the path.

    Raises:
        CheckpointError: no run there, or not the export's checkpoint.
        DataError: the encoder there is another one than the export's.
    """
    encoder = UserEncoder.from_pretrained(path, int(export.manifest["checkpoint"]["step"]))
    mine, other = export.manifest["model_version"], encoder.model_version
    if mine != other:
        raise DataError(f"config.{key}: {path} is model {other}, but the export is of {mine}")
    return encoder
