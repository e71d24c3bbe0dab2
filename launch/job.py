"""What a job is: a stage with its flags, machines for it, and the names the clouds ask for.

A job is a JSON file (`launch/jobs/` has some), flags of the launcher, or both; flags win.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from clue_jax.config import from_json
from clue_jax.errors import ConfigError
from clue_jax.files import read_json
from launch.machines import Cpus, Gpus, Slice, machines_of


@dataclass(frozen=True)
class Job:
    """One description for every backend; a backend says which fields it needs."""

    name: str = ""  # of the job, and of all that is made for it
    stage: tuple[str, ...] = ()  # a stage of clue_jax and its flags, passed on unchanged
    accelerator: str = ""  # v5e:4x4 (chips of a TPU slice), h100:8 (GPUs of a node); none: CPUs
    slices: int = 1  # TPU slices
    nodes: int = 1  # of GPUs or CPUs
    processes: int = 1  # of the stage on each node; TPU hosts have one
    hosts: tuple[str, ...] = ()  # gpu: [USER@]HOST of each node; none: this machine
    spot: bool = False  # cheaper, and may be taken away at any time
    max_hours: int = 24  # after which machines that cost money go by themselves
    restarts: int = 20  # by SLURM or GKE
    failures: int = 3  # supervise: it gives up after so many without a later checkpoint
    price: float = 0.0  # of a chip or GPU in an hour, to say what the job costs; 0: unknown
    project: str = ""  # of Google Cloud; none: gcloud's own
    zone: str = ""  # of Google Cloud
    network: str = ""  # of Google Cloud; none: its default
    subnetwork: str = ""  # likewise
    service_account: str = ""  # as whom the machines read and write buckets; none: the default one
    reservation: str = ""  # of Compute Engine, whose machines to use
    image: str = ""  # gke: of the container (launch/Dockerfile)
    build: bool = False  # gke: build and push the image first
    namespace: str = "default"  # gke
    queue: str = ""  # gke: local queue of Kueue; none: no Kueue
    partition: str = ""  # slurm
    account: str = ""  # slurm
    cpus: int = 0  # slurm: cores of each process; 0: what the cluster gives
    folder: str = ""  # slurm: of this code, where all nodes see it; none: this folder
    python: str = ""  # gpu on this machine, slurm: the interpreter; none: this one
    environment: tuple[str, ...] = ()  # NAME=VALUE for the stage
    presets: bool = True  # flags of XLA for the chip (launch/xla_flags.py)
    sdc_checks: bool = False  # TPU: every program runs twice and is compared, at half the speed
    cache: str = ""  # folder or bucket of compiled programs; none: beside the results

    @property
    def machines(self) -> Slice | Gpus | Cpus:
        return machines_of(self.accelerator, self.slices, self.nodes)

    @property
    def results(self) -> str:
        """Where the stage writes: the last of its --workdir or --out; empty where it has none."""
        found = ""
        for position, word in enumerate(self.stage):
            name, equals, value = word.partition("=")
            if name in ("--workdir", "-workdir", "--out", "-out"):
                following = self.stage[position + 1 : position + 2]
                found = value if equals else "".join(following)
        return found


_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?"
_LABEL = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
_PATH = r"[A-Za-z0-9_./~][A-Za-z0-9_./~+-]*"
# What a text of a job may be, whole, and an example. They go where shells, URLs and YAML are near:
# the patterns are narrower than the clouds' own.
PATTERNS = {
    "name": (r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?", "clue-15m"),
    "accelerator": (r"[a-z0-9]+:[0-9x]+", "v5e:4x4"),
    "hosts": (rf"(?:[a-z_][a-z0-9_-]{{0,31}}@)?{_WORD}", "me@node1"),
    "project": (r"(?:[a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]", "my-project"),
    "zone": (r"[a-z]+-[a-z]+[0-9]+-[a-z]", "us-west4-a"),
    "network": (_LABEL, "default"),
    "subnetwork": (_LABEL, "default"),
    "service_account": (
        rf"{_LABEL}(?:@[a-z0-9.-]+)?",
        "runs@my-project.iam.gserviceaccount.com, or of Kubernetes: runs",
    ),
    "reservation": (_LABEL, "my-reservation"),
    "image": (
        r"[a-z0-9][a-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)*"
        r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
        "us-docker.pkg.dev/my-project/images/clue_jax:1",
    ),
    "namespace": (_LABEL, "default"),
    "queue": (_LABEL, "my-queue"),
    "partition": (_WORD, "gpu"),
    "account": (_WORD, "lab"),
    "folder": (_PATH, "/shared/clue_jax"),
    "python": (_PATH, ".venv/bin/python"),
    "cache": (rf"(?:(?:gs|s3)://)?{_PATH}", "gs://bucket/compiled"),
    "environment": (r"[A-Za-z_][A-Za-z0-9_]*=[^\0]*", "NCCL_DEBUG=INFO"),
}


def read_job(path: str, given: dict[str, Any], stage: Sequence[str]) -> Job:
    """The job of a file, with what flags say in its place.

    Args:
        path: a JSON file of fields; empty: none.
        given: fields by flags.
        stage: what stands after `--`: a stage with its flags in place of the file's, or, where it
            begins with a flag, flags to be added to it.

    Raises:
        ConfigError: an unknown field, a value of the wrong type or one that is refused; names it.
        DataError: the file is missing or no JSON.
    """
    if path and epath.Path(path).is_dir():
        raise ConfigError(f"--job={path}: is a folder; a job is a JSON file of fields")
    values = read_json(epath.Path(path)) if path else {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a job is an object of fields, {{...}}")
    added = bool(stage) and stage[0].startswith("-")
    words = [*values.get("stage", []), *stage] if added else list(stage)
    job = from_json(Job, values | given | ({"stage": words} if words else {}), "job")
    check_job(job)
    return job


def check_job(job: Job) -> None:
    """Refuses names that are no names, numbers that are none, and machines that there are not.

    Raises:
        ConfigError: names the field.
    """
    for field in dataclasses.fields(job):
        value = getattr(job, field.name)
        if field.name in PATTERNS:
            for text in value if isinstance(value, tuple) else (value,):
                _check_text(field.name, text)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            least = 0 if field.name in ("restarts", "price", "cpus") else 1
            if not least <= value < float("inf"):
                raise ConfigError(f"job.{field.name}: {value}: at least {least}")
    if not job.name:
        raise ConfigError(f"job.name is missing, such as {PATTERNS['name'][1]}")
    for word in job.stage:
        if "\0" in word:
            raise ConfigError(f"job.stage: {word!r}: no argument of a program can have a NUL")
    machines = job.machines
    if job.spot and job.reservation:
        raise ConfigError("job.spot: machines of job.reservation are no spot machines; give one")
    if isinstance(machines, Slice) and job.processes > 1:
        raise ConfigError("job.processes: a TPU host has one process")
    if isinstance(machines, Gpus) and machines.of_node % job.processes:
        raise ConfigError(
            f"job.processes: {job.processes} cannot share {machines.of_node} GPUs of a node"
        )


def _check_text(field: str, text: str) -> None:
    pattern, example = PATTERNS[field]
    if not text and field not in ("hosts", "environment"):  # not given
        return
    climbs = field != "environment" and ".." in text.split("/")
    if climbs or not re.fullmatch(pattern, text):
        raise ConfigError(f"job.{field}: {text!r} is refused; it is to be like {example}")
