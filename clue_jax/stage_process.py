"""A stage as a process of its own, with this interpreter, as a person would run it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any


def run_stage(argv: Sequence[str], output: Any = None) -> int:
    """Runs a stage to its end and gives its exit code, negative where a signal ended it.

    Ctrl-C and SIGTERM reach the stage too, which saves and ends in its own time.

    Args:
        argv: the stage and its flags, without `python -m clue_jax`.
        output: an open file for what it prints; None: it is passed on as it comes.
    """
    command = [sys.executable, "-m", "clue_jax", *argv]
    errors = None if output is None else subprocess.STDOUT
    with (
        subprocess.Popen(command, stdout=output, stderr=errors) as process,
        _termination_passed_on(process),
    ):
        while process.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    return process.returncode


@contextlib.contextmanager
def _termination_passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
