"""The training loop: resume, step, log one step late, evaluate, save.

Order within a step, which resuming relies on: dispatch the step, read the metrics of the step
before it, log, evaluate, save. A checkpoint of step k therefore holds exactly k updates, and every
row up to k is on disk before it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from clue_jax.config import PretrainConfig, to_json, validate_pretrain
from clue_jax.console import say
from clue_jax.data.batches import Batch
from clue_jax.data.id_list import suppression
from clue_jax.data.mixture import open_datasets
from clue_jax.data.source import Dataset
from clue_jax.errors import Preempted, StorageError
from clue_jax.leases import lease
from clue_jax.model.attention import choose_kernels
from clue_jax.parallel.agreement import check_agreed, first_alone, first_decides, together
from clue_jax.parallel.mesh import make_mesh, user_groups, users_per_group
from clue_jax.training.banner import compiled_line, run_lines
from clue_jax.training.checkpoint import Checkpoints
from clue_jax.training.divergence import make_divergence_check
from clue_jax.training.goodput import Goodput
from clue_jax.training.initial import initial_params, source_run
from clue_jax.training.log import Row
from clue_jax.training.meter import Meter
from clue_jax.training.metrics import MetricsWriter, say_row, work_row
from clue_jax.training.optim import make_schedule, updates_made
from clue_jax.training.profile import Profile
from clue_jax.training.run_directory import check_shared, environment, open_run, refuse_another
from clue_jax.training.signals import Signals
from clue_jax.training.skips import Skips
from clue_jax.training.spikes import left_out_before
from clue_jax.training.state import TrainState, init_state, state_of, state_shardings
from clue_jax.training.step import make_step
from clue_jax.training.suppression import KEY, record_suppression
from clue_jax.training.users import RunUsers, users_of
from clue_jax.training.validation import Validation
from clue_jax.training.watchdog import Watchdog


def train(config: PretrainConfig, data: Sequence[str], workdir: str) -> None:
    """Trains, or continues, the run in `workdir` on the prepared datasets in `data`.

    Raises:
        ConfigError: before anything is read, for settings that cannot work.
        DataError: the dataset is damaged.
        CheckpointError: the run directory holds another run, or no whole checkpoint.
        LockedError: another process trains in this directory.
        StorageError: the run directory cannot be written, or is not seen by all processes.
        NonFiniteError: too many steps in a row were not finite; the last checkpoint is kept.
        Preempted: a signal arrived; everything is saved.
    """
    mesh = together(lambda: _valid_mesh(config))
    datasets = together(lambda: open_datasets(data, config))
    directory, whole = epath.Path(workdir), tuple(datasets.values())
    fingerprints = [dataset.fingerprint for dataset in whole]
    suppressed = together(lambda: suppression(config.sampling.suppress, KEY))
    check_agreed(
        {
            "config": to_json(config),
            "datasets": fingerprints,
            "suppressed": suppressed.identity if suppressed else None,
            "packages": environment()["packages"],
        }
    )
    with contextlib.ExitStack() as held, Signals() as signals:
        first_alone(lambda: held.enter_context(lease(directory / "lock")))
        together(lambda: check_shared(directory))
        begins = bool(config.init_from) and not (directory / "config.json").exists()
        begins = first_decides(begins)
        guides = together(lambda: source_run(config, whole)).guides if begins else {}
        together(lambda: refuse_another(directory, config, whole))
        # Before anything is written: what cannot be drawn is no run that could be continued.
        users = together(lambda: users_of(config, datasets, suppressed, mesh))
        together(lambda: open_run(directory, config, whole, guides))
        watchdog = held.enter_context(Watchdog(config.train.hang_seconds))
        with Run(config, directory, whole, users, mesh, watchdog) as run:
            run.compute(signals)


def _valid_mesh(config: PretrainConfig) -> Mesh:
    validate_pretrain(config)
    mesh = make_mesh(config.mesh)
    users_per_group(config.train.batch_users, mesh)
    state_shardings(config, mesh)
    choose_kernels(config.encoder, jax.default_backend())
    return mesh


class Run:
    """State and outputs of one training run in this process."""

    def __init__(
        self,
        config: PretrainConfig,
        directory: epath.Path,
        datasets: Sequence[Dataset],
        users: RunUsers,
        mesh: Mesh,
        watchdog: Watchdog,
    ):
        self.config, self.users, self.mesh, self.watchdog = config, users, mesh, watchdog
        self.directory, self.datasets = directory, datasets
        self.batches = batches = users.batches
        vocab_size = datasets[0].tokenizer.vocab_size
        for line in run_lines(config, batches, vocab_size):
            say(line)
        self.step = make_step(config, batches.pairs, mesh, batches.capacity.items)
        self.lies = state_shardings(config, mesh)
        self.schedule = make_schedule(config)
        saved = config.checkpoint
        self.checkpoints = Checkpoints(
            directory / "checkpoints",
            keep=saved.keep,
            keep_best=saved.keep_best,
            keep_every=saved.keep_every,
            metric=saved.metric,
            batches_left_out=partial(left_out_before, config.train),
        )
        self.row_so_far: dict[str, Any] = {}
        self.state, self.first = self._restore_or_init(vocab_size)
        check_agreed({"the step restored": self.first})
        together(self._open_logs)
        self.updates = updates_made(self.state.opt_state)
        self.check_copies = make_divergence_check(self.lies, mesh)
        self.saved_at, self.profile = time.monotonic(), Profile(directory, config.train)

    def _open_logs(self) -> None:
        record_suppression(self.directory, self.first, self.users.suppressed)
        self.writer = MetricsWriter(self.directory, self.first)
        self.goodput = Goodput(self.directory, self.first, self.writer.kept)
        self.skips = Skips(self.directory, self.first, self.config.train, self._users_of)

    def _restore_or_init(self, vocab_size: int) -> tuple[TrainState, int]:
        lies = self.lies
        fresh = jax.jit(lambda: init_state(self.config, vocab_size), out_shardings=lies)
        abstract = jax.tree.map(
            lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
            jax.eval_shape(fresh),
            lies,
        )
        restored = self.checkpoints.restore(abstract.parts())
        if restored is None:
            state = fresh()
            if self.config.init_from:
                origin = self.config, self.directory, self.datasets
                state = replace(state, params=initial_params(*origin, state.params))
            return state, 0
        if self.checkpoints.refused:
            self.checkpoints.quarantine()
        say(f"continuing from the checkpoint of step {restored.step}")
        self.row_so_far = restored.notes or {}
        step = jax.device_put(np.asarray(restored.step, np.int32), lies.step)
        return state_of(step, restored.parts), restored.step

    def compute(self, signals: Signals) -> None:
        """Runs the steps that are left; see the module's docstring for their order."""
        steps, meter = self.config.train.steps, Meter(user_groups(self.mesh))
        dispatched: tuple[Batch, float, dict[str, jax.Array]] | None = None
        prefetching = contextlib.closing(self.batches.prefetch(self.first, steps))
        with prefetching as prefetched:
            compiled = None
            for batch, waited in prefetched:
                if compiled is None:
                    compiled = self._compile(batch)
                    meter.restart(self.row_so_far)
                    waited = 0.0  # before the meter began
                self.watchdog.alive(f"step {batch.step + 1}")
                self.profile.before(batch.step, self.state)
                with jax.transfer_guard("disallow"):
                    self.state, metrics = compiled(self.state, batch.packed)
                if dispatched:
                    self._read(meter, *dispatched)
                dispatched = batch, waited, metrics
                done = batch.step + 1
                stopping = signals.stop_after(done)
                if self._is_due(done) or stopping:
                    self._read(meter, *dispatched)
                    dispatched = None
                    self._finish_step(done, meter, stopping)
                    if signals.received and done < steps:
                        self._wait_for_save()
                        raise Preempted(
                            f"{signals.received.name}: stopped at step {done} of {steps}, saved;"
                            " run the same command to continue"
                        )
        self._wait_for_save()

    def _wait_for_save(self) -> None:
        self.watchdog.alive("waiting for the last save")
        together(self.checkpoints.wait)

    def _compile(self, batch: Batch) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
        """Compiles ahead, so that no rate contains it and no batch can start it again."""
        began = time.perf_counter()
        compiled = self.step.lower(self.state, batch.packed).compile()
        say(compiled_line(compiled, time.perf_counter() - began, batch))
        return compiled

    def _users_of(self, step: int) -> np.ndarray:
        return self.batches.drawn(step)[0]

    def _read(
        self, meter: Meter, batch: Batch, waited: float, metrics: dict[str, jax.Array]
    ) -> None:
        """Takes the metrics of a step, once the device has finished it."""
        if not self.skips.note(batch.step + 1, meter.add(batch, waited, metrics)):
            self.updates += 1

    def _is_due(self, done: int) -> bool:
        train = self.config.train
        every = [train.log_every, train.eval_every, train.divergence_every]
        every.append(self.config.checkpoint.every_steps)
        return done == train.steps or any(n and done % n == 0 for n in every)

    def _finish_step(self, done: int, meter: Meter, stopping: bool) -> None:
        train, last = self.config.train, done == self.config.train.steps
        logs = last or done % train.log_every == 0
        if logs:
            self._log(done, meter)
        planned = last or done % self.config.checkpoint.every_steps == 0
        saves = planned or stopping or (logs and self._save_is_overdue())
        with meter.paused():
            scores = None
            validation = self.users.validation
            if validation and (planned or done % train.eval_every == 0):
                scores = self._evaluate(validation, done)
            if train.divergence_every and (saves or done % train.divergence_every == 0):
                self.check_copies(done, self.state)
            if saves:
                self._save(done, scores, meter.state())

    def _save(self, done: int, scores: dict[str, float] | None, row_so_far: Row) -> None:
        self.watchdog.alive(f"saving step {done}")
        together(self.checkpoints.wait)  # what became of the one before, all learn alike
        self.checkpoints.save(done, self.state.parts(), scores, row_so_far)
        self.saved_at = time.monotonic()

    def _save_is_overdue(self) -> bool:
        minutes = self.config.checkpoint.every_minutes
        return bool(minutes) and first_decides(time.monotonic() - self.saved_at >= 60 * minutes)

    def _evaluate(self, validation: Validation, done: int) -> dict[str, float] | None:
        """Writes the rows of an evaluation; gives the means."""
        self.watchdog.alive(f"evaluating after step {done}")
        scores = None
        for evaluation in validation(self.state.params["encoder"]):
            row = {"step": done, **evaluation}
            together(lambda row=row: self.writer.write(row))  # type: ignore[misc]
            say_row(row, self.config.train.steps, 0.0)
            scores = {k: v for k, v in evaluation.items() if isinstance(v, float)}
        return scores

    def _log(self, done: int, meter: Meter) -> None:
        config = self.config
        counts = meter.counts()
        row = meter.row(done, counts)
        row["learning_rate"] = float(self.schedule(max(0, self.updates - 1)))
        row["users_per_second"] = config.train.batch_users * meter.steps / meter.seconds
        row |= work_row(config, counts, meter.steps * len(self.batches.pairs), meter.seconds)
        row |= self.batches.progress(done) | self.goodput.row(meter.seconds - meter.waited)
        together(lambda: self._write(row))
        left = (config.train.steps - done) * meter.seconds / meter.steps
        say_row(row, config.train.steps, left)
        meter.restart()

    def _write(self, row: Row) -> None:
        self.writer.write(row)
        self.checkpoints.check()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.watchdog.alive("ending")
        try:
            with contextlib.closing(self.checkpoints), contextlib.closing(self.profile):
                self.writer.close()
        except StorageError as second:
            if error is None:
                raise
            say(f"on the way out: {second}")  # the first one is why it ended
