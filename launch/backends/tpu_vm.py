"""The Cloud TPU API: queued resources, and the machines they bring.

Legacy: Google only mends it, and it has no TPU7x. v5e is there and at GKE alone; for v5p and v6e
take `tpu_gce`. See docs.cloud.google.com/tpu/docs/queued-resources.
"""

from __future__ import annotations

from collections.abc import Sequence

from clue_jax.errors import ClueError, ConfigError, LostPeerError
from launch import backend
from launch.backend import place
from launch.hosts import GCLOUD_KEEP_ALIVE, Hosts, check_installs, run_line
from launch.job import Job
from launch.local import Planned
from launch.plan import Command, Poll, command

QUEUE = ("gcloud", "compute", "tpus", "queued-resources")
NODE = ("gcloud", "compute", "tpus", "tpu-vm")
_GONE = dict.fromkeys(("SUSPENDING", "SUSPENDED", "DELETING"), LostPeerError.exit_code)


class TpuVm(Hosts):
    """One queued resource of the job's name; its nodes are one for each slice."""

    def check(self, job: Job) -> None:
        machines = backend.need_slice(job, "tpu_vm")
        backend.need(job, "tpu_vm", "zone")
        backend.check_bucket(job)
        backend.check_stage(job)
        check_installs(job)
        if not machines.names.accelerator:
            raise ConfigError(
                f"tpu_vm: job.accelerator: the Cloud TPU API has no {machines.chip}; use tpu_gce"
                " or gke"
            )

    def create(self, job: Job) -> list[Command]:
        machines = backend.need_slice(job, "tpu_vm")
        several = machines.slices > 1
        return [
            command(
                *(*QUEUE, "create", job.name),
                **place(job),
                node_id="" if several else job.name,
                node_count=machines.slices if several else "",
                node_prefix=job.name if several else "",
                accelerator_type=machines.accelerator_type,
                runtime_version=machines.names.runtime,
                spot=job.spot,
                reserved=bool(job.reservation),
                network=job.network,
                subnetwork=job.subnetwork,
                service_account=job.service_account,
                # Waiting for machines ends too; it costs nothing, but nobody may be there any more.
                valid_until_duration=f"{job.max_hours}h",
            )
        ]

    def ready(self, job: Job) -> list[Poll]:
        states = {"ACTIVE": 0, "FAILED": ClueError.exit_code, **_GONE}
        return [Poll(self._state(job), states)]

    def gone(self, job: Job) -> Poll | None:
        there = dict.fromkeys(("ACTIVE", "ACCEPTED", "PROVISIONING", "WAITING_FOR_RESOURCES"), 0)
        return Poll(self._state(job), {**there, "FAILED": LostPeerError.exit_code, **_GONE})

    def _state(self, job: Job) -> tuple[str, ...]:
        return command(*QUEUE, "describe", job.name, **place(job), format="value(state.state)").argv

    def reached(self, job: Job, hosts: Sequence[str]) -> Sequence[str]:
        if job.slices == 1:
            return [job.name]
        return [f"{job.name}-{number}" for number in range(job.slices)]

    def copy(self, job: Job, host: str, source: str, target: str) -> Command:
        return command(*NODE, "scp", source, f"{host}:{target}", worker="all", **place(job))

    def shell(self, job: Job, host: str, line: str) -> Command:
        return command(
            *NODE, "ssh", host, *GCLOUD_KEEP_ALIVE, worker="all", **place(job), command=line
        )

    def start(self, job: Job, hosts: Sequence[str]) -> list[Planned]:
        # The metadata of the machines say who the others are, of several slices too.
        several = backend.processes_of(job) > 1
        environment = backend.stage_environment(job) | (
            {"JAX_NUM_PROCESSES": "auto"} if several else {}
        )
        line = run_line(job, 0, environment)
        nodes = self.reached(job, hosts)
        return [Planned(self.shell(job, node, line).argv, remote=True) for node in nodes]

    def status(self, job: Job) -> list[Command]:
        return [command(*QUEUE, "describe", job.name, **place(job))]

    def delete(self, job: Job) -> list[Command]:
        """With the nodes of the queued resource (--force)."""
        return [command(*QUEUE, "delete", job.name, **place(job), force=True, quiet=True)]
