"""Stages of an export overlap, hold little, and fail as one."""

import threading
import time

import numpy as np
import pytest

from clue_jax.data.ahead import made_ahead
from clue_jax.exporting.pipeline import Encoded, write_behind


def parts(count, made):
    for part in range(count):
        made.append(part)
        yield Encoded(part, np.zeros((1, 1, 1)), np.ones((1, 1), bool))


def test_a_part_is_written_while_the_next_is_made_and_no_more():
    made, written, ahead = [], [], []
    here = threading.current_thread()

    def write(part):
        assert threading.current_thread() is not here
        time.sleep(0.02)
        ahead.append(len(made) - part.part - 1)
        written.append(part.part)

    write_behind(parts(6, made), write)
    assert written == list(range(6))
    assert max(ahead) == 1 and ahead[-1] == 0


def test_what_writing_raises_ends_the_rest():
    made = []

    def write(part):
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_behind(parts(50, made), write)
    assert len(made) <= 2


def test_things_are_made_ahead_by_so_many_and_errors_come_through():
    made = []

    def source():
        for number in range(10):
            made.append(number)
            yield number
        raise ValueError("the end")

    things = made_ahead(source(), 2, "test")
    assert next(things)[0] == 0
    time.sleep(0.1)
    assert len(made) == 4, "two are ready, one waits for room"
    with pytest.raises(ValueError, match="the end"):
        list(things)
    assert made == list(range(10))
    things = made_ahead(source(), 1, "test")
    next(things)
    things.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "test"]
