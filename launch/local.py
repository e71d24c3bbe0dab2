"""Several processes of one job on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clue_jax.errors import EXIT_DONE, EXIT_PREEMPTED, ConfigError, LostPeerError

PEER_SECONDS = 30.0  # in which the others of a lost process end by themselves
LOOK_SECONDS = 0.05
IN_SEVERAL = ("train", "export")  # stages whose processes find each other and share the work
_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")


@dataclass(frozen=True)
class Planned:
    """A process to be started."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    # Whether it is a connection to a process elsewhere (launch/host.sh), which is told to stop by
    # the end of its input. It ends with that process's exit code, or with 255 when it is lost.
    remote: bool = False

    def text(self) -> str:
        """As a line for a shell."""
        named = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join([*(["env"] if named else []), *named, *self.argv])


LOST_CONNECTION = 255  # of ssh


def job_of(stage: Sequence[str], processes: int, devices: int) -> list[Planned]:
    """The processes of a job; `stage` is its name and flags, `devices` those emulated in each.

    Raises:
        ConfigError: several processes of a stage that knows nothing of others.
    """
    if processes > 1 and stage[0] not in IN_SEVERAL:
        raise ConfigError(
            f"{stage[0]} is the work of one process: --processes=1 (in several: "
            f"{', '.join(IN_SEVERAL)})"
        )
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


def run(job: Sequence[Planned], told: list[signal.Signals] | None = None) -> int:
    """Starts a job and waits for it; gives its exit code.

    A signal is passed on to all processes. When one is lost the others are given time to notice,
    then they are ended; nothing is left running. When a connection is lost they are told to stop.

    Args:
        job: its processes.
        told: is given the signals that come.
    """
    started: list[subprocess.Popen[str]] = []
    echoes: list[threading.Thread] = []
    told = [] if told is None else told
    with _passing_on(started, told):
        try:
            for number, planned in enumerate(job):
                started.append(_start(planned))
                echoes.append(_echo(started[-1], number))
                if told:  # perhaps between the two lines above, when it was not known yet
                    _tell(started[-1], told[-1])
            return _verdict(job, started, told)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
                if process.stdin:
                    process.stdin.close()
            for echo in echoes:
                echo.join()


def say_no_more() -> None:
    """Lets what is printed from now on go nowhere, but for what goes into files."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.dup2(null, descriptor)
    os.close(null)


def ending_signals() -> list[signal.Signals]:
    """What tells a launcher to stop; SIGHUP, of a terminal that is closed, unless by nohup."""
    kinds = [signal.SIGTERM, signal.SIGINT]
    return kinds + [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)


def _verdict(
    job: Sequence[Planned],
    started: Sequence[subprocess.Popen[str]],
    told: Sequence[signal.Signals],
) -> int:
    """Waits until all have ended; the first that ended badly of itself says how the job did."""
    worst: _End | None = None
    limit = float("inf")
    while True:
        alive = [process for process in started if process.poll() is None]
        worst = _worst(worst, list(map(_code, job, started)))
        if worst and limit == float("inf"):
            limit = time.monotonic() + PEER_SECONDS
            if _is_disconnected(job, worst):  # its stage may be well, and then they all go on
                for process in alive:
                    _tell(process, signal.SIGTERM)
        if not alive:
            break
        if time.monotonic() > limit:
            _give_up(started)
            break
        time.sleep(LOOK_SECONDS)
    if worst is None:
        return EXIT_DONE
    number, code = worst.process, worst.code
    lost_connection = _is_disconnected(job, worst)
    if code >= 0 and not lost_connection:
        return code
    if -code in told:
        print("launch: stopped before the stage could be told to", file=sys.stderr, flush=True)
        return 128 - code
    fate = "disconnected" if lost_connection else f"ended by {signal.Signals(-code).name}"
    print(
        f"launch: error: process {number} of {len(started)} was {fate};"
        " run the same command again to continue",
        file=sys.stderr,
        flush=True,
    )
    return LostPeerError.exit_code


def _code(planned: Planned, process: subprocess.Popen[str]) -> int | None:
    """The exit code, negative for a death by signal, which a shell elsewhere numbers from 128."""
    code = process.poll()
    if planned.remote and code is not None and code in range(129, 160):
        return 128 - code
    return code


class _End(NamedTuple):
    """How a process ended; the least is the reason that the job did."""

    rank: int  # 0: a reason of its own; 1: as those do that see another die; 2: preempted
    spoke: bool  # comes after who was killed, of whom it may speak
    process: int
    code: int


def _give_up(started: Sequence[subprocess.Popen[str]]) -> None:
    """Ends those that have not ended by themselves, and names them: one may be why all others did,
    such as a connection to a machine that is gone."""
    for number, process in enumerate(started):
        if process.poll() is None:
            print(
                f"launch: process {number} of {len(started)} did not end with the others within"
                f" {PEER_SECONDS:g} s and is given up",
                file=sys.stderr,
                flush=True,
            )
            process.kill()


def _is_disconnected(job: Sequence[Planned], end: _End) -> bool:
    return job[end.process].remote and end.code == LOST_CONNECTION


def _worst(before: _End | None, codes: Sequence[int | None]) -> _End | None:
    """With the ends that were seen before and now; of those with a reason the first one stays."""
    ranks = {EXIT_PREEMPTED: 2, -signal.SIGABRT: 1}
    ends = [_End(ranks.get(c, 0), c > 0, n, c) for n, c in enumerate(codes) if c]
    if before and before.rank == 0:
        return before
    return min(ends, default=None)


def _start(planned: Planned) -> subprocess.Popen[str]:
    own = (sys.executable, "-S", str(_DIE_WITH_PARENT), str(os.getpid()))
    return subprocess.Popen(
        [*own, *planned.argv],
        env={**os.environ, **planned.environment},
        stdin=subprocess.PIPE if planned.remote else None,
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


def _tell(process: subprocess.Popen[str], number: int) -> None:
    """Passes a signal on; a process elsewhere is told by the end of its input at first."""
    if process.stdin and not process.stdin.closed:
        process.stdin.close()
    else:
        process.send_signal(number)


@contextlib.contextmanager
def _passing_on(
    started: Sequence[subprocess.Popen[str]], told: list[signal.Signals]
) -> Iterator[None]:
    """Adds the signals that come to `told`, and passes them on to those who run."""

    def send(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            say_no_more()
            number = signal.SIGTERM  # which stages listen to
        told.append(signal.Signals(number))
        for process in started:
            if process.poll() is None:
                _tell(process, number)

    previous = {kind: signal.signal(kind, send) for kind in ending_signals()}
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
