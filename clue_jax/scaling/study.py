"""One command: runs what is left of a plan, fits laws to what is there, and says what to do next.

WORKDIR/config.json     the plan
        plan/, runs/    config and run directory of each run
        results/        what each came to
        results.jsonl   all of them, a line each
        fits.json       laws, forecast, allocation
        figures/*.svg
        report.md, report.html
"""

from __future__ import annotations

import math
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.config import ScaleConfig, to_json
from clue_jax.console import say
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError, DataError
from clue_jax.scaling.analysis import Analysis, analyse
from clue_jax.scaling.cost import StepCost
from clue_jax.scaling.figures import figures_of
from clue_jax.scaling.forms import EVERYTHING, SIZE_AND_SAMPLES, SIZE_AND_SAMPLES_FROM_CHANCE
from clue_jax.scaling.plan import plan_text, planned_runs
from clue_jax.scaling.results import (
    FIGURES,
    FITS,
    RESULTS,
    read_known,
    result_file,
    write_lines,
)
from clue_jax.scaling.runs import results, work
from clue_jax.scaling.spending import allocation
from clue_jax.scaling.words import markdown, sections

_BUDGETS = (1.0, 10.0, 100.0)  # times the largest of the plan


def scale(config: ScaleConfig, data: str, workdir: str) -> bool:
    """Runs a plan, or what is left of it, and concludes; whether there is something to report.

    Args:
        config: the plan.
        data: a prepared dataset.
        workdir: of the study; the same one goes on. Several workers may share it.

    Raises:
        ConfigError: the plan, or a run of it, cannot work.
        DataError: the dataset is damaged or has too few held-out users, or results that are known
            cannot be used.
        Preempted: a signal arrived; the run at hand is saved.
        StorageError: a run, or the study, could not be written.
    """
    root, dataset = epath.Path(workdir), open_dataset(data)
    runs = planned_runs(config, StepCost(dataset))
    known, again = read_known(config.known, {run.name for run in runs}, dataset.fingerprint)
    if config.plan_only:
        made = [run.name for run in runs if result_file(root, run.name).exists()]
        say(plan_text(runs, {*known, *made}))
        return False
    files.write_json(root / "config.json", to_json(config))
    total = sum(run.compute for run in runs)
    elsewhere = f", {len(known)} of them known" if known else ""
    say(f"{len(runs)} runs in {len(config.sweeps)} sweeps{elsewhere}, {total:.1e} PF-days")
    complete = work(config, runs, known, dataset, workdir)
    found = results(runs, known, workdir)
    if not found:
        say("no run has ended yet")
        return False
    write_lines(root / RESULTS, found)
    try:
        analysis = analyse(found, config.resamples, config.seed, config.held_out.calibrated)
    except DataError as error:
        say(f"nothing to conclude from {len(found)} of {len(runs)} runs yet: {error}")
        return False
    conclusions = conclusions_of(analysis)
    conclusions["excluded"] |= again
    ended = {result["run"] for result in found}
    conclusions["missing"] = [run.name for run in runs if run.name not in ended]
    files.write_json(root / FITS, conclusions)
    text = markdown(sections(conclusions, found))
    files.write_text(root / "report.md", text)
    _draw(analysis, root / FIGURES)
    say(text.partition("\n## Runs")[0])
    if not complete:
        say(f"{len(runs) - len(found)} runs are left: run the same command to go on")
    return True


def conclusions_of(analysis: Analysis) -> dict[str, Any]:
    """An analysis as JSON."""
    compute = [run["compute"] for run in analysis.kept]
    conclusions = {
        "runs": len(analysis.kept),
        "excluded": analysis.excluded,
        "frontier": [run["run"] for run in analysis.best],
        "laws": [
            {
                "name": name,
                "law": law.form.law,
                "coefficients": {key: list(v) for key, v in law.coefficients().items()},
                "r2": law.r2,
                "error": law.error,
                "runs": len(analysis.fitted_to[name].runs),
                "resamples": len(law.resampled_KP),
            }
            for name, law in analysis.fits.items()
        ],
        "refused": analysis.refused,
        "forecast": _forecast(analysis),
        "answers": [vars(answer) for answer in analysis.answers],
        "best_rates": [vars(best) for best in analysis.best_rates],
        "rate_rule": vars(analysis.rule) if analysis.rule else None,
        "allocation": {
            form.name: [
                vars(allocation(analysis.fits[form.name], analysis.fitted_to[form.name], budget))
                for budget in (times * max(compute) for times in _BUDGETS)
            ]
            for form in (SIZE_AND_SAMPLES, SIZE_AND_SAMPLES_FROM_CHANCE, EVERYTHING)
            if form.name in analysis.fits
        },
        "compute": [min(compute), max(compute)],
        "missing": [],
    }
    plain: dict[str, Any] = _without_nan(conclusions)
    return plain


def _forecast(analysis: Analysis) -> dict[str, Any] | None:
    told = analysis.forecast
    if told is None:
        return None
    stages = {"largest": told.largest} | ({"before": told.before} if told.before else {})
    return {"law": told.law} | {
        name: {
            "seen": stage.seen,
            "compute": float(stage.compute.mean()),
            "measured": float(stage.losses.mean()),
            "said": {law: float(losses.mean()) for law, losses in stage.said.items()},
            "errors": stage.errors,
        }
        for name, stage in stages.items()
    }


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: an interval that is not known is null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _draw(analysis: Analysis, folder: epath.Path) -> None:
    try:
        for name, svg in figures_of(analysis):
            files.write_text(folder / f"{name}.svg", svg)
    except ConfigError as error:
        say(f"{error}")
