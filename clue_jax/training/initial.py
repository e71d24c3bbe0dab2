"""Starting from the parameters of another run: transfer to another domain or company."""

from __future__ import annotations

from typing import Any

import jax
from etils import epath

from clue_jax.config import PretrainConfig
from clue_jax.console import say
from clue_jax.data.source import Dataset
from clue_jax.errors import CheckpointError
from clue_jax.files import write_json
from clue_jax.model import clue
from clue_jax.training.checkpoint import restore_params
from clue_jax.training.trained import check_tokenizer, trained_with


def check_source(config: PretrainConfig, dataset: Dataset) -> None:
    """Whether the parameters of the run `config.init_from` fit this one, before any is read.

    Raises:
        CheckpointError: no run is there, its tokens mean something else, or a parameter has
            another shape; names both.
    """
    source, vocab_size = epath.Path(config.init_from), dataset.tokenizer.vocab_size
    there = _shapes(trained_with(source), vocab_size)
    check_tokenizer(source, dataset)
    here = _shapes(config, vocab_size)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"config.init_from: params{name} has shape {there.get(name, 'none')} in {source},"
                f" but this config makes it {here.get(name, 'none')}; use the encoder and"
                f" loss.form of {source / 'config.json'}"
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
    restored = restore_params(source / "checkpoints", abstract, config.init_step)
    if jax.process_index() == 0:
        origin = {"step": restored.step, "fingerprint": restored.fingerprint}
        write_json(directory / "init.json", origin)
    say(f"starting from the parameters of step {restored.step} of {source}")
    return restored.parts["params"]


def _shapes(config: PretrainConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(lambda: clue.init_run(config, vocab_size))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
