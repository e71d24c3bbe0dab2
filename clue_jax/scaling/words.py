"""What a study found, in words and tables (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from clue_jax.scaling.measure import PF_DAY
from clue_jax.scaling.plan import PlannedRun

# The paper's study spans these PF-days (figure 1 of arXiv 2111.11294).
PAPER_RANGE = (2e-5, 5e-2)
_COLUMNS = ("size", "users", "behaviours", "batch", "steps", "learning_rate", "seed")
_LOSSES = ("loss", "loss, best temperature", "loss, own length and batch")


def report_text(
    conclusions: dict[str, Any], results: Sequence[dict[str, Any]], planned: Sequence[str]
) -> str:
    """The report.

    Args:
        conclusions: contents of fits.json.
        results: of all runs that ended.
        planned: names of the runs of the plan.
    """
    low, high = conclusions["compute"]
    ended = {result["run"] for result in results}
    missing = [name for name in planned if name not in ended]
    parts = [
        "# Scaling study",
        f"{len(results)} of {len(planned)} runs have ended; {conclusions['runs']} count, from"
        f" {low:.1e} to {high:.1e} PF-days. {_range(low, high)}",
        "## Questions of the paper",
        _answers(conclusions["answers"]),
        "## Laws",
        *_laws(conclusions["laws"]),
        "\n".join(f"- Not fitted: {why}" for why in conclusions["refused"].values()),
        "## Forecast of the largest budget",
        _forecast(conclusions["forecast"]),
        "## What to spend a budget on",
        *_allocations(conclusions["allocation"]),
        "## Learning rates",
        _rates(conclusions["best_rates"], conclusions["rate_rule"]),
        "## Runs",
        _runs(results),
        "## Left out",
        "\n".join(f"- {run}: {why}" for run, why in conclusions["excluded"].items()) or "None.",
        "## Not yet run",
        "\n".join(f"- {name}" for name in missing) or "None.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plan_text(runs: Sequence[PlannedRun], known: Collection[str]) -> str:
    """The runs of a plan and what they will compute."""
    rows = [
        [
            ", ".join(run.sweeps),
            run.name,
            f"{run.config.optim.learning_rate:.2g}",
            f"{run.compute:.2e}",
            "known" if run.name in known else "",
        ]
        for run in runs
    ]
    left = sum(run.compute for run in runs if run.name not in known)
    spent = f"{len(runs)} runs; {left:.2e} PF-days ({left * PF_DAY:.2e} FLOPs) are left to compute"
    return f"{_table(['sweeps', 'run', 'rate', 'PF-days', ''], rows)}\n\n{spent}"


def _range(low: float, high: float) -> str:
    if high < PAPER_RANGE[0]:
        return (
            f"All of it lies below the paper's range ({PAPER_RANGE[0]:.0e} to"
            f" {PAPER_RANGE[1]:.0e}): what holds here need not hold there."
        )
    return f"The paper's range is {PAPER_RANGE[0]:.0e} to {PAPER_RANGE[1]:.0e}."


def _answers(answers: Iterable[dict[str, Any]]) -> str:
    rows = [
        [
            answer["claim"],
            f"**{answer['verdict']}**",
            _with_interval(answer["value"], answer["low"], answer["high"], "+.3f"),
            str(answer["runs"]),
            answer["how"],
        ]
        for answer in answers
    ]
    if not rows:
        return "No two runs differ in one factor alone."
    head = ["claim", "verdict", "effect on log loss, or correlation", "runs", "compared"]
    return _table(head, rows)


def _laws(laws: Iterable[dict[str, Any]]) -> Iterable[str]:
    for law in laws:
        values = ", ".join(
            f"{name} {_with_interval(value, low, high, '.4g')}"
            for name, (value, low, high) in law["coefficients"].items()
        )
        yield (
            f"**{law['name']}**: `{law['law']}`, {law['runs']} runs: {values}. R2 of log losses"
            f" {law['r2']:.4f}, typical error {100 * law['error']:.2f} %."
        )


def _forecast(told: dict[str, Any] | None) -> str:
    if told is None:
        return "Too few runs to hold the largest out."
    largest, before = told["largest"], told.get("before")
    rows = [
        [
            name,
            f"{said:.4f}",
            f"{100 * largest['errors'][name]:.1f} %",
            f"{100 * before['errors'][name]:.1f} %" if before and name in before["errors"] else "",
        ]
        for name, said in largest["said"].items()
    ]
    head = ["law", "said", "error", "error on the budget before"]
    chosen = ""
    if told["law"]:
        chosen = (
            f"\n\nChosen by the budget before, without looking at this one: {told['law']},"
            f" {100 * largest['errors'][told['law']]:.1f} % off."
        )
    return (
        f"Laws fitted to {largest['seen']} smaller runs, for {largest['compute']:.1e} PF-days,"
        f" where {largest['measured']:.4f} was measured:\n\n{_table(head, rows)}{chosen}"
    )


def _allocations(best: dict[str, Sequence[dict[str, Any]]]) -> Iterable[str]:
    if not best:
        yield "No law of size and samples."
    head = ["PF-days", "parameters", "samples", "behaviours", "batch, at most", "users", "loss", ""]
    for law, rows in best.items():
        lines = [
            [
                f"{b['compute']:.1e}",
                _with_interval(b["parameters"], b["parameters_low"], b["parameters_high"], ",.0f"),
                f"{b['samples']:,.0f}",
                f"{b['behaviours']:g}",
                f"{b['batch']:,.0f}",
                f"{b['users']:,.0f}",
                f"{b['loss']:.4f}",
                "" if b["within"] else "beyond what was tried",
            ]
            for b in rows
        ]
        yield f"By the law of {law}:\n\n{_table(head, lines)}"


def _rates(best: Sequence[dict[str, Any]], rule: dict[str, float] | None) -> str:
    if not best:
        return "Nowhere were three learning rates tried."
    rows = [
        [b["size"], str(b["batch"]), f"{b['rate']:.2e}", "at the edge" if b["at_edge"] else ""]
        for b in best
    ]
    told = _table(["size", "batch", "best rate", ""], rows)
    if rule is None:
        return f"{told}\n\nAll of them lie at the edge of what was tried: no rule."
    return (
        f"{told}\n\nThrough those inside: rate = {rule['at']:.2e} (64 / D)^"
        f"{rule['width_power']:.2f} (B / 256)^{rule['batch_power']:.2f}."
    )


def _with_interval(value: float, low: float, high: float, form: str) -> str:
    if math.isnan(low):
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _runs(results: Sequence[dict[str, Any]]) -> str:
    head = [*_COLUMNS, "PF-days", *_LOSSES, "MRR"]
    return _table(head, map(_run_row, results))


def _run_row(run: dict[str, Any]) -> list[str]:
    settings = [f"{v:g}" if isinstance(v := run[name], float) else str(v) for name in _COLUMNS]
    if "failed" in run:
        return [*settings, "", "failed", "", "", ""]
    losses = (f"{run[name]:.4f}" for name in ("loss", "loss_best_scale", "loss_own"))
    return [*settings, f"{run['compute']:.2e}", *losses, f"{run['mrr']:.3f}"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
