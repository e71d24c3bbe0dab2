"""GPUs of this machine, or of several nodes over ssh."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from clue_jax.buckets import in_bucket
from clue_jax.errors import ConfigError
from launch import backend
from launch.hosts import KEEP_ALIVE, Hosts, check_installs, folder_of, host_line, run_line
from launch.job import Job
from launch.local import Planned
from launch.plan import Command

# BatchMode: no questions.
SSH = tuple(word for option in ("BatchMode=yes", *KEEP_ALIVE) for word in ("-o", option))


class Gpu(Hosts):
    """Machines that are there already, so that nothing is created or billed."""

    billed = False

    def check(self, job: Job) -> None:
        backend.need_nodes(job, "gpu")
        backend.check_stage(job)
        if job.hosts:
            check_installs(job)
        nodes = len(job.hosts) or 1
        if job.nodes != nodes:
            raise ConfigError(
                f"job.nodes: {job.nodes}, but job.hosts names {len(job.hosts)}; one host for each"
                " node, or none for this machine"
            )
        if nodes > 1 and job.results and not job.results.startswith(("gs://", "s3://", "/")):
            raise ConfigError(
                f"job.stage: {job.results!r}: give --workdir or --out in a bucket, or by its whole"
                " path on a file system that the nodes share"
            )

    def reached(self, job: Job, hosts: Sequence[str]) -> Sequence[str]:
        return job.hosts

    def copy(self, job: Job, host: str, source: str, target: str) -> Command:
        return Command(("scp", *SSH, source, f"{host}:{target}"))

    def shell(self, job: Job, host: str, line: str) -> Command:
        return Command(("ssh", *SSH, host, line))

    def start(self, job: Job, hosts: Sequence[str]) -> list[Planned]:
        first = job.hosts[0].rpartition("@")[2] if job.hosts else "127.0.0.1"
        planned = []
        for number in range(backend.processes_of(job)):
            environment = {
                **backend.stage_environment(job),
                **backend.process_environment(job, first, number),
            }
            if not job.hosts:
                planned.append(Planned((*backend.module(job), *job.stage), environment))
                continue
            host = job.hosts[number // job.processes]
            line = run_line(job, number, environment)
            planned.append(Planned(self.shell(job, host, line).argv, remote=True))
        return planned

    def status(self, job: Job) -> list[Command]:
        look = ("pgrep", "-a", "-f", "clue_jax")
        if not job.hosts:
            return [Command(look)]
        return [self.shell(job, host, " ".join(look)) for host in job.hosts]

    def logs(self, job: Job) -> list[Command]:
        if not job.hosts or not job.results or in_bucket(job.results):
            return super().logs(job)
        line = shlex.join([*backend.TAIL, f"{_there(job)}/metrics.jsonl"])
        return [self.shell(job, job.hosts[0], line)]

    def fetch(self, job: Job) -> list[Command]:
        if not job.hosts or not job.results or in_bucket(job.results):
            return super().fetch(job)
        here = backend.fetched(job)
        copy = Command(("scp", *SSH, "-r", f"{job.hosts[0]}:{_there(job)}/.", here))
        return [backend.make_folder(here), copy]

    def delete(self, job: Job) -> list[Command]:
        """Stops what still runs; code and results stay where they are."""
        return [
            self.shell(job, host, host_line(job, "stop", node * job.processes + k))
            for node, host in enumerate(job.hosts)
            for k in range(job.processes)
        ]


def _there(job: Job) -> str:
    """The folder of results on the first host, from where its user begins."""
    return job.results if job.results.startswith("/") else f"{folder_of(job)}/{job.results}"
