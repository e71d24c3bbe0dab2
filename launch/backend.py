"""What a backend is: it turns a job into commands; it runs none of them itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from clue_jax.buckets import in_bucket
from clue_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    LockedError,
    NonFiniteError,
    StorageError,
)
from launch.job import Job
from launch.local import IN_SEVERAL, Planned
from launch.machines import Cpus, Gpus, Slice
from launch.plan import Command, Poll, command
from launch.xla_flags import preset

NOTES = Path("runs/launch")  # what the launcher itself writes, by name of the job
COORDINATOR_PORT = 8476
FOLLOW_SECONDS = 15.0  # of files in buckets
TAIL = ("tail", "-n", "100", "-F")
MODULE = ("-u", "-m", "clue_jax")
_NEVER_AGAIN = (ConfigError, DataError, CheckpointError, StorageError, NonFiniteError, LockedError)
FINAL = tuple(sorted(error.exit_code for error in _NEVER_AGAIN))  # would come again
_EXTRAS_OF_STAGES = {"scale": ["scale"], "evaluate": ["probes"]}


class Backend:
    """A place where jobs run. What a method gives is in the order in which it is to be run."""

    billed = True  # by the hour, from `create` to `delete`
    detached = False  # whether what `start` plans ends before the stage does

    def check(self, job: Job) -> None:
        """Raises ConfigError where a field that this place needs is missing or cannot be."""

    def end(self, job: Job) -> str:
        """When what is billed ends by itself, for a person."""
        return "they do not end by themselves"

    def create(self, job: Job) -> list[Command]:
        """Machines, which may come later."""
        return []

    def ready(self, job: Job) -> list[Poll]:
        """What to wait for until the machines are there."""
        return []

    def hosts(self, job: Job) -> Command | None:
        """Prints the names of the machines, a line each; none: nobody needs to know them."""
        return None

    def stage_code(self, job: Job, hosts: Sequence[str]) -> list[Sequence[Command]]:
        """Brings the code to the machines: steps, whose commands run side by side."""
        return []

    def start(self, job: Job, hosts: Sequence[str]) -> list[Planned] | list[Command]:
        """Starts the stage: processes to be watched together or, detached, commands that end."""
        raise NotImplementedError

    def ended(self, job: Job, printed: str) -> list[Poll]:
        """How a detached stage has ended, once it has; the last answer is its exit code.

        `printed` is what the commands of `start` did.
        """
        return []

    def gone(self, job: Job) -> Poll | None:
        """Whether machines are there (0) or were taken away; none: there is nothing to take."""
        return None

    def status(self, job: Job) -> list[Command]:
        """Says how the job is."""
        return []

    def logs(self, job: Job) -> list[Command]:
        """Follows what the stage writes of its progress."""
        return [_show(job)]

    def fetch(self, job: Job) -> list[Command]:
        """Copies results to this machine."""
        return [make_folder(fetched(job)), _copy_results(job)]

    def delete(self, job: Job) -> list[Command]:
        """Removes everything that `create` makes, also when only some of it is there."""
        return []


def extras(job: Job) -> str:
    """Of setup.py: what the chips, the buckets and the stage of a job need."""
    chips = {Slice: ["tpu"], Gpus: ["gpu"], Cpus: []}[type(job.machines)]
    words = " ".join([*job.stage, job.cache])
    buckets = [kind for kind in ("gs", "s3") if f"{kind}://" in words]
    return ",".join([*chips, *buckets, *_EXTRAS_OF_STAGES.get(job.stage[0], [])])


def stage_environment(job: Job) -> dict[str, str]:
    """Of every process of the stage; what the job says goes before the presets."""
    presets = preset(job.machines, job.sdc_checks) if job.presets else {}
    cache = {"JAX_COMPILATION_CACHE_DIR": _cache(job)} if _cache(job) else {}
    own = dict(text.split("=", 1) for text in job.environment)
    return {**presets, **cache, **own}


def _cache(job: Job) -> str:
    if job.cache or not job.results:
        return job.cache
    return str(epath.Path(job.results).parent / "compiled")


def process_environment(job: Job, address: str, number: int) -> dict[str, str]:
    """Says to one process of several who the others are; `address` is the first one's host."""
    machines, count = job.machines, processes_of(job)
    if count == 1:
        return {}
    found = {
        "JAX_COORDINATOR_ADDRESS": f"{address}:{COORDINATOR_PORT}",
        "JAX_NUM_PROCESSES": str(count),
        "JAX_PROCESS_ID": str(number),
    }
    if isinstance(machines, Gpus):
        each = machines.of_node // job.processes
        first = number % job.processes * each
        # Where JAX sees a scheduler it would else take one GPU for each process.
        found["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(first, first + each)))
    return found


def module(job: Job) -> list[str]:
    """Begins the stage with an environment that is there already."""
    return [job.python or sys.executable, *MODULE]


def processes_of(job: Job) -> int:
    """Of the whole job."""
    machines = job.machines
    return machines.all_hosts * (1 if isinstance(machines, Slice) else job.processes)


def check_stage(job: Job) -> None:
    """Raises ConfigError where several processes would do the work of one."""
    if processes_of(job) > 1 and job.stage[0] not in IN_SEVERAL:
        raise ConfigError(
            f"job.stage: {job.stage[0]} is the work of one process, but this job has"
            f" {processes_of(job)} (in several: {', '.join(IN_SEVERAL)})"
        )


def check_bucket(job: Job) -> None:
    """Raises ConfigError where results would go with the machines."""
    if job.results and not in_bucket(job.results):
        raise ConfigError(
            f"job.stage: {job.results!r} would be lost with the machines, and hosts would not share"
            " it: give --workdir or --out in a bucket, such as gs://bucket/runs/first"
        )


def need(job: Job, backend: str, *fields: str) -> None:
    """Raises ConfigError naming the fields that a backend cannot do without."""
    missing = [name for name in fields if not getattr(job, name)]
    if missing:
        raise ConfigError(f"{backend}: job.{', job.'.join(missing)}: needed here")


def need_slice(job: Job, backend: str) -> Slice:
    """The TPU chips of a job that can only have such."""
    machines = job.machines
    if not isinstance(machines, Slice):
        raise ConfigError(
            f"{backend}: job.accelerator: {job.accelerator!r}: this backend has TPUs, such as"
            " v6e:4x4"
        )
    return machines


def need_nodes(job: Job, backend: str) -> Gpus | Cpus:
    """The nodes of a job that can have no TPU."""
    machines = job.machines
    if isinstance(machines, Slice):
        raise ConfigError(
            f"{backend}: job.accelerator: {job.accelerator!r}: TPUs are at tpu_gce, gke and tpu_vm"
        )
    return machines


def place(job: Job) -> dict[str, str]:
    """Flags of gcloud that say where something is."""
    return {"project": job.project, "zone": job.zone}


def fetched(job: Job) -> str:
    """Folder of this machine for results."""
    return str(Path("runs") / job.name)


def make_folder(folder: str) -> Command:
    """Where it is missing."""
    return Command(("mkdir", "-p", folder))


def _copy_results(job: Job) -> Command:
    here = fetched(job)
    if job.results.startswith("gs://"):
        return command("gcloud", "storage", "rsync", job.results, here, recursive=True)
    if job.results.startswith("s3://"):
        return Command(("aws", "s3", "sync", job.results, here))
    if not job.results:
        raise ConfigError("job.stage: it writes no --workdir or --out to fetch")
    raise ConfigError(f"job.stage: its results, {job.results!r}, lie in no bucket to fetch from")


def _show(job: Job) -> Command:
    progress = f"{job.results}/metrics.jsonl"
    if job.results.startswith("gs://"):
        return Command(("gcloud", "storage", "cat", progress), again=FOLLOW_SECONDS)
    if job.results.startswith("s3://"):
        return Command(("aws", "s3", "cp", progress, "-"), again=FOLLOW_SECONDS)
    if not job.results:
        raise ConfigError("job.stage: it writes no --workdir or --out to read its progress from")
    return Command((*TAIL, progress))
