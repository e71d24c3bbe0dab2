"""What is done with a job at a backend: run, supervise, status, logs, fetch, delete."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clue_jax.console import say
from clue_jax.errors import EXIT_DONE, ClueError, ConfigError, LostPeerError
from launch import local, plan
from launch.backend import NOTES, Backend
from launch.fits import check_fit, compile_command
from launch.job import Job
from launch.local import Planned
from launch.plan import Command, Poll
from launch.supervise import newest_step, supervise

LOOKING = ("status", "logs", "fetch", "delete")
VERBS = ("run", "supervise", *LOOKING)


def look(backend: Backend, verb: str, job: Job) -> int:
    """Runs the commands of status, logs, fetch or delete."""
    commands = looking(backend, verb, job)
    plan.require_tools(command.argv[0] for command in commands)
    if verb == "delete":
        return _clean_up(commands)
    for command in commands:
        plan.run(command)
    return EXIT_DONE


def looking(backend: Backend, verb: str, job: Job) -> list[Command]:
    """The commands of status, logs, fetch or delete."""
    found: dict[str, Callable[[Job], list[Command]]] = {
        "status": backend.status,
        "logs": backend.logs,
        "fetch": backend.fetch,
        "delete": backend.delete,
    }
    return found[verb](job)


def run(backend: Backend, job: Job, clean_up: str, keep: bool, fit: bool) -> int:
    """Makes machines, brings the code, runs the stage, and removes the machines again.

    Args:
        backend: where.
        job: what.
        clean_up: command that removes everything, to be told to a person.
        keep: whether machines stay after the stage.
        fit: whether to compile the step for its chips first.

    Raises:
        ClueError: something failed; what was made is removed again.
    """
    _prepare(backend, job, clean_up, fit)
    _refuse_what_is_there(backend, job, clean_up)
    told: list[signal.Signals] = []
    with _removing(backend, job, keep):
        code = _attempt(backend, job, _bring_up(backend, job), told, wait=False)
    if backend.detached:
        say(f"launch: {job.name} is on its way; logs, status and delete are at: {clean_up}")
    return code


def run_supervised(backend: Backend, job: Job, clean_up: str, keep: bool, fit: bool) -> int:
    """Like `run`, again and again; goes on with machines that are there, and replaces lost ones.

    Raises:
        ClueError: see `run`.
    """
    _prepare(backend, job, clean_up, fit)
    if backend.detached:
        _refuse_what_is_there(backend, job, clean_up)
    told: list[signal.Signals] = []
    brought: list[list[str]] = []  # hosts that have the code, once there are any

    def attempt() -> int:
        if brought and _were_lost(backend, job):
            say("launch: making room for another attempt")
            brought.clear()
            _clean_up(backend.delete(job))
        try:
            if not brought:
                brought.append(_bring_up(backend, job, there=_is_there(backend, job)))
        except ConfigError:
            raise
        except ClueError as error:
            _clean_up(backend.delete(job))
            raise LostPeerError(f"no machines: {error}") from error
        return _attempt(backend, job, brought[0], told, wait=True)

    log, progress = NOTES / job.name / "attempts.jsonl", progress_of(job.results)
    with _removing(backend, job, keep):
        return supervise(attempt, progress, log, told)


def progress_of(results: str) -> Callable[[], int | None]:
    """Asks for the newest step; while a bucket does not answer, it is the one before.

    Raises:
        ConfigError: the library for that kind of bucket is missing.
    """
    before: list[int | None] = [None]

    def ask() -> int | None:
        try:
            before[0] = newest_step(results)
        except ImportError as error:
            kind = results.partition(":")[0]
            raise ConfigError(
                f"{results}: {error}; to see how far the run is: pip install '.[{kind}]'"
            ) from error
        except Exception as error:  # whatever the library of a bucket may raise
            say(f"launch: {results}: {type(error).__name__}: {error}; how far it is, is unknown")
        return before[0]

    ask()
    return ask


def _prepare(backend: Backend, job: Job, clean_up: str, fit: bool) -> None:
    commands = [
        *backend.create(job),
        *backend.stage_code(job, ["HOST"]),
        *backend.start(job, ["HOST"] * job.machines.all_hosts),
    ]
    plan.require_tools(command.argv[0] for command in commands)
    if fit:
        check_fit(job)
    for line in cost_lines(backend, job, clean_up):
        say(f"launch: {line}")


def _bring_up(backend: Backend, job: Job, there: bool = False) -> list[str]:
    """Makes machines where there are none, waits for them, brings the code; gives their names."""
    if not there:
        plan.run_all(backend.create(job))
    for poll in backend.ready(job):
        if code := plan.ask(poll):
            raise ClueError(f"{shlex.join(poll.argv)}: the machines did not come ({code})")
    asked = backend.hosts(job)
    hosts = plan.run(asked, capture=True).split() if asked else []
    if asked and len(hosts) != job.machines.all_hosts:
        raise ClueError(
            f"{shlex.join(asked.argv)}: names {len(hosts)} machines, the job has"
            f" {job.machines.all_hosts}"
        )
    plan.run_all(backend.stage_code(job, hosts))
    return hosts


def _attempt(
    backend: Backend, job: Job, hosts: Sequence[str], told: list[signal.Signals], *, wait: bool
) -> int:
    """Runs the stage on machines that have the code; its exit code once it has ended.

    Where a stage goes on without us, `wait` says whether to ask until it has ended.
    """
    started = backend.start(job, hosts)
    processes = [each for each in started if isinstance(each, Planned)]
    if processes:
        return local.run(processes, told)
    commands = [each for each in started if isinstance(each, Command)]
    printed = "".join(plan.run(command, capture=True) for command in commands)
    print(printed, end="", flush=True)
    code = EXIT_DONE
    for poll in backend.ended(job, printed) if wait else []:
        code = plan.ask(poll)
    return code


def _is_there(backend: Backend, job: Job) -> bool:
    poll = backend.gone(job)
    return poll is not None and plan.ask_once(poll) == 0


def _were_lost(backend: Backend, job: Job) -> bool:
    """Whether others have to be asked for; a network that is away for a moment is no reason."""
    poll = backend.gone(job)
    return backend.detached or (poll is not None and plan.ask(poll) != 0)


def _refuse_what_is_there(backend: Backend, job: Job, clean_up: str) -> None:
    if _is_there(backend, job):
        raise ConfigError(
            f"job.name: {job.name} is there already; take another name, or remove it: {clean_up}"
        )


@contextlib.contextmanager
def _removing(backend: Backend, job: Job, keep: bool) -> Iterator[None]:
    """Whatever happens, machines that cost money are removed at the end, unless they are kept."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        # From here on nothing interrupts.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if backend.billed and not backend.detached and not keep:
                _clean_up(backend.delete(job))
        finally:
            signal.signal(signal.SIGTERM, before)
            signal.signal(signal.SIGINT, interrupt)


def _clean_up(commands: Sequence[Command]) -> int:
    """Runs every command, whatever becomes of the others."""
    failed = []
    for command in commands:
        try:
            plan.run(command)
        except ClueError as error:
            failed.append(str(error))
    for line in failed:
        print(f"launch: not removed, and perhaps still billed: {line}", file=sys.stderr, flush=True)
    return ClueError.exit_code if failed else EXIT_DONE


def cost_lines(backend: Backend, job: Job, clean_up: str) -> list[str]:
    """What is about to be paid for, and how it ends."""
    machines = job.machines
    if not backend.billed:
        return [f"{job.name}: {machines}; nothing is billed by this; to stop it: {clean_up}"]
    spot = ", spot" if job.spot else ""
    price = job.price * machines.all_chips  # of an hour
    hourly = f"USD {price:,.2f} an hour" if job.price else "price unknown (job.price)"
    most = f", USD {price * job.max_hours:,.2f} at most" if job.price else ""
    until = (
        f"they end by themselves after {job.max_hours} h{most}"
        if backend.ends_by_itself
        else "they do not end by themselves"
    )
    return [
        f"{job.name}: {machines}{spot}; billed from now on, {hourly}; {until}",
        f"to remove everything: {clean_up}",
    ]


def script(backend: Backend, job: Job, clean_up: str, keep: bool, fit: bool) -> str:
    """What `run` would do, as a shell script: every command with its arguments and input."""
    hosts = [f"HOST{number}" for number in range(job.machines.all_hosts)]
    lines = [f"# {line}" for line in cost_lines(backend, job, clean_up)]
    if fit and (compiled := compile_command(job)):
        lines += ["# Does it fit?", compiled.text()]
    if created := backend.create(job):
        lines += ["# Machines", *_texts(created)]
    lines += _texts(backend.ready(job))
    if asked := backend.hosts(job):
        lines += [f"# The machines' names, here {', '.join(hosts)}", asked.text()]
    if staged := backend.stage_code(job, hosts):
        lines += ["# Code", *_texts(staged)]
    started = backend.start(job, hosts)
    together = " &" if len(started) > 1 else ""
    held = any(isinstance(each, Planned) and each.remote for each in started)
    lines += ["# Stage" + "; input stays open, and tells the stage to stop by its end" * held]
    lines += [f"{each.text()}{together}" for each in started]
    lines += ["wait"] * bool(together)
    if backend.billed and not backend.detached and not keep:
        lines += ["# Removal", *_texts(backend.delete(job))]
    return "\n".join(lines)


def _texts(commands: Sequence[Command | Poll]) -> list[str]:
    return [command.text() for command in commands]
