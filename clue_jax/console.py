"""What a stage prints: plain lines, and progress bars with rate and time left on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 30.0  # between two lines of progress in a log file

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


def duration_text(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def count_text(count: float) -> str:
    """A whole number below a hundred thousand, else three digits and a unit: a bar is narrow."""
    if count < 99_950:
        return f"{count:,.0f}"
    value, units = count / 1e3, ["k", "M", "G", "T"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1e3, units[1:]
    return f"{value:.3g}{units[0]}"


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{count_text(task.total)}"
        return Text(f"{count_text(task.completed)}{total}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{count_text(task.speed)}/s" if task.speed else "-/s")


class _Lines:
    """Progress for a log file: now and then a line."""

    def __init__(self, description: str, total: float | None):
        self.description, self.total, self.done = description, total, 0.0
        self.began = self.said = time.monotonic()

    def __call__(self, count: float) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said >= LINE_SECONDS and self.done:
            self.said = now
            rate = self.done / (now - self.began)
            line = f"{self.description}: {self.done:,.0f}"
            if self.total:
                left = duration_text(max(self.total - self.done, 0.0) / rate)
                line += f" of {self.total:,.0f} ({self.done / self.total:.0%}), eta {left}"
            say(f"{line}, {rate:,.0f}/s")


@contextlib.contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Yields `advance(count)`: a bar with rate and ETA on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield _Lines(description, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
