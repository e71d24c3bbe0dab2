"""What `scale` takes."""

# Annotations stay real types here (no `from __future__ import annotations`): config_flags reads
# them from the fields to parse overrides.

import re
from dataclasses import dataclass, field

from clue_jax.config.checks import require
from clue_jax.config.evaluation import EvaluateConfig
from clue_jax.config.evaluation_checks import validate_evaluate
from clue_jax.config.serving import ExportConfig, validate_export
from clue_jax.config.training import PretrainConfig

SIZE = re.compile(r"(\d+)x(\d+)")
LENGTHS = ("steps", "samples", "budgets")  # of a run, each of which says its steps
FACTORS = ("users", "behaviours", "batches", *LENGTHS, "rates", "temperatures", "seeds")


@dataclass
class Sweep:
    """Runs of all combinations of its values; an empty factor keeps the value of the base."""

    name: str = "grid"  # of the sweep, in results
    sizes: tuple[str, ...] = ()  # WIDTHxLAYERS of each level, such as 64x2; or presets, such as 4M
    users: tuple[int, ...] = ()  # training users; 0: all
    behaviours: tuple[int, ...] = ()  # T: the newest of a service that training reads
    batches: tuple[int, ...] = ()  # B
    # How long a run is: one of these three. The steps follow from samples (steps x batch) and from
    # budgets, PF-days as executed, by what a step of such a run computes on this dataset.
    steps: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()  # training users seen, with repeats: steps x batch
    budgets: tuple[float, ...] = ()  # of compute, in PF-days as executed
    rates: tuple[float, ...] = (1.0,)  # times the learning rate of the rule
    temperatures: tuple[float, ...] = ()  # initial, or fixed
    seeds: tuple[int, ...] = (0,)  # of the parameters and the draws, a run each


@dataclass
class RateRule:
    """Peak: `learning_rate` (`width` / D)^`width_power` (B / `batch`)^`batch_power`."""

    learning_rate: float = 3e-3  # peak at `width` and `batch`
    width: int = 64  # D at which the peak is `learning_rate`
    width_power: float = 0.5  # 0: the same at every width
    batch: int = 256  # B at which the peak is `learning_rate`, in users
    batch_power: float = 0.5  # 0: the same at every batch


@dataclass
class HeldOutConfig:
    """On whom every run is measured, the same for all whatever they were trained with."""

    split: str = "validation"  # of the users
    users: int = 2_048  # at most
    min_behaviours: int = 1  # in each service of a pair
    behaviours: int = 16  # T: the newest of a service that are read
    negatives: int = 63  # of an anchor; more make the loss larger
    seed: int = 0  # of who is whose negative
    # Laws are about the loss at the temperature best for these users, not at the learned one, which
    # in short runs is still near where it began.
    calibrated: bool = True


@dataclass
class DownstreamRuns:
    """Tasks that runs are also scored on, as `export` and `evaluate` do."""

    sweeps: tuple[str, ...] = ()  # whose runs; none: no tasks
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


@dataclass
class ScaleConfig:
    """A plan of runs, how they are measured, and what is fitted to them."""

    base: PretrainConfig = field(default_factory=PretrainConfig)
    sweeps: tuple[Sweep, ...] = (Sweep(),)  # which runs there are
    rate: RateRule = field(default_factory=RateRule)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    downstream: DownstreamRuns = field(default_factory=DownstreamRuns)
    known: tuple[str, ...] = ()  # results.jsonl of other workdirs: their runs are not made again
    plan_only: bool = False  # show the runs and what they will compute, and end
    retries: int = 1  # of a run that ended with an error
    minutes: float = 0.0  # no run begins after so long; 0: until all are done
    resamples: int = 200  # of the runs, for intervals; 0: none
    seed: int = 0  # of the resamples


def validate_scale(config: ScaleConfig) -> None:
    """Refuses a plan that cannot work, before anything is read.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    names = [sweep.name for sweep in config.sweeps]
    require(bool(names), "sweeps", "name one sweep or more")
    require(len(set(names)) == len(names), "sweeps", f"a name is there twice: {', '.join(names)}")
    for number, sweep in enumerate(config.sweeps):
        for factor in FACTORS:
            for value in getattr(sweep, factor):
                key = f"sweeps[{number}].{factor}"
                if factor in ("users", "seeds"):
                    require(value >= 0, key, f"{value} must not be negative")
                else:
                    require(value > 0, key, f"{value} must be positive")
        lengths = [name for name in LENGTHS if getattr(sweep, name)]
        require(
            len(lengths) <= 1,
            f"sweeps[{number}].{lengths[-1] if lengths else ''}",
            f"{' and '.join(lengths)} are both given: how long a run is comes from one of them",
        )
        require(bool(sweep.seeds), f"sweeps[{number}].seeds", "name one seed or more")
        require(bool(sweep.rates), f"sweeps[{number}].rates", "name one or more; 1: the rule")
    held_out = config.held_out
    for name, least in (("users", 2), ("min_behaviours", 1), ("behaviours", 1), ("negatives", 1)):
        value = getattr(held_out, name)
        require(value >= least, f"held_out.{name}", f"{value} must be at least {least}")
    require(
        held_out.negatives < held_out.users,
        "held_out.negatives",
        f"{held_out.negatives} of {held_out.users} held-out users: they must be fewer",
    )
    for name in ("learning_rate", "width", "batch"):
        value = getattr(config.rate, name)
        require(value > 0, f"rate.{name}", f"{value} must be positive")
    _validate_downstream(config.downstream, names)
    for name in ("retries", "minutes", "resamples", "seed"):
        value = getattr(config, name)
        require(value >= 0, name, f"{value} must not be negative")


def _validate_downstream(downstream: DownstreamRuns, sweeps: list[str]) -> None:
    for name in downstream.sweeps:
        there = ", ".join(sweeps)
        require(name in sweeps, "downstream.sweeps", f"{name!r} is no sweep; there are {there}")
    if downstream.sweeps:
        validate_export(downstream.export)
        validate_evaluate(downstream.evaluate)
