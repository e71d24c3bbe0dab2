"""Commands that a job takes, to be shown or run: argv lists, never a line for a shell to read."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clue_jax.console import say
from clue_jax.errors import ClueError, ConfigError, LostPeerError
from launch import local
from launch.local import Planned

END = "END_OF_INPUT"
LOST = LostPeerError.exit_code
WAYS_TO_INSTALL = {
    "gcloud": "https://cloud.google.com/sdk/docs/install, then `gcloud auth login`",
    "kubectl": "`gcloud components install kubectl gke-gcloud-auth-plugin`, or your cluster's way",
    "docker": "https://docs.docker.com/engine/install",
    "sbatch": "run this on a login node of the SLURM cluster",
    "ssh": "such as `apt-get install openssh-client`",
    "aws": "https://docs.aws.amazon.com/cli, then `aws configure`",
    "git": "such as `apt-get install git`",
}

# How gcloud and kubectl say that something is not there.
_MISSING = re.compile(r"NOT_FOUND|NotFound|was not found|\] not found|not found: 404")
REMOVAL_TRIES, REMOVAL_SECONDS = 3, 10.0


@dataclass(frozen=True)
class Command:
    """A program, its arguments and what it reads."""

    argv: tuple[str, ...]
    stdin: str = ""
    again: float = 0.0  # seconds after which it is run again, to follow what grows; 0: once

    def text(self) -> str:
        """As a line of a shell script, and the lines it reads."""
        line = shlex.join(self.argv)
        if self.again:
            return f"{line}  # every {self.again:g} s"
        if not self.stdin:
            return line
        assert END not in self.stdin.splitlines()
        return f"{line} <<'{END}'\n{self.stdin.removesuffix(chr(10))}\n{END}"


@dataclass(frozen=True)
class Poll:
    """A command that is run again and again until it prints one of some words, or how it begins."""

    argv: tuple[str, ...]
    # Word -> exit code that it stands for, 0 for what is hoped for; the first that fits counts.
    outcomes: Mapping[str, int]
    seconds: float = 15.0
    limit: float = float("inf")  # seconds after which it counts as lost

    def text(self) -> str:
        """As lines of a shell script that end with the outcome."""
        cases = "".join(
            f"    {shlex.quote(word)}*) {'break' if code == 0 else f'exit {code}'} ;;\n"
            for word, code in self.outcomes.items()
        )
        asked = f'case "$({shlex.join(self.argv)})" in\n{cases}  esac'
        times, counted = "while :", ""
        if self.limit < float("inf"):
            times = f"tries={self.limit / self.seconds:.0f}\nwhile :"
            counted = f'  tries=$((tries - 1))\n  [ "$tries" -gt 0 ] || exit {LOST}\n'
        return f"{times}; do\n  {asked}\n{counted}  sleep {self.seconds:g}\ndone"


def command(*words: str, **flags: str | int | bool) -> Command:
    """`--some_flag=value` for each flag with a value; only `--some_flag` for what is true."""
    return Command((*words, *options(flags)))


def options(flags: Mapping[str, str | int | bool]) -> list[str]:
    """Flags as gcloud, kubectl and SLURM write them; what is empty or false is left out."""
    given = {
        name.replace("_", "-"): value
        for name, value in flags.items()
        if value is not False and value != ""
    }
    return [f"--{n}" if value is True else f"--{n}={value}" for n, value in given.items()]


def require_tools(tools: Iterable[str]) -> None:
    """Raises ConfigError that names every program which is not there and how to get it."""
    missing = [tool for tool in dict.fromkeys(tools) if shutil.which(tool) is None]
    if missing:
        ways = [f"{tool} ({WAYS_TO_INSTALL.get(tool, 'not found')})" for tool in missing]
        raise ConfigError(f"not on PATH: {'; '.join(ways)}")


def tell(line: str) -> None:
    """Says a line, while there is anybody to read it.

    Where the terminal is closed or the pipe broken, nothing that we or our programs print after it
    fails: machines are still to be removed.
    """
    try:
        say(line)
    except OSError:
        local.say_no_more()


def run_all(commands: Sequence[Command]) -> None:
    """Runs commands one after the other.

    Raises:
        ClueError: one failed; the following ones were not started.
    """
    for each in commands:
        run(each)


def run_together(commands: Sequence[Command]) -> None:
    """Runs commands that read nothing side by side; when one fails the others are ended.

    Raises:
        ClueError: one failed.
    """
    if len(commands) == 1:
        run(commands[0])
        return
    for number, each in enumerate(commands):
        tell(f"+ [{number}] {shlex.join(each.argv)}")
    told: list[signal.Signals] = []
    code = local.run([Planned(each.argv) for each in commands], told)
    if told:
        raise SystemExit(128 + told[0])
    if code:
        raise ClueError(
            f"one of {len(commands)} commands, see above, ended with {code}; output of all but [0]"
            " has the command's number before it"
        )


def run(planned: Command, *, capture: bool = False) -> str:
    """Runs a command to its end; gives what it printed where that is wanted.

    Raises:
        ClueError: it failed; names it.
    """
    tell(f"+ {shlex.join(planned.argv)}")
    code, output = _finish(planned, capture=capture)
    if code:
        raise ClueError(f"{shlex.join(planned.argv)}: ended with {code}, see above")
    return output


def remove(planned: Command) -> None:
    """Runs a command that removes something, again where it fails; what is not there is removed.

    Raises:
        ClueError: it failed each time.
    """
    for left in reversed(range(REMOVAL_TRIES)):
        tell(f"+ {shlex.join(planned.argv)}")
        done = _run_to_the_end(planned.argv)
        if said := (done.stdout + done.stderr).strip():
            tell(said)
        if done.returncode == 0 or _MISSING.search(done.stderr):
            return
        if left:
            time.sleep(REMOVAL_SECONDS)
    raise ClueError(f"{shlex.join(planned.argv)}: ended with {done.returncode}, see above")


def follow(planned: Command) -> None:
    """Runs a command again and again and prints what has come, until somebody interrupts.

    Raises:
        ClueError: it failed.
    """
    tell(f"+ {planned.text()}")
    before: list[str] = []
    while True:
        code, output = _finish(planned, capture=True)
        if code:
            raise ClueError(f"{shlex.join(planned.argv)}: ended with {code}, see above")
        lines = output.splitlines(keepends=True)
        # What was shown may have been taken back, by a run that goes on from a checkpoint.
        same = itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(before, lines, strict=False)
        )
        print("".join(lines[len(list(same)) :]), end="", flush=True)
        before = lines
        time.sleep(planned.again)


def ask(poll: Poll, patience: int = 5) -> int:
    """Asks until an outcome; its exit code, or that of a lost machine where nobody answers.

    Args:
        poll: what to ask.
        patience: times in a row that the command may fail.
    """
    failures, before = 0, ""
    tell(f"+ {shlex.join(poll.argv)}  # every {poll.seconds:g} s")
    waited = 0.0
    while waited < poll.limit:
        code, output = _finish(Command(poll.argv), capture=True)
        outcome = _outcome(poll, output) if code == 0 else None
        if outcome is not None:
            return outcome
        failures = failures + 1 if code else 0
        if failures >= patience:
            break
        if output.strip() != before:
            before = output.strip()
            tell(f"  {before}")
        time.sleep(poll.seconds)
        waited += poll.seconds
    return LOST


def ask_once(poll: Poll) -> int | None:
    """The outcome now; None: there is none, or nobody answers."""
    code, output = _finish(Command(poll.argv), capture=True, quiet=True)
    return _outcome(poll, output) if code == 0 else None


def look_up(argv: Sequence[str]) -> str | None:
    """What a program prints of something; None where that is not there.

    Raises:
        ClueError: it cannot say, such as for want of credentials or a network.
    """
    done = _run_to_the_end(argv)
    if done.returncode == 0:
        return done.stdout.strip()
    if _MISSING.search(done.stderr):
        return None
    raise ClueError(f"{shlex.join(argv)}: ended with {done.returncode}: {done.stderr.strip()}")


def _run_to_the_end(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """With all that it says."""
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        # Signals of a terminal reach the launcher alone, which cleans up.
        process_group=0,
    )


def _outcome(poll: Poll, output: str) -> int | None:
    said = output.strip()
    return next((code for word, code in poll.outcomes.items() if said.startswith(word)), None)


def _finish(planned: Command, *, capture: bool, quiet: bool = False) -> tuple[int, str]:
    """Exit code, and what it printed where that is captured; `quiet` drops its errors."""
    done = subprocess.run(
        planned.argv,
        input=planned.stdin or None,
        stdin=None if planned.stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        errors="replace",
        # Signals of a terminal reach the launcher alone, which cleans up.
        process_group=0,
    )
    return done.returncode, done.stdout or ""
