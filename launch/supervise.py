"""Runs a job again until it is done: after a preemption, a lost machine, a hang; not for ever."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from clue_jax.buckets import checkpoint_steps
from clue_jax.console import duration_text, say
from clue_jax.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    ClueError,
    LostPeerError,
    exit_code_of,
    kind_of,
)
from clue_jax.files import storage_errors

LOST = LostPeerError.exit_code
# As shells number a death by signal; such a process had no say in it.
_SIGNALS = range(129, 160)


@dataclass(frozen=True)
class Limits:
    """When to give up, and how long to wait before the next attempt."""

    failures: int = 3  # without a later checkpoint between them
    first_wait: float = 10.0  # seconds, doubled with each attempt that brought no later checkpoint
    longest_wait: float = 600.0


def supervise(
    attempt: Callable[[], int],
    step_of: Callable[[], int | None],
    log: Path,
    told: Sequence[signal.Signals],
    limits: Limits | None = None,
    sleep: Callable[[float], None] | None = None,
) -> int:
    """Attempts until one ends for good; gives its exit code.

    Again after: 75 (preempted and saved), 7 (a lost process or machine), a death by signal. Every
    other code would come again: it ends at once.

    Args:
        attempt: runs the stage to its end, on machines that it makes where there are none; gives
            its exit code, or raises the error that kept it from running.
        step_of: of the newest checkpoint; None: there is none.
        log: file that gets a JSON object for every attempt.
        told: signals that came during attempts; after one there is no other attempt.
        limits: when to give up.
        sleep: waits so many seconds; for tests.
    """
    limits = limits or Limits()
    number, failures, stalled = 0, 0, 0
    step = step_of()
    while True:
        number += 1
        began = time.time()
        code, reason = _made(attempt)
        before, step = step, step_of()
        if step != before:
            failures = stalled = 0
        failures += code != EXIT_PREEMPTED
        verdict = _verdict(code, told, failures, limits)
        wait = 0.0 if verdict else min(limits.longest_wait, limits.first_wait * 2**stalled)
        stalled += 1
        _write(log, number, began, code, reason, step, verdict or f"again in {wait:g} s")
        if verdict:
            say(f"launch: attempt {number}: {verdict}")
            return code
        say(
            f"launch: attempt {number} ended with {code} ({reason}), step {step}; again in"
            f" {duration_text(wait)}"
        )
        (sleep or time.sleep)(wait)


def _made(attempt: Callable[[], int]) -> tuple[int, str]:
    try:
        code = attempt()
    except ClueError as error:
        return exit_code_of(error), str(error)
    if code < 0 or code in _SIGNALS:
        return code, "ended by a signal"
    if code == EXIT_DONE:
        return code, "done"
    return code, (kind_of(code).__doc__ or "").strip().splitlines()[0]


def _verdict(code: int, told: Sequence[signal.Signals], failures: int, limits: Limits) -> str:
    """Why there is no further attempt; empty where there is one."""
    if code == EXIT_DONE:
        return "done"
    if told:
        return f"stopped by {told[0].name}"
    if code == EXIT_INTERRUPTED:
        return "interrupted"
    if not (code in (EXIT_PREEMPTED, LOST) or code < 0 or code in _SIGNALS):
        return f"exit code {code}: running it again would not help"
    if failures >= limits.failures:
        return f"{failures} failures without a later checkpoint between them: not again"
    return ""


def _write(
    log: Path, number: int, began: float, code: int, reason: str, step: int | None, then: str
) -> None:
    record = {
        "attempt": number,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "exit_code": code,
        "reason": reason,
        "step": step,
        "then": then,
    }
    with storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            stream.write(json.dumps(record) + "\n")


def newest_step(results: str) -> int | None:
    """Of the newest checkpoint in a run directory, else of the last row of its metrics.

    None where the folder has neither: the stage is no training, or has not come so far.
    """
    if not results:
        return None
    folder = epath.Path(results)
    saved = folder / "checkpoints"
    steps = checkpoint_steps(saved) if saved.is_dir() else []
    if not steps and (folder / "metrics.jsonl").is_file():
        steps = [row["step"] for row in map(_row, _last_lines(folder / "metrics.jsonl")) if row]
    return max(steps, default=None)


def _last_lines(path: epath.Path) -> list[str]:
    return path.read_text().splitlines()[-2:]


def _row(line: str) -> dict[str, Any]:
    """A row with a step; empty for a line that is being written."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else {}
