"""Compilations, counted by JAX's own events."""

import contextlib
import time

import jax
import pytest

from clue_jax.training.loop import Run

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations():
    """Yields a list that gets the moment at which each compilation ended."""
    ended = []

    def listen(event, seconds, **context):
        if event == COMPILED:
            ended.append(time.perf_counter())

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield ended
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@contextlib.contextmanager
def compiled_after_steps():
    """Yields a dict of how much had been compiled by the end of each step of a run inside."""
    after, finish = {}, Run._finish_step
    with compilations() as ended, pytest.MonkeyPatch.context() as patch:

        def noting(run, done, *rest):
            finish(run, done, *rest)
            after[done] = len(ended)

        patch.setattr(Run, "_finish_step", noting)
        yield after
