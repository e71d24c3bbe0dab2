"""Flags of a backend -> one call; what stands after `--` is a stage with its flags, unchanged."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from clue_jax.errors import EXIT_INTERRUPTED, ClueError, ConfigError
from launch import command_line, local, verbs
from launch.backend import NOTES
from launch.backends import BACKENDS
from launch.job import Job
from launch.show import script
from launch.supervise import Limits, supervise


def main(argv: Sequence[str]) -> int:
    """Runs a backend; gives the exit code."""
    if not argv or argv[0] in ("--help", "-h", "help") or "--help" in argv[: _stage_at(argv)]:
        print(command_line.usage())
        return 0 if argv else ConfigError.exit_code
    backend, own, stage = argv[0], argv[1 : _stage_at(argv)], argv[_stage_at(argv) + 1 :]
    try:
        return _local(own, stage) if backend == "local" else _elsewhere(backend, own, stage)
    except ClueError as error:
        print(f"launch: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("launch: interrupted", file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED


def _elsewhere(name: str, own: Sequence[str], stage: Sequence[str]) -> int:
    asked = command_line.parse(name, own, stage)
    backend, job = BACKENDS[name], asked.job
    if asked.verb in verbs.LOOKING:
        if asked.dry_run:
            print("\n".join(each.text() for each in verbs.looking(backend, asked.verb, job)))
            return 0
        return verbs.look(backend, asked.verb, job)
    if asked.dry_run:
        print(script(backend, job, asked.clean_up, asked.keep, asked.fit))
        return 0
    go = verbs.run_supervised if asked.verb == "supervise" else verbs.run
    return go(backend, job, asked.clean_up, asked.keep, asked.fit)


def _local(own: Sequence[str], stage: Sequence[str]) -> int:
    verb = own[0] if own and own[0] in ("run", "supervise") else ""
    values = flags.FlagValues()
    flags.DEFINE_integer("processes", 2, "of the job", 1, flag_values=values)
    flags.DEFINE_integer("devices", 1, "emulated in each; 0: those there", 0, flag_values=values)
    flags.DEFINE_integer("failures", 3, "after which to give up", 1, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "only print what would be started", flag_values=values)
    try:
        _, *rest = values([command_line.PROGRAM, *own[bool(verb) :]])
    except flags.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if rest:
        raise ConfigError(
            f"{rest[0]!r} is no flag nor verb (run, supervise); the stage stands after --"
        )
    job = Job(stage=tuple(stage))
    command_line.check_known(job)
    planned = local.job_of(stage, values.processes, values.devices)
    if values.dry_run:
        print("\n".join(process.text() for process in planned))
        return 0
    if verb != "supervise":
        return local.run(planned)
    told: list[signal.Signals] = []
    log = NOTES / "local" / (Path(job.results).name or stage[0]) / "attempts.jsonl"

    def attempt() -> int:  # on a port of its own each time
        return local.run(local.job_of(stage, values.processes, values.devices), told)

    return supervise(attempt, verbs.progress_of(job.results), log, told, Limits(values.failures))


def _stage_at(argv: Sequence[str]) -> int:
    return list(argv).index("--") if "--" in argv else len(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
