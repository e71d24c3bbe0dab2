"""Flags of a backend -> one call; what stands after `--` is a stage with its flags, unchanged."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from clue_jax.cli import PROGRAM
from clue_jax.cli_stages import STAGES
from clue_jax.errors import ClueError, ConfigError
from launch import local

USAGE = """python -m launch local [--processes=N] [--devices=M] [--dry_run] -- STAGE --flag=...

Starts N processes of one job on this machine, each with M emulated CPU devices (0: the devices
that are there), and waits for them. The way to try what several hosts do, for example

  python -m launch local --processes=2 --devices=4 -- train --config=configs/pretrain.py:smoke \\
      --data=data/smoke --workdir=runs/smoke

Exit code: that of the stage; 7 when a process was lost, which is named."""


def main(argv: Sequence[str]) -> int:
    """Runs a backend; gives the exit code."""
    if not argv or argv[0] in ("--help", "-h", "help") or "--help" in argv[: _stage_at(argv)]:
        print(USAGE)
        return 0 if argv else ConfigError.exit_code
    try:
        return _run(argv)
    except ClueError as error:
        print(f"launch: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _run(argv: Sequence[str]) -> int:
    backend, own, stage = argv[0], argv[1 : _stage_at(argv)], argv[_stage_at(argv) + 1 :]
    if backend != "local":
        raise ConfigError(f"no backend {backend!r}; there is: local")
    values = flags.FlagValues()
    flags.DEFINE_integer("processes", 2, "of the job", 1, flag_values=values)
    flags.DEFINE_integer("devices", 1, "emulated in each; 0: those there", 0, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "only print what would be started", flag_values=values)
    try:
        _, *rest = values([PROGRAM, *own])
    except flags.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if rest:
        raise ConfigError(f"{rest[0]!r} is no flag; the stage stands after --")
    if not stage or stage[0] not in STAGES:
        stages = [name for name in STAGES if " " not in name]  # an action is one process's work
        raise ConfigError(f"after -- stands a stage: {', '.join(stages)}")
    job = local.job_of(stage, values.processes, values.devices)
    if values.dry_run:
        print("\n".join(process.text() for process in job))
        return 0
    return local.run(job)


def _stage_at(argv: Sequence[str]) -> int:
    return list(argv).index("--") if "--" in argv else len(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
