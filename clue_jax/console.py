"""What a stage prints: plain lines, and progress bars with rate and time left on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_silent = False


def silence() -> None:
    """Says nothing from now on: of several processes of a job one speaks."""
    global _silent
    _silent = True


def say(message: str) -> None:
    """Prints one line of progress at once, also into a pipe or a log file."""
    if not _silent:
        print(message, flush=True)


def size_text(count: float) -> str:
    """Bytes with three digits and a unit."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1_000, units[1:]
    return f"{value:.3g} {units[0]}"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s")


@contextlib.contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Yields `advance(count)`, drawn as a bar with rate and ETA; silent when not a terminal."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
