"""What processes of one job do alike: fail together, and look whether they are of one mind.

All are collectives: every process calls them, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from clue_jax.errors import EXIT_DONE, ConfigError, exit_code_of, kind_of
from clue_jax.files import canonical_json, sha256_text

T = TypeVar("T")


def together(action: Callable[[], T]) -> T:
    """Runs something in every process; where it fails in one, every process fails like it.

    Without it the others would wait in the next collective until the heartbeat gives the one up.

    Raises:
        Exception: what the action raised here; elsewhere the error of its exit code, which says
            what process it was.
    """
    failure: Exception | None = None
    try:
        done = action()
    except Exception as error:
        failure = error
    if jax.process_count() > 1:
        own = np.int32(exit_code_of(failure) if failure else EXIT_DONE)
        codes = np.asarray(multihost_utils.process_allgather(own))
        if codes.any() and failure is None:
            process = int(np.flatnonzero(codes)[0])
            raise kind_of(int(codes[process]))(
                f"process {process} could not go on; its own output says why"
            )
    if failure is not None:
        raise failure
    return done


def first_alone(action: Callable[[], object]) -> None:
    """Runs something in process 0 alone; where it fails there, every process fails like it.

    Raises:
        ClueError: what process 0 raised; elsewhere its class.
    """
    together(lambda: action() if jax.process_index() == 0 else None)


def first_decides(answer: bool) -> bool:
    """What process 0 answers; clocks, for one, differ."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(answer)))


def check_agreed(facts: Mapping[str, object]) -> None:
    """Compares facts, each a JSON value under its name, with those of process 0.

    A process with other data, settings or library versions would go astray unseen, or leave the
    others waiting for ever.

    Raises:
        ConfigError: names the facts and the processes that differ, and this process's value.
    """
    if jax.process_count() == 1:
        return
    words_F8 = np.array([_word(value) for value in facts.values()], np.uint8)
    words_PF8 = np.asarray(multihost_utils.process_allgather(words_F8))
    odd_PF = (words_PF8 != words_PF8[:1]).any(axis=2)
    if not odd_PF.any():
        return
    own = jax.process_index()
    problems = []
    for number, (name, value) in enumerate(facts.items()):
        if odd_PF[:, number].any():
            others = ", ".join(map(str, np.flatnonzero(odd_PF[:, number])))
            problems.append(f"{name} of process {others} is not that of process 0 (here: {value})")
    raise ConfigError(
        f"process {own} of {jax.process_count()}: {'; '.join(problems)}; give every process the"
        " same command, data and installation"
    )


def _word(value: object) -> list[int]:
    return list(bytes.fromhex(sha256_text(canonical_json(value)))[:8])
