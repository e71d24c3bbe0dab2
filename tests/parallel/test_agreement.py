"""Processes of a job fail together, and find out where they differ."""

import pytest

from clue_jax.errors import LockedError
from clue_jax.parallel.agreement import check_agreed, first_alone, first_decides, together
from tests.stages import finish_job, start_job


def locked():
    raise LockedError("mine")


def test_alone_nothing_is_asked_of_others():
    assert together(lambda: 3) == 3 and first_decides(True)
    check_agreed({"anything": object})
    done = []
    first_alone(lambda: done.append(1))
    assert done == [1]
    for run in (together, first_alone):
        with pytest.raises(LockedError, match="mine"):
            run(locked)


def test_two_processes():
    first, second = (
        [line for line in output.splitlines() if ": " in line and "Gloo" not in line]
        for output in finish_job(start_job(2, "tests.parallel.one_of_two"))
    )
    odd = "jax of process 1 is not that of process 0"
    way_out = "give every process the same command, data and installation"
    assert first == [
        "all well: 0",
        "one fails: StorageError: process 1 could not go on; its own output says why",
        "first alone: None",
        "decides: True",
        "same: None",
        f"other: ConfigError: process 0 of 2: {odd} (here: 0.0); {way_out}",
    ]
    assert second == [
        "all well: 1",
        "one fails: StorageError: disk full",
        "first alone: None",
        "decides: True",
        "same: None",
        f"other: ConfigError: process 1 of 2: {odd} (here: 0.1); {way_out}",
    ]
