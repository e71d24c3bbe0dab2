"""A scaling config -> the runs of its sweeps, each once, the cheapest first."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from clue_jax.config import (
    EncoderConfig,
    PretrainConfig,
    ScaleConfig,
    Sweep,
    TransformerConfig,
    to_json,
    validate_pretrain,
    validate_scale,
)
from clue_jax.config.scaling import SIZE
from clue_jax.errors import ConfigError
from clue_jax.files import canonical_json, sha256_text
from clue_jax.model.sizes import PRESETS, parameter_count, preset

HEAD_WIDTH = 32


@dataclass(frozen=True)
class PlannedRun:
    """One training of the plan.

    Attributes:
        name: of its folder; the values of all factors, and its seed.
        cell: the same without the seed: runs of one cell are the same experiment.
        sweeps: that ask for it.
        size: of the encoder, as the sweep says it.
        config: of `train`.
    """

    name: str
    cell: str
    sweeps: tuple[str, ...]
    size: str
    config: PretrainConfig


def planned_runs(config: ScaleConfig) -> list[PlannedRun]:
    """All runs of a plan.

    Raises:
        ConfigError: the plan, or a run of it, cannot work; names the key.
    """
    validate_scale(config)
    runs: dict[str, PlannedRun] = {}
    for sweep in config.sweeps:
        for run in _runs_of(sweep, config):
            known = runs.get(run.name)
            sweeps = (*known.sweeps, sweep.name) if known else (sweep.name,)
            runs[run.name] = dataclasses.replace(run, sweeps=sweeps)
    return sorted(runs.values(), key=lambda run: (_work(run.config), run.name))


def _runs_of(sweep: Sweep, config: ScaleConfig) -> Iterator[PlannedRun]:
    base = config.base
    own = f"{base.encoder.width}x{base.encoder.item.num_layers}"
    factors = (
        sweep.sizes or ("",),
        sweep.users or (base.sampling.most_users,),
        sweep.behaviours or (base.encoder.max_history,),
        sweep.batches or (base.train.batch_users,),
        sweep.steps or (base.train.steps,),
        sweep.rates,
        sweep.temperatures or (base.loss.temperature,),
        sweep.seeds,
    )
    for size, users, behaviours, batch, steps, rate, temperature, seed in itertools.product(
        *factors
    ):
        run = copy.deepcopy(base)
        if size:
            run.encoder = resized(base.encoder, size)
        run.encoder.max_history = behaviours
        run.encoder.row_behaviours = max(base.encoder.row_behaviours, behaviours)
        run.sampling.most_users, run.loss.temperature, run.seed = users, temperature, seed
        run.train.batch_users, run.train.steps = batch, steps
        run.optim.learning_rate = rate * _rate(config, run.encoder.width, batch)
        # What is measured is the end; what lies between is for those who look at a single run.
        run.train.eval_every, run.checkpoint.keep, run.checkpoint.keep_best = 0, 1, 0
        run.checkpoint.every_steps = min(run.checkpoint.every_steps, steps)
        run.train.log_every = min(run.train.log_every, steps)
        validate_pretrain(run)
        cell = _cell(run, size or own)
        yield PlannedRun(f"{cell}-seed{seed}", cell, (), size or own, run)


def resized(encoder: EncoderConfig, size: str) -> EncoderConfig:
    """The encoder with the width and layers of a size; what it reads and gives stays the same.

    Raises:
        ConfigError: no preset, and not WIDTHxLAYERS.
    """
    match = SIZE.fullmatch(size)
    if match:
        width, layers = int(match[1]), int(match[2])
        item = TransformerConfig(layers, max(1, width // HEAD_WIDTH), 4 * width)
        service = dataclasses.replace(item)
    elif size in PRESETS:
        shape = preset(size)
        width, item, service = shape.width, shape.item, shape.service
    else:
        raise ConfigError(
            f"config.sweeps: {size!r} is no size such as 64x2 (width x layers), nor one of"
            f" {', '.join(PRESETS)}"
        )
    replaced = dataclasses.replace(encoder, width=width, item=item, service=service)
    if not encoder.project:
        replaced.embedding_width = width
    return replaced


def _rate(config: ScaleConfig, width: int, batch: int) -> float:
    rule = config.rate
    by_width = (rule.width / width) ** rule.width_power
    return rule.learning_rate * by_width * (batch / rule.batch) ** rule.batch_power


def _cell(run: PretrainConfig, size: str) -> str:
    """Readable, and with a word for all else that makes runs of two plans different."""
    rest = to_json(run)
    rest.pop("seed")
    word = sha256_text(canonical_json(rest))[:6]
    users = run.sampling.most_users or "all"
    return (
        f"{size}-u{users}-t{run.encoder.max_history}-b{run.train.batch_users}-s{run.train.steps}"
        f"-{word}"
    )


def _work(run: PretrainConfig) -> float:
    """To order runs by: what is read, times what reads it."""
    read = run.train.steps * run.train.batch_users * run.encoder.max_history
    return float(read) * parameter_count(run.encoder, 0)
