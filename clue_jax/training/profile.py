"""A trace of some steps by the profiler of JAX, for TensorBoard or Perfetto."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
from etils import epath

from clue_jax.config import TrainConfig, batch_ranges
from clue_jax.console import say
from clue_jax.files import write_bytes


class Profile:
    """Traces the steps of `config.profile` into `<workdir>/profile`; each process its own devices.

    The trace is made beside and then copied, since the profiler knows no buckets, and so that a
    killed run leaves no half of one. A run that ends within the steps has a trace of some of them.

    Args:
        workdir: the run directory.
        config: says which steps, if any.
    """

    def __init__(self, workdir: epath.Path, config: TrainConfig):
        self.folder = workdir / "profile"
        if jax.process_count() > 1:  # of one machine they would all write the same file
            self.folder /= f"process-{jax.process_index()}"
        ranges = batch_ranges(config.profile)
        self._first, self._last = ranges[0] if ranges else (0, 0)
        self._traced: tempfile.TemporaryDirectory[str] | None = None

    def before(self, step: int, state: object) -> None:
        """To be called before each step is dispatched, with the state it begins from."""
        due = self._first <= step < self._last
        if due and self._traced is None:
            jax.block_until_ready(state)  # else the trace begins with steps before
            self._traced = tempfile.TemporaryDirectory(prefix="clue_jax_profile_")
            jax.profiler.start_trace(self._traced.name)
        elif not due and self._traced is not None:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace that is being made, and leaves it in the run directory.

        Raises:
            StorageError: the file system refused.
        """
        if self._traced is None:
            return
        traced, self._traced = self._traced, None
        with traced as folder:
            jax.profiler.stop_trace()
            for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                write_bytes(self.folder / file.relative_to(folder), file.read_bytes())
        say(f"profile of steps {self._first} to {self._last} in {self.folder}")
