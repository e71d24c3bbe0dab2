"""The launcher's flags: fields of a job, and what to do with it."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags

from clue_jax import cli, cli_help
from clue_jax.errors import ConfigError
from launch.backends import BACKENDS
from launch.job import Job, read_job
from launch.verbs import LOOKING, VERBS

PROGRAM = "python -m launch"
USAGE = """python -m launch BACKEND [VERB] [--job=FILE] [--FIELD=VALUE ...] [-- STAGE --flag=...]

Backends
  local      N processes with M emulated devices each on this machine: what several hosts do
  gpu        the GPUs of this machine, or of several nodes over ssh
  slurm      a batch job that goes back into the queue after preemption
  tpu_gce    TPU v5p, v6e, TPU7x of Compute Engine: a managed instance group
  tpu_vm     TPU v4, v5e, v5p, v6e by the Cloud TPU API (legacy)
  gke        a JobSet for TPUs or GPUs on Kubernetes

Verbs
  run        make machines, bring the code, run the stage, remove the machines (default)
  supervise  likewise, and again after preemption and lost machines until the stage is done
  status | logs | fetch | delete     of what was made; fetch copies results to runs/NAME

Flags
  --dry_run  of run: print every command and its input as a shell script, and do nothing
  --keep     leave machines that cost money, for another run
  --nofit    do not compile the step for the chips first

  python -m launch local [supervise] [--processes=N] [--devices=M] [--failures=K] -- train ...
  python -m launch tpu_vm --job=launch/jobs/v5e_16.json --dry_run

After -- stands a stage of clue_jax with its flags, in place of the job's, or flags that are added
to the job's. docs/launch.md goes from nothing to a pod.

Exit code: that of the stage; 2 usage, 7 a lost process or machine (named), 75 run it again.

Fields of a job, in FILE (JSON) or as flags
"""


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    backend: str
    verb: str
    job: Job
    dry_run: bool
    keep: bool
    fit: bool
    clean_up: str  # command that removes everything


def usage() -> str:
    """Help, with the fields of a job."""
    rows = [(key, kind, note) for key, kind, _, note in cli_help.config_keys(Job())]
    lines = []
    for key, kind, note in rows:
        wrapped = textwrap.wrap(note, 100 - 34, break_on_hyphens=False)
        lines.append(f"  {key:<16}{kind:<14}  {wrapped[0]}")
        lines += [" " * 34 + more for more in wrapped[1:]]
    return USAGE + "\n".join(lines)


def parse(backend: str, own: Sequence[str], stage: Sequence[str]) -> Request:
    """What is asked for.

    Args:
        backend: its name.
        own: verb and flags of the launcher.
        stage: what stands after `--`.

    Raises:
        ConfigError: no such backend, verb, flag, field or stage, or a value that is refused.
        DataError: the job file is missing or no JSON.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"no backend {backend!r}; there are: local, {', '.join(BACKENDS)}")
    verb = own[0] if own and own[0] in VERBS else "run"
    words = list(own[1:] if own and own[0] in VERBS else own)
    values = flags.FlagValues()
    flags.DEFINE_string("job", "", "file", flag_values=values)
    for name, default in (("dry_run", False), ("keep", False), ("fit", True)):
        flags.DEFINE_bool(name, default, "", flag_values=values)
    for field in dataclasses.fields(Job):
        if field.name != "stage":
            _define(field.name, typing.get_type_hints(Job)[field.name], values)
    try:
        _, *rest = values([PROGRAM, *words])
    except flags.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if rest:
        verbs = ", ".join(VERBS)
        raise ConfigError(f"{rest[0]!r} is no flag nor verb ({verbs}); the stage stands after --")
    job = read_job(values.job, _given(values), stage)
    if verb not in LOOKING:
        check_stage(job)
        BACKENDS[backend].check(job)
    if values.dry_run and verb == "supervise":
        raise ConfigError("--dry_run shows a `run`; `supervise` does the same, again and again")
    kept = [word for word in words if word.lstrip("-") not in ("dry_run", "keep", "nofit")]
    bare = shlex.join([*PROGRAM.split(), backend, "delete", *kept])
    return Request(backend, verb, job, values.dry_run, values.keep, values.fit, bare)


def _define(name: str, hint: Any, values: flags.FlagValues) -> None:
    if hint is bool:
        flags.DEFINE_bool(name, None, "", flag_values=values)
    elif hint is int:
        flags.DEFINE_integer(name, None, "", flag_values=values)
    elif hint is float:
        flags.DEFINE_float(name, None, "", flag_values=values)
    elif hint is str:
        flags.DEFINE_string(name, None, "", flag_values=values)
    else:
        flags.DEFINE_multi_string(name, None, "once for each", flag_values=values)


def _given(values: flags.FlagValues) -> dict[str, Any]:
    """Fields that flags say, and no others."""
    fields = [field.name for field in dataclasses.fields(Job) if field.name != "stage"]
    found = {name: getattr(values, name) for name in fields}
    return {name: value for name, value in found.items() if value is not None}


def check_stage(job: Job) -> None:
    """Parses the stage as the machines will, so that a slip is found before anything is paid for.

    Raises:
        ConfigError: there is no such stage, flag or config key.
        DataError: a config that it names is damaged.
    """
    check_known(job)
    stage, words = cli.find_stage(list(job.stage))
    cli.parse(stage, words)


def check_known(job: Job) -> None:
    """Raises ConfigError where the job has no stage, or one that there is not."""
    if not job.stage or job.stage[0] not in cli.STAGES:
        stages = [name for name in cli.STAGES if " " not in name]  # an action is a moment's work
        raise ConfigError(f"after -- stands a stage: {', '.join(stages)}")
