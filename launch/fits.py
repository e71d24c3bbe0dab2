"""Before a pod is asked for: does the job's step fit its chips? The real compiler is asked."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from clue_jax.console import say
from clue_jax.errors import ConfigError
from clue_jax.stage_process import run_stage
from launch.job import Job
from launch.machines import Slice
from launch.plan import Command

_OF_TRAIN = ("--workdir", "-workdir")  # flags that `compile` has not


def compile_command(job: Job) -> Command | None:
    """The stage `compile` for the chips of the job; none: it trains nothing, or not on TPUs."""
    if not isinstance(job.machines, Slice) or job.stage[0] != "train":
        return None
    flags = [
        f"--topology={job.machines.chip}:{job.machines.topology}",
        f"--slices={job.machines.slices}",
    ]
    stage = ("compile", *_shared(job.stage[1:]), *flags)
    return Command((sys.executable, "-m", "clue_jax", *stage))


def _shared(words: Sequence[str]) -> list[str]:
    """The flags of `train` that `compile` has as well; of datasets those that are here."""
    kept: list[str] = []
    skip = False
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        value = value if equals else "".join(words[position + 1 : position + 2])
        if skip:
            skip = False
            continue
        elsewhere = name in ("--data", "-data") and not Path(value).is_dir()
        if name in _OF_TRAIN or elsewhere:
            skip = not equals
        else:
            kept.append(word)
    return kept


def check_fit(job: Job) -> None:
    """Compiles the step, where the compiler is installed.

    Raises:
        ConfigError: it does not fit, or its settings cannot be.
    """
    planned = compile_command(job)
    if planned is None:
        return
    if importlib.util.find_spec("libtpu") is None:
        say(
            "launch: whether the step fits was not looked at: the TPU compiler is not installed"
            " (pip install '.[tpu]', in an environment of its own)"
        )
        return
    say("launch: compiling the step for these chips first, which takes a minute or more")
    code = run_stage(planned.argv[3:])
    if code == ConfigError.exit_code:
        raise ConfigError("the job cannot run on these chips, see above; nothing was asked for")
    if code:
        say(f"launch: the compiler ended with {code}, which says nothing of the job; going on")
