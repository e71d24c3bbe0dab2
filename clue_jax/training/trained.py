"""What a run directory says of its run, to whoever goes on from its parameters."""

from __future__ import annotations

from typing import Any

from etils import epath

from clue_jax.config import PretrainConfig, from_json
from clue_jax.data.source import Dataset
from clue_jax.errors import CheckpointError
from clue_jax.files import read_json


def trained_with(workdir: epath.Path) -> PretrainConfig:
    """The config of a run.

    Raises:
        CheckpointError: the directory is none of a run.
    """
    return from_json(PretrainConfig, _read(workdir, "config.json"), str(workdir / "config.json"))


def check_tokenizer(workdir: epath.Path, dataset: Dataset) -> None:
    """Raises CheckpointError unless the tokens of a dataset are those that a run was trained on."""
    known, own = _read(workdir, "dataset.json"), dataset.tokenizer
    if known["tokenizer_sha256"] != own.identity:
        raise CheckpointError(
            f"{dataset.path}: tokenizer {own.identity[:12]} of {own.vocab_size:,} tokens, but"
            f" {workdir}, of {known['vocab_size']:,} tokens, was trained with"
            f" {known['tokenizer_sha256'][:12]}; prepare the data with"
            f" --config.tokenizer.path={workdir / 'tokenizer.json'}"
        )


def _read(workdir: epath.Path, name: str) -> Any:
    path = workdir / name
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; {workdir} is not a run directory of train")
    return read_json(path)
