"""Processes of the same job: how they find each other."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from functools import partial

import jax

from clue_jax.console import silence
from clue_jax.errors import ConfigError, Preempted, exit_code_of

# A lost process is noticed after this long; the default of 100 s holds a whole pod.
HEARTBEAT_SECONDS = 10
SHUTDOWN_SECONDS = 30
FIRST_LEAVES_SECONDS = 5
_ADDRESS, _COUNT, _NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join_processes() -> None:
    """Joins the other processes of the job, if the environment says that there are any.

    By hand with JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID. With
    JAX_NUM_PROCESSES=auto as JAX itself finds them (TPU pods, SLURM, MPI, Kubernetes), which is
    also tried where srun, mpirun or a TPU pod's variables are seen. To be called before any device
    is looked at.

    Raises:
        ConfigError: only some of the variables are there, they are no such numbers, or nothing was
            found.
    """
    if not jax.distributed.is_initialized():
        _join()
    if jax.process_index() != 0:
        silence()


@contextlib.contextmanager
def joined_processes() -> Iterator[None]:
    """Does something as one of the processes of a job; where it fails, none holds up the others.

    Raises:
        ConfigError: see `join_processes`.
    """
    join_processes()
    try:
        yield
    except BaseException as error:
        if jax.process_count() > 1 and not isinstance(error, Preempted):
            atexit.register(_leave, exit_code_of(error))
        raise


def _leave(exit_code: int) -> None:
    """Ends this process without JAX's own end of a job.

    That waits for the others, who may wait for this process in a collective, and then ends it by
    SIGABRT: nobody would learn the exit code. Process 0 goes a little later, since all others end
    as soon as it does, also where they have a reason of their own to tell.
    """
    if jax.process_index() == 0:
        time.sleep(FIRST_LEAVES_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def _join() -> None:
    given = {name: os.environ[name] for name in (_ADDRESS, _COUNT, _NUMBER) if name in os.environ}
    initialize = partial(
        jax.distributed.initialize,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
    asked = given.get(_COUNT) == "auto"
    if given and not asked:
        count, number = _numbers(given)
        initialize(given[_ADDRESS], count, number)
    elif asked or _scheduled():
        try:
            initialize()
        except ValueError as error:
            raise ConfigError(
                f"{_COUNT}: the processes of this job were not found: {error}"
            ) from error


def _numbers(given: dict[str, str]) -> tuple[int, int]:
    missing = [name for name in (_ADDRESS, _COUNT, _NUMBER) if name not in given]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: not in the environment, but {', '.join(given)}")
    if not all(given[name].isdecimal() for name in (_COUNT, _NUMBER)) or not int(
        given[_NUMBER]
    ) < int(given[_COUNT]):
        raise ConfigError(
            f"{_NUMBER}={given[_NUMBER]}: processes are numbered from 0 and below"
            f" {_COUNT}={given[_COUNT]}"
        )
    return int(given[_COUNT]), int(given[_NUMBER])


def _scheduled() -> bool:
    """Whether the environment of one of several processes is seen."""

    def several(name: str) -> bool:
        return os.environ.get(name, "").isdecimal() and int(os.environ[name]) > 1

    # In the shell of a SLURM job, outside srun, there is one process whatever the job has.
    by_slurm = several("SLURM_NTASKS") and "SLURM_STEP_NODELIST" in os.environ
    hosts = (os.environ.get(n, "") for n in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"))
    on_pod = any("," in names for names in hosts) or several("MEGASCALE_NUM_SLICES")
    return by_slurm or on_pod or several("OMPI_COMM_WORLD_SIZE")
