"""Being told to stop: by a signal, in one process or in one of several."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils


class Signals:
    """Remembers SIGTERM and SIGINT, so that the loop can save before it stops.

    Of several processes all must stop at the same step, also where one alone was told. JAX's
    service for that listens to SIGTERM itself, which SIGINT is passed on as.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._several = jax.process_count() > 1

    def __enter__(self) -> Signals:
        self._previous = {}
        handlers = {signal.SIGTERM: self._remember, signal.SIGINT: self._remember}
        if self._several:
            handlers = {signal.SIGINT: self._pass_on}
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            for kind, handler in handlers.items():
                self._previous[kind] = signal.signal(kind, handler)
        return self

    def _remember(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)

    def _pass_on(self, number: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def stop_after(self, step: int) -> bool:
        """Whether this step is the last one; the same in every process, each asking once a step."""
        if self._several and multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received is not None

    def __exit__(self, *exception: object) -> None:
        for kind, handler in self._previous.items():
            signal.signal(kind, handler)
