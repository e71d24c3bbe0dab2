"""A page that follows a run: written again and again while somebody holds the run's lock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from etils import epath

from clue_jax.console import duration_text, say
from clue_jax.errors import ClueError, DataError
from clue_jax.leases import is_held

LOCKS = ("lock", "quickstart.lock", "run/lock")  # of a run; of a quickstart and its run
_LOOK_SECONDS = 1.0  # how soon the end of a run is noticed


def is_live(directory: epath.PathLike) -> bool:
    """Whether a process is at work in a run directory or a quickstart."""
    return any(is_held(epath.Path(directory) / name) for name in LOCKS)


def follow(directory: epath.PathLike, every: float, write: Callable[[int], object]) -> None:
    """Writes pages until nobody is at work any more; the last one is left to the caller.

    Args:
        directory: of a run or a quickstart.
        every: seconds between two pages.
        write: makes a page that is loaded again after so many seconds; 0: never.

    Raises:
        KeyboardInterrupt: as it came, once there is a page that is not loaded again.
    """
    began, pages = time.monotonic(), 0
    try:
        while is_live(directory):
            # Files that a stage has yet to write are no reason to stop looking.
            with contextlib.suppress(DataError):
                write(max(1, round(every)))
                pages += 1
                if pages == 1:
                    say(f"following {directory}: a page every {every:g} s (Ctrl-C ends it)")
            _wait(directory, every)
    except KeyboardInterrupt:
        with contextlib.suppress(ClueError):
            write(0)
        raise
    if pages:
        seconds = time.monotonic() - began
        say(f"{directory}: the run has ended; {pages} pages in {duration_text(seconds)}")
    else:
        say(f"{directory}: nothing is at work there")


def _wait(directory: epath.PathLike, seconds: float) -> None:
    """Until the next page, or the end of the run."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
        if not is_live(directory):
            return
