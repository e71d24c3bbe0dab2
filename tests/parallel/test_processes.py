"""How a process finds the others of its job, by its environment."""

import jax
import pytest

from clue_jax.errors import ConfigError
from clue_jax.parallel import processes

NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_NTASKS")


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` is called with."""
    calls = []

    def initialize(*arguments, **limits):
        assert limits["heartbeat_timeout_seconds"] <= 30 and "shutdown_timeout_seconds" in limits
        calls.append(arguments)

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    return calls


def given(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.join_processes()


def test_a_process_alone_joins_nobody(joined):
    processes.join_processes()
    assert joined == []


def test_processes_are_named_by_hand(joined, monkeypatch):
    address = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "4"}
    given(monkeypatch, **address, JAX_PROCESS_ID="3")
    assert joined == [("host:1", 4, 3)]


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_NUM_PROCESSES": "auto"},
        {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "n[0-1]"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        {"TPU_PROCESS_ADDRESSES": "a:1,b:1"},
        {"MEGASCALE_NUM_SLICES": "2"},
    ],
)
def test_jax_finds_the_others_where_there_are_any(joined, monkeypatch, environment):
    given(monkeypatch, **environment)
    assert joined == [()]


@pytest.mark.parametrize(
    "environment", [{"SLURM_NTASKS": "4"}, {"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n0"}]
)
def test_a_shell_of_a_scheduler_is_no_job(joined, monkeypatch, environment):
    given(monkeypatch, **environment)
    assert joined == []


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_NUM_PROCESSES, JAX_PROCESS_ID: not in the env"),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID: not in"),
        (
            {"JAX_COORDINATOR_ADDRESS": "h", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID=2: processes are numbered from 0 and below JAX_NUM_PROCESSES=2",
        ),
    ],
)
def test_half_an_environment_is_refused(joined, monkeypatch, environment, problem):
    with pytest.raises(ConfigError, match=problem):
        given(monkeypatch, **environment)


def test_nothing_found_is_refused(joined, monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ConfigError, match="the processes of this job were not found: coord"):
        given(monkeypatch, JAX_NUM_PROCESSES="auto")
