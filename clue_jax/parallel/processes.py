"""Start-up of a process that is one of several of the same job."""

from __future__ import annotations

import os

import jax

from clue_jax.console import silence
from clue_jax.errors import ConfigError

# A lost process is noticed after this long; the default of 100 s holds a whole pod.
HEARTBEAT_SECONDS = 10
_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Joins the other processes of the job, if the environment says that there are any.

    By hand with JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or as JAX
    finds them on SLURM, under MPI and on TPU pods. To be called before any device is looked at.

    Raises:
        ConfigError: only some of the three variables are there, or they are no such numbers.
    """
    if not jax.distributed.is_initialized():
        _join()
    if jax.process_index() != 0:
        silence()


def _join() -> None:
    given = {name: os.environ[name] for name in _BY_HAND if os.environ.get(name)}
    if "JAX_NUM_PROCESSES" in given or "JAX_PROCESS_ID" in given:
        count, number = _numbers(given)
        jax.distributed.initialize(
            given["JAX_COORDINATOR_ADDRESS"],
            count,
            number,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    elif _scheduled():
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def _numbers(given: dict[str, str]) -> tuple[int, int]:
    missing = [name for name in _BY_HAND if name not in given]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: not in the environment, but {', '.join(given)}")
    words = given["JAX_NUM_PROCESSES"], given["JAX_PROCESS_ID"]
    if not all(word.isdecimal() for word in words) or not int(words[1]) < int(words[0]):
        raise ConfigError(
            f"JAX_PROCESS_ID={words[1]}: processes are numbered from 0 and below"
            f" JAX_NUM_PROCESSES={words[0]}"
        )
    return int(words[0]), int(words[1])


def _scheduled() -> bool:
    """Whether a scheduler started several processes, in a way that JAX can tell."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    several_hosts = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return several_hosts or any(count.isdecimal() and int(count) > 1 for count in counts)
