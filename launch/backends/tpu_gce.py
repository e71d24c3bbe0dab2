"""TPUs of Compute Engine: a managed instance group whose machines form one slice.

A workload policy says the topology, an instance template the machine, and the group makes all of
its machines at once or none (bulk). See docs.cloud.google.com/compute/docs/tpus.
"""

from __future__ import annotations

from collections.abc import Sequence

from clue_jax.errors import ConfigError, LostPeerError
from launch import backend
from launch.backend import place
from launch.hosts import GCLOUD_KEEP_ALIVE, Hosts, check_installs, run_line
from launch.job import Job
from launch.local import Planned
from launch.machines import IMAGE_PROJECT, TPU_NAMES, Slice
from launch.plan import Command, Poll, command

COMPUTE = ("gcloud", "compute")
GROUPS = (*COMPUTE, "instance-groups", "managed")
DISK = "200GB"  # the image's own 10 GB do not hold the environment


class TpuGce(Hosts):
    """Everything has the name of the job."""

    def check(self, job: Job) -> None:
        machines = self._slice(job)
        backend.need(job, "tpu_gce", "project", "zone")
        backend.check_bucket(job)
        backend.check_stage(job)
        check_installs(job)
        if machines.slices > 1:
            raise ConfigError(
                f"tpu_gce: job.slices: {machines.slices}: a group is one slice, and several groups"
                " at once are not made; several slices of v5p, v6e and TPU7x are at gke, of v5p and"
                " v6e at tpu_vm"
            )
        if not machines.names.image_family:
            known = [chip for chip, names in TPU_NAMES.items() if names.image_family]
            raise ConfigError(
                f"tpu_gce: job.accelerator: Compute Engine has no {machines.chip}, but"
                f" {', '.join(known)}; {machines.chip} is at tpu_vm and gke"
            )

    def _slice(self, job: Job) -> Slice:
        return backend.need_slice(job, "tpu_gce")

    def end(self, job: Job) -> str:
        return f"they end by themselves {job.max_hours} h after they were made"

    def create(self, job: Job) -> list[Command]:
        machines = self._slice(job)
        linked = machines.hosts > 1
        policy = command(
            *(*COMPUTE, "resource-policies", "create", "workload-policy", job.name),
            project=job.project,
            region=_region(job),
            type="HIGH_THROUGHPUT",
            accelerator_topology=machines.topology,
        )
        group = command(
            *(*GROUPS, "create", job.name),
            **place(job),
            size=machines.hosts,
            template=f"{_resources(job)}/instanceTemplates/{job.name}",
            workload_policy=f"{_resources(job)}/resourcePolicies/{job.name}" if linked else "",
            target_size_policy_mode="bulk" if linked else "",
            # A machine that comes back alone is no use to the others, and `supervise` decides.
            default_action_on_vm_failure="do-nothing",
        )
        return [*([policy] if linked else []), self._template(job), group]

    def _template(self, job: Job) -> Command:
        machines = self._slice(job)
        model = "SPOT" if job.spot else "RESERVATION_BOUND" if job.reservation else "STANDARD"
        return command(
            *(*COMPUTE, "instance-templates", "create", job.name),
            project=job.project,
            instance_template_region=_region(job),
            machine_type=machines.names.machine_type,
            provisioning_model=model,
            reservation_affinity="specific" if job.reservation else "",
            reservation=job.reservation,
            max_run_duration=f"{job.max_hours}h",
            instance_termination_action="DELETE",
            maintenance_policy="TERMINATE",  # a machine with a TPU cannot be moved
            image_project=IMAGE_PROJECT,
            image_family=machines.names.image_family,
            boot_disk_size=DISK,
            network=job.network,
            subnet=job.subnetwork,
            service_account=job.service_account,
            scopes="cloud-platform",  # buckets
        )

    def ready(self, job: Job) -> list[Poll]:
        # The group itself would go on asking for capacity for ever.
        return [Poll(self._state(job), {"True": 0}, limit=job.max_hours * 3600)]

    def gone(self, job: Job) -> Poll | None:
        return Poll(self._state(job), {"True": 0, "False": LostPeerError.exit_code})

    def _state(self, job: Job) -> tuple[str, ...]:
        asked = command(
            *GROUPS, "describe", job.name, **place(job), format="value(status.isStable)"
        )
        return asked.argv

    def hosts(self, job: Job) -> Command | None:
        return command(
            *GROUPS,
            "list-instances",
            job.name,
            **place(job),
            format="value(instance.basename())",
        )

    def copy(self, job: Job, host: str, source: str, target: str) -> Command:
        return command(*COMPUTE, "scp", source, f"{host}:{target}", **place(job))

    def shell(self, job: Job, host: str, line: str) -> Command:
        return command(*COMPUTE, "ssh", host, *GCLOUD_KEEP_ALIVE, **place(job), command=line)

    def start(self, job: Job, hosts: Sequence[str]) -> list[Planned]:
        # Names of machines resolve within their network.
        lines = [
            run_line(
                job,
                number,
                backend.stage_environment(job) | backend.process_environment(job, hosts[0], number),
            )
            for number in range(len(hosts))
        ]
        return [
            Planned(self.shell(job, host, line).argv, remote=True)
            for host, line in zip(hosts, lines, strict=True)
        ]

    def status(self, job: Job) -> list[Command]:
        return [command(*GROUPS, "list-instances", job.name, **place(job))]

    def delete(self, job: Job) -> list[Command]:
        in_region = {"project": job.project, "region": _region(job)}
        templates = (*COMPUTE, "instance-templates", "delete")
        commands = [
            command(*GROUPS, "delete", job.name, **place(job), quiet=True),
            command(*templates, job.name, **in_region, quiet=True),
        ]
        if self._slice(job).hosts > 1:
            policies = (*COMPUTE, "resource-policies", "delete", job.name)
            commands.append(command(*policies, **in_region, quiet=True))
        return commands


def _region(job: Job) -> str:
    return job.zone.rpartition("-")[0]


def _resources(job: Job) -> str:
    return f"projects/{job.project}/regions/{_region(job)}"
