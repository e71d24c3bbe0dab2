"""SLURM: a batch script that says to each task which one it is, and goes back into the queue."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Sequence
from pathlib import Path

from clue_jax.errors import EXIT_PREEMPTED, ConfigError, LostPeerError
from launch import backend
from launch.backend import Backend
from launch.job import Job
from launch.machines import Gpus
from launch.plan import Command, Poll, command

GRACE_SECONDS = 180  # between SIGTERM and the end of a job's time
# What each task does before it becomes the stage; SLURM's own variables say which one it is.
# Without JAX_LOCAL_DEVICE_IDS a task with several GPUs would take one: JAX goes by SLURM_LOCALID.
_TASK = {
    "number": 'export JAX_PROCESS_ID="$SLURM_PROCID"',
    "gpus": (
        "first=$((SLURM_LOCALID * {each}))\n"
        'JAX_LOCAL_DEVICE_IDS=$(seq -s, "$first" $((first + {each} - 1)))\n'
        "export JAX_LOCAL_DEVICE_IDS"
    ),
    "alone": 'exec "$@"',
    # srun gives the highest code of all tasks: where one fails that of those which die with it. The
    # reason goes into the job's comment, which needs no file system. The shell has to outlive the
    # SIGTERM that tells the stage to save: both are sent it.
    "of_several": (
        "trap : TERM\n"
        "code=0\n"
        '"$@" || code=$?\n'
        'case "$code" in {final})\n'
        '  scontrol update JobId="$SLURM_JOB_ID"'
        ' Comment="launch ${{SLURM_RESTART_COUNT:-0}}: $code"\n'
        "esac\n"
        'exit "$code"'
    ),
}
_REASON = """\
if [ "$code" -ne 0 ]; then
  said=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%k) || said=""
  case "$said" in
    "launch ${SLURM_RESTART_COUNT:-0}: "*) code=${said##*: } ;;
  esac
fi"""
_SEVERAL = """\
address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export JAX_COORDINATOR_ADDRESS="$address:$((20000 + SLURM_JOB_ID % 20000))"
export JAX_NUM_PROCESSES="$SLURM_NTASKS"
"""
# 75: saved before it was stopped; 7 and signals: a node or a task was lost.
_AGAIN = """\
if [ "$code" -eq {preempted} ] || [ "$code" -eq {lost} ] || [ "$code" -gt 128 ]; then
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    echo "launch: exit code $code: back into the queue"
    scontrol requeue "$SLURM_JOB_ID" || echo "launch: it could not go back" >&2
  fi
fi
exit "$code"
"""


class Slurm(Backend):
    """The code lies on a file system that the nodes share, with an environment that has it."""

    billed = False
    detached = True

    def check(self, job: Job) -> None:
        backend.need_nodes(job, "slurm")
        backend.check_stage(job)
        if job.hosts:
            raise ConfigError("slurm: job.hosts: SLURM chooses the nodes; how many is job.nodes")

    def create(self, job: Job) -> list[Command]:
        return [backend.make_folder(str(_log(job).parent))]  # SLURM makes none for a log

    def start(self, job: Job, hosts: Sequence[str]) -> list[Command]:
        return [Command(("sbatch", "--parsable"), batch_script(job))]

    def ended(self, job: Job, printed: str) -> list[Poll]:
        number = printed.strip().partition(";")[0]  # sbatch may add the cluster
        asked = command(
            *("sacct", "--noheader", "--parsable2", "--allocations"),
            jobs=number,
            format="State,ExitCode",
        )
        # Of a job that went back into the queue sacct shows the newest run alone.
        ends = (*range(2, 9), EXIT_PREEMPTED, *range(129, 160))  # the last ones by a signal
        codes = {f"FAILED|{code}:0": code for code in ends}
        fates = {"COMPLETED": 0, "FAILED": 1, "OUT_OF_MEMORY": 1, "CANCELLED": 1, "TIMEOUT": 75}
        lost = dict.fromkeys(("NODE_FAIL", "PREEMPTED", "BOOT_FAIL"), LostPeerError.exit_code)
        return [Poll(asked.argv, codes | fates | lost, 60.0)]

    def gone(self, job: Job) -> Poll | None:
        asked = command("squeue", "--me", "--noheader", name=job.name, format="%T")
        states = ("RUNNING", "PENDING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUE")
        return Poll(asked.argv, dict.fromkeys(states, 0))

    def status(self, job: Job) -> list[Command]:
        return [command("squeue", "--me", name=job.name)]

    def logs(self, job: Job) -> list[Command]:
        return [Command((*backend.TAIL, str(_log(job))))]

    def delete(self, job: Job) -> list[Command]:
        return [command("scancel", name=job.name, user=getpass.getuser())]


def batch_script(job: Job) -> str:
    """The script that sbatch reads."""
    machines = job.machines
    settings: dict[str, str | int | bool] = {
        "job_name": job.name,
        "nodes": job.nodes,
        "ntasks_per_node": job.processes,
        "cpus_per_task": job.cpus or "",
        "gpus_per_node": _gpus(machines) if isinstance(machines, Gpus) else "",
        "time": f"{job.max_hours}:00:00",
        "partition": job.partition,
        "account": job.account,
        "chdir": str(_folder(job)),
        "output": str(_log(job)),
        "open_mode": "append",
        "requeue": True,
        "signal": f"TERM@{GRACE_SECONDS}",  # to the tasks, which save
    }
    several = backend.processes_of(job) > 1
    task = [_TASK["number"]] if several else []
    if isinstance(machines, Gpus) and several:
        task.append(_TASK["gpus"].format(each=machines.of_node // job.processes))
    named = [f"{name}={value}" for name, value in backend.stage_environment(job).items()]
    stage = ["env", *named, *backend.module(job), *job.stage]
    # The others of a lost task notice and end by themselves, so that srun need not kill them.
    cpus = [f"--cpus-per-task={job.cpus}"] if job.cpus else []  # srun does not ask the script
    srun = ["srun", "--kill-on-bad-exit=0", "--wait=120", *cpus, "bash", "-c"]
    final = "|".join(map(str, backend.FINAL))
    task.append(_TASK["of_several"].format(final=final) if several else _TASK["alone"])
    program = "\n".join(task)
    again = _AGAIN.format(
        preempted=EXIT_PREEMPTED, lost=LostPeerError.exit_code, restarts=job.restarts
    )
    parts = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in command("", **settings).argv[1:]),
        "set -euo pipefail",
        *([_SEVERAL.rstrip()] if several else []),
        "code=0",
        *(
            ["# shellcheck disable=SC2016  # each task's own shell is to expand it"]
            if several
            else []
        ),
        f"{shlex.join([*srun, program, 'stage', *stage])} || code=$?",
        *([_REASON] if several else []),
        again,
    ]
    return "\n".join(parts)


def _gpus(machines: Gpus) -> str:
    kind = "" if machines.kind == "gpu" else f"{machines.kind}:"
    return f"{kind}{machines.of_node}"


def _folder(job: Job) -> Path:
    return Path(job.folder) if job.folder else Path.cwd()


def _log(job: Job) -> Path:
    return _folder(job) / backend.NOTES / job.name / "slurm.log"
