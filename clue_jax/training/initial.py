"""Starting from the parameters of another run: transfer to another domain or company."""

from __future__ import annotations

from typing import Any

import jax
from etils import epath

from clue_jax.config import PretrainConfig, from_json
from clue_jax.console import say
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.errors import CheckpointError
from clue_jax.files import read_json, write_json
from clue_jax.model import clue
from clue_jax.training.checkpoint import Checkpoints


def check_source(config: PretrainConfig, tokenizer: Tokenizer) -> None:
    """Whether the parameters of the run `config.init_from` fit this one, before any is read.

    Raises:
        CheckpointError: no run is there, its tokens mean something else, or a parameter has
            another shape; names both.
    """
    source = epath.Path(config.init_from)
    for name in ("config.json", "dataset.json"):
        if not (source / name).exists():
            raise CheckpointError(
                f"config.init_from: {source / name}: no such file; name a run directory of train"
            )
    known = read_json(source / "dataset.json")
    if known["tokenizer_sha256"] != tokenizer.identity:
        raise CheckpointError(
            f"config.init_from: {source} was trained with tokenizer"
            f" {known['tokenizer_sha256'][:12]} of {known['vocab_size']:,} tokens, the data have"
            f" {tokenizer.identity[:12]} of {tokenizer.vocab_size:,}; prepare them with"
            f" --config.tokenizer.path={source / 'tokenizer.json'}"
        )
    path = source / "config.json"
    there = _shapes(from_json(PretrainConfig, read_json(path), str(path)), tokenizer.vocab_size)
    here = _shapes(config, tokenizer.vocab_size)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"config.init_from: params{name} has shape {there.get(name, 'none')} in {source},"
                f" but this config makes it {here.get(name, 'none')}; use the encoder and"
                f" loss.form of {path}"
            )


def initial_params(config: PretrainConfig, directory: epath.Path, abstract: Any) -> clue.Params:
    """Reads the parameters of `config.init_from`, and records in the run whose they were.

    Args:
        config: `init_step` says which of its checkpoints.
        directory: of the run that begins; gets init.json.
        abstract: `ShapeDtypeStruct`s of the parameters, with shardings.

    Raises:
        CheckpointError: there is none, or none that is whole.
    """
    source = epath.Path(config.init_from)
    checkpoints = Checkpoints(source / "checkpoints")
    try:
        restored = checkpoints.restore({"params": abstract}, config.init_step)
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"config.init_from: {source} has no checkpoint yet; train it first")
    if jax.process_index() == 0:
        origin = {"step": restored.step, "fingerprint": restored.fingerprint}
        write_json(directory / "init.json", origin)
    say(f"starting from the parameters of step {restored.step} of {source}")
    return restored.parts["params"]


def _shapes(config: PretrainConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(lambda: clue.init_run(config, vocab_size))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
