"""One command: runs what is left of a plan, fits laws to what is there, and says what to do next.

WORKDIR/config.json     the plan
        plan/, runs/    config and run directory of each run
        results/        what each came to
        results.jsonl   all of them, a line each
        fits.json       laws, forecast, allocation
        figures/*.svg
        report.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.config import ScaleConfig, to_json
from clue_jax.console import say
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError, DataError
from clue_jax.scaling.analysis import Analysis, Result, allocation, analyse
from clue_jax.scaling.figures import figures_of
from clue_jax.scaling.forms import SIZE_AND_SAMPLES
from clue_jax.scaling.plan import planned_runs
from clue_jax.scaling.runs import results, work
from clue_jax.scaling.words import report_text

FITS = "fits.json"
_BUDGETS = (1.0, 10.0, 100.0)  # times the largest of the plan


def scale(config: ScaleConfig, data: str, workdir: str) -> None:
    """Runs a plan, or what is left of it, and concludes.

    Args:
        config: the plan.
        data: a prepared dataset.
        workdir: of the study; the same one goes on. Several workers may share it.

    Raises:
        ConfigError: the plan, or a run of it, cannot work.
        DataError: the dataset is damaged or has too few held-out users.
        Preempted: a signal arrived; the run at hand is saved.
        StorageError: a run, or the study, could not be written.
    """
    runs, root = planned_runs(config), epath.Path(workdir)
    dataset = open_dataset(data)
    files.write_json(root / "config.json", to_json(config))
    say(f"{len(runs)} runs in {len(config.sweeps)} sweeps")
    complete = work(config, runs, dataset, workdir)
    found = results(runs, workdir)
    if not found:
        say("no run has ended yet")
        return
    lines = [json.dumps(result, sort_keys=True) for result in found]
    files.write_text(root / "results.jsonl", "\n".join(lines) + "\n")
    try:
        analysis = analyse(found, config.resamples, config.seed)
    except DataError as error:
        say(f"nothing to conclude from {len(found)} of {len(runs)} runs yet: {error}")
        return
    conclusions = conclusions_of(analysis)
    files.write_json(root / FITS, conclusions)
    text = report_text(conclusions, found, len(runs))
    files.write_text(root / "report.md", text)
    _draw(analysis, root / "figures")
    say(text.partition("\n## Runs")[0])
    if not complete:
        say(f"{len(runs) - len(found)} runs are left: run the same command to go on")


def conclusions_of(analysis: Analysis) -> dict[str, Any]:
    """An analysis as JSON."""
    best = zip(analysis.kept, analysis.on_frontier, strict=True)
    return {
        "runs": len(analysis.kept),
        "excluded": analysis.excluded,
        "frontier": [run["run"] for run, on in best if on],
        "laws": [
            {
                "name": law.form.name,
                "law": law.form.law,
                "coefficients": {name: list(v) for name, v in law.coefficients().items()},
                "r2": law.r2,
                "error": law.error,
                "resamples": len(law.resampled_KP),
            }
            for law in analysis.fits.values()
        ],
        "refused": analysis.refused,
        "forecast": _forecast(analysis),
        "downstream": analysis.downstream,
        "flops_per_parameter_and_sample": analysis.per_sample,
        "allocation": _allocations(analysis),
        "compute": [min(_compute(analysis.kept)), max(_compute(analysis.kept))],
    }


def _forecast(analysis: Analysis) -> dict[str, Any] | None:
    told = analysis.forecast
    if told is None:
        return None
    return {
        "seen": told.seen,
        "compute": float(np.mean(told.columns["compute"])),
        "measured": float(told.losses.mean()),
        "said": {name: float(losses.mean()) for name, losses in told.said.items()},
        "errors": dict(told.errors),
    }


def _allocations(analysis: Analysis) -> list[dict[str, float]]:
    law = analysis.fits.get(SIZE_AND_SAMPLES.name)
    if law is None or law.theta_P[2] <= 0 or law.theta_P[4] <= 0:
        return []
    largest = max(_compute(analysis.kept))
    spent = (allocation(law, analysis.per_sample, times * largest) for times in _BUDGETS)
    return [vars(best) for best in spent]


def _compute(runs: Sequence[Result]) -> list[float]:
    return [run["compute"] for run in runs]


def _draw(analysis: Analysis, folder: epath.Path) -> None:
    try:
        for name, svg in figures_of(analysis):
            files.write_text(folder / f"{name}.svg", svg)
    except ConfigError as error:
        say(f"{error}")
