"""What is done with a job at a backend: run, supervise, status, logs, fetch, delete."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clue_jax.console import say
from clue_jax.errors import EXIT_DONE, ClueError, ConfigError, LostPeerError
from launch import local, plan
from launch.backend import NOTES, Backend
from launch.fits import check_fit
from launch.job import Job
from launch.local import Planned
from launch.plan import Command
from launch.show import cost_lines
from launch.supervise import Limits, newest_step, supervise

LOOKING = ("status", "logs", "fetch", "delete")
VERBS = ("run", "supervise", *LOOKING)


def look(backend: Backend, verb: str, job: Job) -> int:
    """Runs the commands of status, logs, fetch or delete."""
    commands = looking(backend, verb, job)
    plan.require_tools(command.argv[0] for command in commands)
    if verb == "delete":
        if not commands:
            say("launch: there is nothing to remove; the stage ends with its launcher (Ctrl-C)")
        return _clean_up(commands)
    for command in commands:
        (plan.follow if command.again else plan.run)(command)
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
    _prepare(backend, job, clean_up, fit, goes_on=False)
    told: list[signal.Signals] = []
    with _removing(backend, job, keep, clean_up):
        code = _attempt(backend, job, _bring_up(backend, job), told, wait=False)
    if backend.detached:
        say(f"launch: {job.name} is on its way; logs, status and delete are at: {clean_up}")
    return code


def run_supervised(backend: Backend, job: Job, clean_up: str, keep: bool, fit: bool) -> int:
    """Like `run`, again and again; goes on with machines that are there, and replaces lost ones.

    Raises:
        ClueError: see `run`.
    """
    _prepare(backend, job, clean_up, fit, goes_on=not backend.detached)
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
    with _removing(backend, job, keep, clean_up):
        return supervise(attempt, progress, log, told, Limits(job.failures))


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


def _prepare(backend: Backend, job: Job, clean_up: str, fit: bool, *, goes_on: bool) -> None:
    """All that can be found without asking for anything, what takes long last; then the cost.

    Args:
        backend: where.
        job: what.
        clean_up: see `run`.
        fit: see `run`.
        goes_on: whether machines that are there already are taken.
    """
    commands = [
        *backend.create(job),
        *(command for step in backend.stage_code(job, ["HOST"]) for command in step),
        *backend.start(job, ["HOST"] * job.machines.all_hosts),
    ]
    plan.require_tools(command.argv[0] for command in commands)
    if _exists(backend, job) and not goes_on:
        # What somebody made, or is making, would be removed when ours cannot be made.
        raise ConfigError(
            f"job.name: {job.name} is there already; take another name, or remove it: {clean_up}"
        )
    _check_buckets(backend, job)
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
    for step in backend.stage_code(job, hosts):
        plan.run_together(step)
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


def _exists(backend: Backend, job: Job) -> bool:
    """Whether something of the job's name is there, in whatever state.

    Raises:
        ConfigError: nobody can say; what is there could be taken for our own and be removed.
    """
    poll = backend.gone(job)
    try:
        return poll is not None and bool(plan.look_up(poll.argv))
    except ClueError as error:
        raise ConfigError(f"{error}\nnothing was asked for") from error


def _check_buckets(backend: Backend, job: Job) -> None:
    """Raises ConfigError for one that is missing, which stages would find on billed machines."""
    if not backend.billed or shutil.which("gcloud") is None:
        return
    words = " ".join([*job.stage, job.cache])
    for bucket in sorted(set(re.findall(r"gs://[a-z0-9._-]+", words))):
        try:
            missing = plan.look_up(["gcloud", "storage", "ls", bucket]) is None
        except ClueError as error:  # the machines' account may see more than ours
            plan.tell(f"launch: whether {bucket} is there could not be seen: {error}")
            continue
        if missing:
            raise ConfigError(
                f"job.stage: {bucket}: there is no such bucket; to make it: gcloud storage"
                f" buckets create {bucket} --location=REGION"
            )


@contextlib.contextmanager
def _removing(backend: Backend, job: Job, keep: bool, clean_up: str) -> Iterator[None]:
    """Whatever happens, machines that cost money are removed at the end, unless they are kept."""

    def leave(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            local.say_no_more()
        raise SystemExit(128 + number)

    kinds = local.ending_signals()
    before = {kind: signal.getsignal(kind) for kind in kinds}
    for kind in kinds:
        if kind != signal.SIGINT:  # which raises KeyboardInterrupt
            signal.signal(kind, leave)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if backend.detached:
            plan.tell(f"launch: {job.name} may go on without this; to stop it: {clean_up}")
        raise
    finally:
        # From here on nothing interrupts.
        for kind in kinds:
            signal.signal(kind, signal.SIG_IGN)
        try:
            if backend.billed and not backend.detached and not keep:
                _clean_up(backend.delete(job))
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


def _clean_up(commands: Sequence[Command]) -> int:
    """Runs every command, whatever becomes of the others."""
    failed = []
    for command in commands:
        try:
            plan.remove(command)
        except ClueError as error:
            failed.append(str(error))
    for line in failed:
        print(f"launch: not removed, and perhaps still billed: {line}", file=sys.stderr, flush=True)
    return ClueError.exit_code if failed else EXIT_DONE
