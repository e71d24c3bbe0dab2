"""Runs a plan: each run is a `train` of its own, resumable, by one worker or several.

A worker takes the first run that is neither done nor taken. What a run came to lies in
`results/NAME.json`; a run that failed so many times has its reason there and is passed over.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from clue_jax import files, leases
from clue_jax.config import ScaleConfig, to_json
from clue_jax.console import duration_text, say
from clue_jax.data.source import Dataset
from clue_jax.errors import (
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    CheckpointError,
    ConfigError,
    LockedError,
    NonFiniteError,
    Preempted,
    StorageError,
)
from clue_jax.evaluation.results import MODEL, PREFIX
from clue_jax.scaling.measure import measured
from clue_jax.scaling.plan import PlannedRun
from clue_jax.scaling.results import Result, result_file
from clue_jax.stage_process import run_stage

# Tried again these would end alike, or harm other runs.
_FINAL = (ConfigError.exit_code, CheckpointError.exit_code, NonFiniteError.exit_code)


class _GivenUp(Exception):
    """A stage ended with an error as often as it may; says which."""


def work(
    config: ScaleConfig,
    runs: Sequence[PlannedRun],
    known: Collection[str],
    dataset: Dataset,
    workdir: str,
) -> bool:
    """Makes all runs that are left, within `config.minutes`; whether none is left.

    Args:
        config: the plan.
        runs: of the plan.
        known: those that were made elsewhere.
        dataset: that they are trained and measured on.
        workdir: of the study.

    Raises:
        Preempted: a signal arrived; the run at hand is saved.
        StorageError: a run found no room.
    """
    worker, began, made = _Worker(config, dataset, epath.Path(workdir)), time.monotonic(), 0.0
    for number, run in enumerate(runs, start=1):
        if run.name in known or worker.is_done(run):
            continue
        if config.minutes and time.monotonic() - began > 60 * config.minutes:
            say(f"config.minutes={config.minutes:g} are over; run the same command to go on")
            return False
        ahead = [r for r in runs[number - 1 :] if not (r.name in known or worker.is_done(r))]
        left = _time_left(made, time.monotonic() - began, sum(r.compute for r in ahead))
        say(f"run {number} of {len(runs)}: {run.name}, {run.compute:.1e} PF-days{left}")
        try:
            with leases.lease(worker.root / "locks" / run.name):
                if not worker.is_done(run):
                    worker.make(run)
                    made += run.compute
        except LockedError as error:
            say(f"  another worker is at it: {error}")
    return all(run.name in known or worker.is_done(run) for run in runs)


def _time_left(made: float, seconds: float, compute: float) -> str:
    """What is left at the pace so far, which small runs make look slow: a bound from above."""
    return f"; eta {duration_text(compute * seconds / made)}" if made else ""


def results(
    runs: Sequence[PlannedRun], known: Mapping[str, Result], workdir: epath.PathLike
) -> list[Result]:
    """Of the runs that are done, known or given up, in the order of the plan."""
    root, found = epath.Path(workdir), []
    for run in runs:
        file = result_file(root, run.name)
        if file.exists():
            found.append(files.read_json(file))
        elif run.name in known:
            found.append(known[run.name])
    return found


class _Worker:
    """Makes runs of a study."""

    def __init__(self, config: ScaleConfig, dataset: Dataset, root: epath.Path):
        self.config, self.dataset, self.root = config, dataset, root

    def is_done(self, run: PlannedRun) -> bool:
        return result_file(self.root, run.name).exists()

    def make(self, run: PlannedRun) -> None:
        """Trains a run, measures it, and writes what it came to."""
        began, result = time.monotonic(), self._described(run)
        try:
            folder = self._trained(run)
            result |= measured(folder, self.dataset, self.config.held_out)
            if set(run.sweeps) & set(self.config.downstream.sweeps):
                result["downstream"] = self._downstream(run)
        except (_GivenUp, NonFiniteError) as error:
            result["failed"] = str(error)
        files.write_json(result_file(self.root, run.name), result)
        if "failed" in result:
            say("  given up; see the report")
            return
        took = duration_text(time.monotonic() - began)
        say(
            f"  loss {result['loss_best_scale']:.4f} at the best temperature,"
            f" {result['loss']:.4f} at the learned one, chance {result['chance']:.2f}, in {took}"
        )

    def _described(self, run: PlannedRun) -> Result:
        everyone = self.dataset.manifest["splits"]["train"]["users"]
        return {
            "run": run.name,
            "cell": run.cell,
            "sweeps": list(run.sweeps),
            "size": run.size,
            "width": run.config.encoder.width,
            "users": min(run.config.sampling.most_users or everyone, everyone),
            "behaviours": run.config.encoder.max_history,
            "batch": run.config.train.batch_users,
            "steps": run.config.train.steps,
            "learning_rate": run.config.optim.learning_rate,
            "temperature": run.config.loss.temperature,
            "seed": run.config.seed,
            "dataset": self.dataset.fingerprint,
        }

    def _trained(self, run: PlannedRun) -> epath.Path:
        folder = self._folder(run)
        self._stage(run, "train", run.config, {"data": self.dataset.path, "workdir": folder})
        return folder

    def _downstream(self, run: PlannedRun) -> dict[str, dict[str, float]]:
        """Task -> metric -> value of the export's own features, for all users."""
        asked, folder = self.config.downstream, self._folder(run)
        vectors, scores = folder / "embeddings", folder / "evaluation"
        flags = {"workdir": folder, "data": self.dataset.path, "out": vectors}
        if not vectors.exists():
            self._stage(run, "export", asked.export, flags)
        if not scores.exists():
            flags = {"embeddings": vectors, "out": scores}
            self._stage(run, "evaluate", asked.evaluate, flags)
        found: dict[str, dict[str, float]] = {}
        tasks = {f"{PREFIX}{task.name}": task.name for task in asked.evaluate.downstream.tasks}
        for row in files.read_json(scores / "results.json"):
            if row["task"] in tasks and row["model"].partition(" (")[0] == MODEL:
                found.setdefault(tasks[row["task"]], {})[row["metric"]] = row["value"]
        return found

    def _folder(self, run: PlannedRun) -> epath.Path:
        return self.root / "runs" / run.name

    def _stage(self, run: PlannedRun, stage: str, config: Any, flags: Mapping[str, Any]) -> None:
        """Runs a stage until it ends well.

        Raises:
            Preempted: a signal arrived.
            StorageError: it found no room.
            _GivenUp: it failed as often as it may.
        """
        settings = self.root / "plan" / f"{run.name}.{stage}.json"
        files.write_json(settings, to_json(config))
        argv = [stage, f"--config={settings}", *(f"--{name}={v}" for name, v in flags.items())]
        log = self.root / "logs" / f"{run.name}.txt"
        for attempt in range(self.config.retries + 1):
            with files.storage_errors(log):
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as output:
                    code = run_stage(argv, output)
            if code == 0:
                return
            if code in (EXIT_PREEMPTED, EXIT_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
                raise Preempted(f"{run.name}: saved; run the same command to go on")
            if code == StorageError.exit_code:
                raise StorageError(f"{self._folder(run)}: {_last_line(log)}")
            failed = f"exit code {code}: {_last_line(log)}"
            say(f"  {stage}, attempt {attempt + 1}: {failed}")
            if code in _FINAL:
                break
        raise _GivenUp(failed)


def _last_line(log: epath.Path) -> str:
    lines: list[str] = log.read_text().splitlines()
    return lines[-1] if lines else "it printed nothing"
