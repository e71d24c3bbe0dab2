"""A scaling config -> the runs of its sweeps, each once, the cheapest first."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
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
from clue_jax.model.sizes import PRESETS, preset
from clue_jax.scaling.cost import Cost
from clue_jax.scaling.results import PF_DAY
from clue_jax.scaling.words import Table, markdown_block

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
        compute: PF-days that it will execute.
    """

    name: str
    cell: str
    sweeps: tuple[str, ...]
    size: str
    config: PretrainConfig
    compute: float


def planned_runs(config: ScaleConfig, cost: Cost) -> list[PlannedRun]:
    """All runs of a plan.

    Args:
        config: the plan.
        cost: of a step of a run, in FLOPs.

    Raises:
        ConfigError: the plan, or a run of it, cannot work; names the key.
    """
    validate_scale(config)
    runs: dict[str, PlannedRun] = {}
    for sweep in config.sweeps:
        for run in _runs_of(sweep, config, cost):
            known = runs.get(run.name)
            sweeps = (*known.sweeps, sweep.name) if known else (sweep.name,)
            runs[run.name] = dataclasses.replace(run, sweeps=sweeps)
    return sorted(runs.values(), key=lambda run: (run.compute, run.name))


def _runs_of(sweep: Sweep, config: ScaleConfig, cost: Cost) -> Iterator[PlannedRun]:
    base = config.base
    own = f"{base.encoder.width}x{base.encoder.item.num_layers}"
    factors = (
        sweep.sizes or ("",),
        sweep.users or (base.sampling.most_users,),
        sweep.behaviours or (base.encoder.max_history,),
        sweep.batches or (base.train.batch_users,),
        sweep.steps or sweep.samples or sweep.budgets or (base.train.steps,),
        sweep.rates,
        sweep.temperatures or (base.loss.temperature,),
        sweep.seeds,
    )
    for size, users, behaviours, batch, length, rate, temperature, seed in itertools.product(
        *factors
    ):
        run = copy.deepcopy(base)
        if size:
            run.encoder = resized(base.encoder, size)
        run.encoder.max_history = behaviours
        run.encoder.row_behaviours = max(base.encoder.row_behaviours, behaviours)
        run.sampling.most_users, run.loss.temperature, run.seed = users, temperature, seed
        run.train.batch_users = batch
        run.optim.learning_rate = rate * _rate(config, run.encoder.width, batch)
        # What is measured is the end; what lies between is for those who look at a single run.
        run.train.eval_every, run.checkpoint.keep, run.checkpoint.keep_best = 0, 1, 0
        _set_steps(run, sweep, length, cost)
        validate_pretrain(run)
        cell, compute = _cell(run, size or own), run.train.steps * cost(run) / PF_DAY
        yield PlannedRun(f"{cell}-seed{seed}", cell, (), size or own, run, compute)


def _set_steps(run: PretrainConfig, sweep: Sweep, length: float, cost: Cost) -> None:
    """The run's steps, from what its sweep says of its length."""
    batch, steps = run.train.batch_users, length
    if sweep.samples:
        steps = length / batch
    elif sweep.budgets:
        run.train.steps = 1  # a schedule of histories does not know how long the run is yet
        steps = length * PF_DAY / cost(run)
    if round(steps) < 1:
        named = "samples" if sweep.samples else "budgets"
        raise ConfigError(
            f"config.sweeps: {sweep.name}: {named} {length:g} are less than a step of"
            f" {batch:,} users with an encoder {run.encoder.width} wide"
        )
    run.train.steps = round(steps)
    run.checkpoint.every_steps = min(run.checkpoint.every_steps, run.train.steps)
    run.train.log_every = min(run.train.log_every, run.train.steps)


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


def plan_text(runs: Sequence[PlannedRun], done: Collection[str]) -> str:
    """The runs of a plan and what they will compute."""
    rows = [
        [
            ", ".join(run.sweeps),
            run.name,
            f"{run.config.optim.learning_rate:.2g}",
            f"{run.compute:.2e}",
            "done" if run.name in done else "",
        ]
        for run in runs
    ]
    left = sum(run.compute for run in runs if run.name not in done)
    spent = f"{len(runs)} runs; {left:.2e} PF-days ({left * PF_DAY:.2e} FLOPs) are left to compute"
    table = Table(["sweeps", "run", "rate", "PF-days", ""], rows)
    return f"{markdown_block(table)}\n\n{spent}"
