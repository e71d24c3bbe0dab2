"""Starting from the parameters of another run: transfer to another domain or company."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from etils import epath

from clue_jax.config import PretrainConfig
from clue_jax.console import say
from clue_jax.data.source import Dataset
from clue_jax.errors import CheckpointError
from clue_jax.files import read_json, write_json
from clue_jax.model import clue
from clue_jax.parallel.agreement import check_agreed, first_alone, together
from clue_jax.training.checkpoint import Restored
from clue_jax.training.parameters import restore_params
from clue_jax.training.trained import TrainedRun, read_run


def source_run(config: PretrainConfig, datasets: Sequence[Dataset]) -> TrainedRun:
    """The run `config.init_from`, whose parameters fit this one; none of them is read yet.

    Raises:
        CheckpointError: no run is there, its tokens mean something else, or a parameter has
            another shape; names both.
    """
    try:
        source = read_run(config.init_from)
        for dataset in datasets:
            source.check_data(dataset)
    except CheckpointError as error:
        raise CheckpointError(f"config.init_from: {error}") from error
    there, here = (_shapes(c, source.vocab_size) for c in (source.config, config))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"config.init_from: params{name} has shape {there.get(name, 'none')} in"
                f" {source.workdir}, but this config makes it {here.get(name, 'none')}; use the"
                f" encoder and loss.form of {source.workdir / 'config.json'}"
            )
    return source


def initial_params(
    config: PretrainConfig, directory: epath.Path, datasets: Sequence[Dataset], drawn: clue.Params
) -> clue.Params:
    """Reads the parameters of `config.init_from`, and records in the run whose they were.

    They are that run's bit for bit, but for guides that it was never trained on, which begin as the
    generic one, and a temperature that this config fixes.

    Args:
        config: `init_step` says which checkpoint of it. A run that was stopped before it saved
            anything begins from the one it had recorded.
        directory: of the run that begins; gets init.json.
        datasets: it is trained on.
        drawn: parameters as they were without; says how each lies on the mesh.

    Raises:
        CheckpointError: there is none, or none that is whole.
    """
    source = together(lambda: source_run(config, datasets))
    record = directory / "init.json"
    begun = together(lambda: read_json(record) if record.exists() else None)
    check_agreed({str(record): begun})
    restored = _read(source, begun["step"] if begun else config.init_step, drawn)
    origin = {"step": restored.step, "fingerprint": restored.fingerprint}
    if begun and begun != origin:
        raise CheckpointError(
            f"{record}: the run began from other parameters of step {restored.step} than"
            f" {source.workdir} has now; begin again in another --workdir"
        )
    first_alone(lambda: write_json(record, origin))
    say(f"starting from the parameters of step {restored.step} of {source.workdir}")
    generic = [s for dataset in datasets for s in source.read_as_generic(dataset)]
    if generic:
        say(f"services that begin as the generic guide: {', '.join(generic)}")
    params = source.with_generic(restored.parts["params"], datasets[0].tokenizer)
    if not config.loss.learn_temperature:
        params = {**params, "log_scale": drawn["log_scale"]}
    return params


def _read(source: TrainedRun, step: int, drawn: clue.Params) -> Restored:
    abstract = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), drawn
    )
    try:
        return restore_params(source.workdir / "checkpoints", abstract, step)
    except CheckpointError as error:
        raise CheckpointError(f"config.init_from: {error}") from error


def _shapes(config: PretrainConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(lambda: clue.init_run(config, vocab_size))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
