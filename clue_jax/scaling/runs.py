"""Runs a plan: each run is a `train` of its own, resumable, by one worker or several.

A worker takes the first run that is neither done nor taken. What a run came to lies in
`results/NAME.json`; a run that failed so many times has its reason there and is passed over.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.config import ScaleConfig, to_json
from clue_jax.console import say
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
from clue_jax.scaling.measure import measured
from clue_jax.scaling.plan import PlannedRun
from clue_jax.stage_process import run_stage

Result = dict[str, Any]
# Tried again these would end alike, or harm other runs.
_FINAL = (ConfigError.exit_code, CheckpointError.exit_code, NonFiniteError.exit_code)


def work(config: ScaleConfig, runs: Sequence[PlannedRun], dataset: Dataset, workdir: str) -> bool:
    """Makes all runs that are left, within `config.minutes`; whether none is left.

    Raises:
        Preempted: a signal arrived; the run at hand is saved.
        StorageError: a run found no room.
    """
    root, began = epath.Path(workdir), time.monotonic()
    for number, run in enumerate(runs, start=1):
        if _result_file(root, run).exists():
            continue
        if config.minutes and time.monotonic() - began > 60 * config.minutes:
            say(f"config.minutes={config.minutes:g} are over; run the same command to go on")
            return False
        say(f"run {number} of {len(runs)}: {run.name}")
        try:
            with files.lease(root / "locks" / run.name):
                if not _result_file(root, run).exists():
                    _make(config, run, dataset, root)
        except LockedError as error:
            say(f"  another worker is at it: {error}")
    return all(_result_file(root, run).exists() for run in runs)


def results(runs: Sequence[PlannedRun], workdir: epath.PathLike) -> list[Result]:
    """Of the runs that are done or given up, in the order of the plan."""
    files_ = (_result_file(epath.Path(workdir), run) for run in runs)
    return [files.read_json(file) for file in files_ if file.exists()]


def _result_file(root: epath.Path, run: PlannedRun) -> epath.Path:
    return root / "results" / f"{run.name}.json"


def _make(config: ScaleConfig, run: PlannedRun, dataset: Dataset, root: epath.Path) -> None:
    settings, folder = root / "plan" / f"{run.name}.json", root / "runs" / run.name
    files.write_json(settings, to_json(run.config))
    argv = ["train", f"--config={settings}", f"--data={dataset.path}", f"--workdir={folder}"]
    everyone = dataset.manifest["splits"]["train"]["users"]
    described = {
        "run": run.name,
        "cell": run.cell,
        "sweeps": list(run.sweeps),
        "size": run.size,
        "users": min(run.config.sampling.most_users or everyone, everyone),
        "behaviours": run.config.encoder.max_history,
        "batch": run.config.train.batch_users,
        "steps": run.config.train.steps,
        "learning_rate": run.config.optim.learning_rate,
        "temperature": run.config.loss.temperature,
        "seed": run.config.seed,
        "dataset": dataset.fingerprint,
    }
    failed = ""
    for attempt in range(config.retries + 1):
        code = _train(argv, root / "logs" / f"{run.name}.txt")
        if code == 0:
            break
        if code in (EXIT_PREEMPTED, EXIT_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            raise Preempted(f"{run.name}: saved; run the same command to go on")
        if code == StorageError.exit_code:
            raise StorageError(f"{folder}: {_last_line(root, run)}")
        failed = f"exit code {code}: {_last_line(root, run)}"
        say(f"  attempt {attempt + 1}: {failed}")
        if code in _FINAL:
            break
    if code == 0:
        try:
            result = described | measured(folder, dataset, config.held_out)
            said = f"loss {result['loss']:.4f} after {result['compute']:.2e} PF-days"
        except NonFiniteError as error:
            code, failed = error.exit_code, str(error)
    if code != 0:
        result, said = described | {"failed": failed}, "given up; see the report"
    files.write_json(_result_file(root, run), result)
    say(f"  {said}")


def _train(argv: Sequence[str], log: epath.Path) -> int:
    with files.storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            return run_stage(argv, output)


def _last_line(root: epath.Path, run: PlannedRun) -> str:
    lines: list[str] = (root / "logs" / f"{run.name}.txt").read_text().splitlines()
    return lines[-1] if lines else "it printed nothing"
