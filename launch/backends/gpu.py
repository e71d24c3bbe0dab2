"""GPUs of this machine, or of several nodes over ssh."""

from __future__ import annotations

from collections.abc import Sequence

from clue_jax.buckets import in_bucket
from clue_jax.errors import ConfigError
from launch import backend
from launch.backend import Backend
from launch.job import Job
from launch.local import Planned
from launch.plan import Command

# No questions, and a node that is gone is noticed within a minute.
SSH = (
    *("-o", "BatchMode=yes"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=4"),
)


class Gpu(Backend):
    """Machines that are there already, so that nothing is created or billed."""

    billed = False

    def check(self, job: Job) -> None:
        backend.need_nodes(job, "gpu")
        backend.check_stage(job)
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

    def stage_code(self, job: Job, hosts: Sequence[str]) -> list[Command]:
        if not job.hosts:
            return []
        archive, there = str(backend.archive_of(job)), f"{backend.folder_of(job)}.tar.gz"
        commands = [backend.pack_code(job)]
        for host in job.hosts:
            commands.append(Command(("scp", *SSH, archive, f"{host}:{there}")))
            commands.append(Command(("ssh", *SSH, host, backend.install_line(job))))
        return commands

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
            line = backend.run_line(job, number, environment)
            planned.append(Planned(("ssh", *SSH, host, line), remote=True))
        return planned

    def status(self, job: Job) -> list[Command]:
        look = ("pgrep", "-a", "-f", "clue_jax")
        if not job.hosts:
            return [Command(look)]
        return [Command(("ssh", *SSH, host, " ".join(look))) for host in job.hosts]

    def fetch(self, job: Job) -> list[Command]:
        if not job.hosts or in_bucket(job.results):
            return super().fetch(job)
        beside_code = f"{backend.folder_of(job)}/{job.results}"
        there = job.results if job.results.startswith("/") else beside_code
        here = backend.fetched(job)
        copy = Command(("scp", *SSH, "-r", f"{job.hosts[0]}:{there}/.", here))
        return [backend.make_folder(here), copy]

    def delete(self, job: Job) -> list[Command]:
        """Stops what still runs; code and results stay where they are."""
        return [
            Command(("ssh", *SSH, host, backend.host_line(job, "stop", node * job.processes + k)))
            for node, host in enumerate(job.hosts)
            for k in range(job.processes)
        ]
