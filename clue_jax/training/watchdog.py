"""A run that no longer moves ends itself, and says where it stood."""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
import time

from clue_jax.errors import LostPeerError


class Watchdog:
    """Ends the process with the exit code of LostPeerError when nothing has moved for too long.

    It begins with the first sign of life: reading data and compiling take as long as they take.

    A device or a file system that hangs, or a process of the job that is alive but stuck, blocks
    the main thread where no exception reaches it. Another thread therefore prints the stacks of
    all and ends the process, which the heartbeats of the others then notice.

    Args:
        seconds: between two signs of life; 0: for ever.
    """

    def __init__(self, seconds: float):
        self.seconds, self._stopped = seconds, threading.Event()
        self._seen, self._doing = math.inf, ""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self.seconds:
            self._thread.start()
        return self

    def alive(self, doing: str) -> None:
        """A sign of life: what begins now."""
        self._seen, self._doing = time.monotonic(), doing

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self.seconds / 4)):
            silent = time.monotonic() - self._seen
            if silent > self.seconds:
                self._end(silent)

    def _end(self, silent: float) -> None:
        faulthandler.dump_traceback(all_threads=True)
        print(
            f"clue-jax train: error: {self._doing}: nothing has moved for {silent:.0f} s, more than"
            f" config.train.hang_seconds={self.seconds:g}; the stacks above say where; look at the"
            " devices and the file system, and run the same command again",
            file=sys.stderr,
            flush=True,
        )
        os._exit(LostPeerError.exit_code)  # the main thread is the one that does not answer

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        if self.seconds:
            self._thread.join()
