"""Several processes of one job on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_jax.errors import EXIT_DONE, EXIT_PREEMPTED, LostPeerError

PEER_SECONDS = 30.0  # in which the others of a lost process end by themselves
LOOK_SECONDS = 0.05
_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")


@dataclass(frozen=True)
class Planned:
    """A process to be started."""

    argv: tuple[str, ...]
    environment: dict[str, str]

    def text(self) -> str:
        """As a line for a shell."""
        return shlex.join(["env", *(f"{k}={v}" for k, v in self.environment.items()), *self.argv])


def job_of(stage: Sequence[str], processes: int, devices: int) -> list[Planned]:
    """The processes of a job; `stage` is its name and flags, `devices` those emulated in each."""
    argv = (sys.executable, "-u", "-m", "clue_jax", *stage)
    shared = {}
    if processes > 1:
        shared["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{_free_port()}"
        shared["JAX_NUM_PROCESSES"] = str(processes)
    if devices:
        emulated = f"--xla_force_host_platform_device_count={devices}"
        shared["JAX_PLATFORMS"] = "cpu"
        shared["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {emulated}".strip()
    own = [{"JAX_PROCESS_ID": str(k)} if processes > 1 else {} for k in range(processes)]
    return [Planned(argv, shared | number) for number in own]


def run(job: Sequence[Planned]) -> int:
    """Starts a job and waits for it; gives its exit code.

    A signal is passed on to all processes. When one is lost the others are given time to notice,
    then they are ended; nothing is left running.
    """
    started: list[subprocess.Popen[str]] = []
    echoes: list[threading.Thread] = []
    with _passing_on(started):
        try:
            for number, planned in enumerate(job):
                started.append(_start(planned))
                echoes.append(_echo(started[-1], number))
            return _verdict(started)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
            for echo in echoes:
                echo.join()


def _verdict(started: Sequence[subprocess.Popen[str]]) -> int:
    """Waits until all have ended; the first that did not end well says how the job ended."""
    first: tuple[int, int] | None = None
    limit = float("inf")
    while alive := [p for p in started if p.poll() is None]:
        codes = [process.poll() for process in started]
        if first is None and (first := _first_bad(codes)):
            limit = time.monotonic() + PEER_SECONDS
        if time.monotonic() > limit:
            for process in alive:
                process.kill()
        time.sleep(LOOK_SECONDS)
    number, code = first or _first_bad([process.poll() for process in started]) or (0, EXIT_DONE)
    if code >= 0:
        return code
    print(
        f"launch: error: process {number} of {len(started)} was ended by"
        f" {signal.Signals(-code).name}; run the same command again to continue",
        file=sys.stderr,
        flush=True,
    )
    return LostPeerError.exit_code


def _first_bad(codes: Sequence[int | None]) -> tuple[int, int] | None:
    """Number and code of a process that ended badly; one that was killed before those that saw."""
    bad = [(number, code) for number, code in enumerate(codes) if code]
    spoke = [found for found in bad if found[1] > 0 and found[1] != EXIT_PREEMPTED]
    killed = [found for found in bad if found[1] < 0 and found[1] != -signal.SIGABRT]
    return next(iter(killed + spoke + bad), None)


def _start(planned: Planned) -> subprocess.Popen[str]:
    own = (sys.executable, "-S", str(_DIE_WITH_PARENT), str(os.getpid()))
    return subprocess.Popen(
        [*own, *planned.argv],
        env={**os.environ, **planned.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Signals of a terminal reach this process alone, which passes them on once.
        process_group=0,
    )


def _echo(process: subprocess.Popen[str], number: int) -> threading.Thread:
    """Prints what a process says as it says it; all but the first with their number before it."""
    label = f"[{number}] " if number else ""

    def copy() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                print(f"{label}{line}", end="", flush=True)

    thread = threading.Thread(target=copy, name=f"output of process {number}")
    thread.start()
    return thread


@contextlib.contextmanager
def _passing_on(started: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    def send(number: int, frame: Any) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    kinds = signal.SIGTERM, signal.SIGINT
    previous = {kind: signal.signal(kind, send) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
