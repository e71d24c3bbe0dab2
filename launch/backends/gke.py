"""Kubernetes: a JobSet, as GKE, xpk and Cluster Toolkit set clusters up for (jobset.sigs.k8s.io).

The cluster restarts what was preempted or lost, and stops where running again would not help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from clue_jax.errors import EXIT_DONE, ClueError, ConfigError
from launch import backend
from launch.backend import Backend
from launch.job import Job
from launch.machines import ANY_GPU, GPU_LABELS, HOST_CHIPS, Gpus, Slice
from launch.plan import Command, Poll

CONTAINER, REPLICAS = "stage", "workers"
GRACE_SECONDS = 120  # between SIGTERM and SIGKILL; a spot node gives less
KEPT_SECONDS = 24 * 3600  # of a JobSet that has ended, for its logs
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


class Gke(Backend):
    """A cluster with JobSet, and nodes of the kind that the job asks for, or an autoscaler."""

    detached = True

    def end(self, job: Job) -> str:
        return (
            f"pods end by themselves {job.max_hours} h after each start, of which there are"
            f" {job.restarts + 1} at most; nodes when their pool takes them away"
        )

    def check(self, job: Job) -> None:
        machines = job.machines
        backend.need(job, "gke", "image")
        backend.check_bucket(job)
        backend.check_stage(job)
        if job.processes > 1:
            raise ConfigError("gke: job.processes: one on each node")
        if "@" in job.service_account:
            raise ConfigError(
                f"gke: job.service_account: {job.service_account}: here it is one of Kubernetes,"
                " which Workload Identity ties to one of Google Cloud"
            )
        if isinstance(machines, Gpus) and machines.kind == ANY_GPU:
            kinds = ", ".join(f"{kind}:{machines.of_node}" for kind in GPU_LABELS)
            raise ConfigError(f"gke: job.accelerator: {job.accelerator}: which? {kinds}")

    def create(self, job: Job) -> list[Command]:
        if not job.build:
            return []
        return [
            Command(
                (
                    *("docker", "build", "--file=launch/Dockerfile"),
                    *(f"--build-arg=EXTRAS={backend.extras(job)}", f"--tag={job.image}", "."),
                )
            ),
            Command(("docker", "push", job.image)),
        ]

    def start(self, job: Job, hosts: Sequence[str]) -> list[Command]:
        text = yaml.safe_dump(jobset(job), sort_keys=False, width=100)
        return [Command((*_kubectl(job), "apply", "--filename=-"), text)]

    def ended(self, job: Job, printed: str) -> list[Poll]:
        asked = (*_kubectl(job), "get", "jobset", job.name)
        state = Poll(
            (*asked, "--output=jsonpath={.status.terminalState}"),
            {"Completed": EXIT_DONE, "Failed": ClueError.exit_code},
            30.0,
        )
        return [state]

    def gone(self, job: Job) -> Poll | None:
        asked = (*_kubectl(job), "get", "jobset", job.name, "--output=jsonpath={.metadata.name}")
        return Poll(asked, {job.name: 0})

    def status(self, job: Job) -> list[Command]:
        return [
            Command((*_kubectl(job), "get", "jobset", job.name)),
            Command((*_kubectl(job), "get", "pods", "--output=wide", _ours(job))),
        ]

    def logs(self, job: Job) -> list[Command]:
        words = ("logs", "--follow", "--prefix", "--tail=100", "--max-log-requests=1000")
        return [Command((*_kubectl(job), *words, _ours(job)))]

    def delete(self, job: Job) -> list[Command]:
        words = ("delete", "jobset", job.name, "--ignore-not-found", "--cascade=foreground")
        return [Command((*_kubectl(job), *words))]


def _kubectl(job: Job) -> tuple[str, ...]:
    return ("kubectl", f"--namespace={job.namespace}")


def _ours(job: Job) -> str:
    return f"--selector=jobset.sigs.k8s.io/jobset-name={job.name}"


def jobset(job: Job) -> dict[str, Any]:
    """The JobSet of a job (jobset.x-k8s.io/v1alpha2)."""
    machines = job.machines
    slices = machines.slices if isinstance(machines, Slice) else 1
    labels = {"app.kubernetes.io/name": "clue-jax"}
    if job.queue:
        labels["kueue.x-k8s.io/queue-name"] = job.queue
    annotations = {}
    if isinstance(machines, Slice):
        # Each slice has a node pool to itself.
        annotations["alpha.jobset.sigs.k8s.io/exclusive-topology"] = "cloud.google.com/gke-nodepool"
    final = [
        {
            "name": "final",
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"],
        }
    ]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": job.name, "labels": labels, "annotations": annotations},
        "spec": {
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            # What is not final, such as 75 or a node that went, begins anew with all of its pods.
            "failurePolicy": {"maxRestarts": job.restarts, "rules": final},
            "replicatedJobs": [
                {"name": REPLICAS, "replicas": slices, "template": {"spec": _job(job, slices)}}
            ],
        },
    }


def _job(job: Job, slices: int) -> dict[str, Any]:
    pods = backend.processes_of(job) // slices
    never_again = {
        "action": "FailJob",
        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [*backend.FINAL]},
    }
    return {
        "completionMode": "Indexed",
        "parallelism": pods,
        "completions": pods,
        "backoffLimit": 0,  # a pod alone cannot join the others again
        "activeDeadlineSeconds": job.max_hours * 3600,
        "podFailurePolicy": {"rules": [never_again]},
        "template": {"spec": _pod(job)},
    }


def _pod(job: Job) -> dict[str, Any]:
    machines = job.machines
    selector, limits, tolerated = {}, {}, []
    network: dict[str, Any] = {}
    security: dict[str, Any] = {"allowPrivilegeEscalation": False}
    if isinstance(machines, Slice):
        selector["cloud.google.com/gke-tpu-accelerator"] = machines.names.gke
        selector["cloud.google.com/gke-tpu-topology"] = machines.topology
        limits["google.com/tpu"] = HOST_CHIPS
        tolerated.append("google.com/tpu")
        network = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
        # The devices of a TPU are root's.
        security = {"privileged": True, "runAsUser": 0}
    if isinstance(machines, Gpus):
        selector["cloud.google.com/gke-accelerator"] = GPU_LABELS[machines.kind]
        limits["nvidia.com/gpu"] = machines.of_node
        tolerated.append("nvidia.com/gpu")
    if job.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        tolerated.append("cloud.google.com/gke-spot")
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        **network,
        "nodeSelector": selector,
        "tolerations": [{"key": key, "operator": "Exists"} for key in tolerated],
        "containers": [_container(job, limits, security)],
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
    }
    if job.service_account:
        pod["serviceAccountName"] = job.service_account
    return pod


def _container(job: Job, limits: Mapping[str, int], security: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": job.image,
        "command": ["python", *backend.MODULE],
        "args": [literal(word) for word in job.stage],
        "env": _environment(job),
        "resources": {"limits": {key: str(count) for key, count in limits.items()}},
        "securityContext": dict(security),
        # Collectives within a host go through it.
        "volumeMounts": [{"name": "memory", "mountPath": "/dev/shm"}],
    }


def _environment(job: Job) -> list[dict[str, Any]]:
    values = backend.stage_environment(job)
    index = []
    if isinstance(job.machines, Slice):
        if backend.processes_of(job) > 1:  # GKE tells the pods of a slice who the others are
            values["JAX_NUM_PROCESSES"] = "auto"
    else:
        first = f"{job.name}-{REPLICAS}-0-0.{job.name}"
        values |= backend.process_environment(job, first, 0)
        if values.pop("JAX_PROCESS_ID", None):
            index = [{"name": "JAX_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}]
    return [{"name": name, "value": literal(value)} for name, value in values.items()] + index


def literal(text: str) -> str:
    """A text that Kubernetes leaves as it is: it would put a variable in place of `$(NAME)`."""
    return text.replace("$", "$$")
