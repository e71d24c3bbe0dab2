"""Machines that are reached one by one, by a shell of theirs: how code and stage get there."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clue_jax.errors import ConfigError
from launch import backend
from launch.backend import Backend
from launch.job import Job
from launch.plan import Command

# A connection to a machine that is gone ends within a minute, so that nobody waits and pays for it:
# ssh asks three times, and gives up an interval after the last.
KEEP_ALIVE = ("ServerAliveInterval=15", "ServerAliveCountMax=3")
GCLOUD_KEEP_ALIVE = tuple(f"--ssh-flag=-o {option}" for option in KEEP_ALIVE)


class Hosts(Backend):
    """A backend says how to copy a file to a host and how to hand a line to its shell."""

    def copy(self, job: Job, host: str, source: str, target: str) -> Command:
        """Copies a file to where the host's user begins."""
        raise NotImplementedError

    def shell(self, job: Job, host: str, line: str) -> Command:
        """Has the host's shell read a line; ends with its exit code."""
        raise NotImplementedError

    def reached(self, job: Job, hosts: Sequence[str]) -> Sequence[str]:
        """Names for `copy` and `shell`; each may stand for several machines."""
        return hosts

    def stage_code(self, job: Job, hosts: Sequence[str]) -> list[Sequence[Command]]:
        reached = self.reached(job, hosts)
        if not reached:
            return []
        archive, target = str(_archive_of(job)), f"{folder_of(job)}.tar.gz"
        copies = [self.copy(job, host, archive, target) for host in reached]
        installs = [self.shell(job, host, _install_line(job)) for host in reached]
        # The first copy alone: on it gcloud makes and publishes a key, which must not happen twice.
        steps = [[_pack_code(job)], copies[:1], copies[1:], installs]
        return [step for step in steps if step]


def check_installs(job: Job) -> None:
    """Raises ConfigError where the environment that hosts are given cannot run the stage."""
    if job.stage[0] == "prepare" and any(w.lstrip("-").startswith("beam") for w in job.stage):
        raise ConfigError(
            "job.stage: --beam needs an environment of its own (docs/beam.md), and only starts and"
            " watches: run it by `gpu` without job.hosts, or `slurm`, with job.python, or by `gke`"
            " with an image that has it"
        )


def _archive_of(job: Job) -> Path:
    """The packed code."""
    return backend.NOTES / job.name / "code.tar.gz"


def _pack_code(job: Job) -> Command:
    return Command((sys.executable, "-m", "launch.pack", str(_archive_of(job))))


def folder_of(job: Job) -> str:
    """Of the code on a host, from where its user begins."""
    return f"clue_jax-{job.name}"


def _install_line(job: Job) -> str:
    """For the shell of a host that has the archive: unpacks and installs it."""
    folder, extra = folder_of(job), backend.extras(job)
    steps = (
        ["mkdir", "-p", folder],
        ["tar", "-xzf", f"{folder}.tar.gz", "-C", folder],
        ["sh", f"{folder}/launch/host.sh", "install", extra],
    )
    return " && ".join(map(shlex.join, steps))


def host_line(job: Job, verb: str, number: int, program: Sequence[str] = ()) -> str:
    """For the shell of a host: one verb of `launch/host.sh` there."""
    return shlex.join(["sh", f"{folder_of(job)}/launch/host.sh", verb, str(number), *program])


def run_line(job: Job, number: int, environment: Mapping[str, str]) -> str:
    """For the shell of a host: runs the stage there as one process of the job."""
    named = [f"{name}={value}" for name, value in environment.items()]
    program = ["env", *named, ".venv/bin/python", *backend.MODULE, *job.stage]
    return host_line(job, "run", number, program)
