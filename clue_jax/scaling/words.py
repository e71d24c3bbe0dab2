"""What a study found, in words and tables (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

# The paper's study spans these PF-days (figure 1 of arXiv 2111.11294).
PAPER_RANGE = (2e-5, 5e-2)
_COLUMNS = ("size", "users", "behaviours", "batch", "steps", "learning_rate", "seed")


def report_text(
    conclusions: dict[str, Any], results: Sequence[dict[str, Any]], planned: int
) -> str:
    """The report.

    Args:
        conclusions: contents of fits.json.
        results: of all runs that ended.
        planned: runs of the plan.
    """
    low, high = conclusions["compute"]
    parts = [
        "# Scaling study",
        f"{len(results)} of {planned} runs have ended; {conclusions['runs']} count, from {low:.1e}"
        f" to {high:.1e} PF-days. {_range(low, high)}",
        "## Laws",
        *_laws(conclusions["laws"]),
        "\n".join(f"- Not fitted: {why}" for why in conclusions["refused"].values()),
        "## Forecast of the largest budget",
        _forecast(conclusions["forecast"]),
        "## What to spend a budget on",
        _allocation(conclusions["allocation"]),
        "## Matching against loss",
        _downstream(conclusions["downstream"]),
        "## Runs",
        _runs(results),
        "## Left out",
        "\n".join(f"- {run}: {why}" for run, why in conclusions["excluded"].items()) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def _range(low: float, high: float) -> str:
    if high < PAPER_RANGE[0]:
        return (
            f"All of it lies below the paper's range ({PAPER_RANGE[0]:.0e} to"
            f" {PAPER_RANGE[1]:.0e}): what holds here need not hold there."
        )
    return f"The paper's range is {PAPER_RANGE[0]:.0e} to {PAPER_RANGE[1]:.0e}."


def _laws(laws: Iterable[dict[str, Any]]) -> Iterable[str]:
    for law in laws:
        values = ", ".join(
            f"{name} {value:.4g}" + ("" if math.isnan(low) else f" [{low:.4g}, {high:.4g}]")
            for name, (value, low, high) in law["coefficients"].items()
        )
        yield (
            f"**{law['name']}**: `{law['law']}`: {values}. R2 of log losses {law['r2']:.4f},"
            f" typical error {100 * law['error']:.2f} %."
        )


def _forecast(told: dict[str, Any] | None) -> str:
    if told is None:
        return "Too few runs to hold the largest out."
    rows = [
        [name, f"{said:.4f}", f"{100 * told['errors'][name]:.1f} %"]
        for name, said in told["said"].items()
    ]
    return (
        f"Laws fitted to {told['seen']} smaller runs, for {told['compute']:.1e} PF-days, where"
        f" {told['measured']:.4f} was measured:\n\n" + _table(["law", "said", "error"], rows)
    )


def _allocation(best: Sequence[dict[str, float]]) -> str:
    if not best:
        return "No law of size and samples, or one in which either does not help."
    rows = [
        [
            f"{b['compute']:.1e}",
            f"{b['parameters']:,.0f}",
            f"{b['samples']:,.0f}",
            f"{b['loss']:.4f}",
        ]
        for b in best
    ]
    head = ["PF-days", "parameters", "samples (steps x batch)", "loss by the law"]
    return _table(head, rows)


def _downstream(found: Sequence[float] | None) -> str:
    if found is None:
        return "Too few runs."
    value, low, high = found
    return (
        f"Correlation of log loss and MRR over runs: {value:.3f} [{low:.3f}, {high:.3f}]"
        " (the paper: .978 in size between losses)."
    )


def _runs(results: Sequence[dict[str, Any]]) -> str:
    head = [*_COLUMNS, "PF-days", "loss", "loss, own length and batch", "MRR"]
    return _table(head, map(_run_row, results))


def _run_row(run: dict[str, Any]) -> list[str]:
    settings = [f"{v:g}" if isinstance(v := run[name], float) else str(v) for name in _COLUMNS]
    if "failed" in run:
        return [*settings, "", "failed", "", ""]
    scores = f"{run['loss']:.4f}", f"{run['loss_own']:.4f}", f"{run['mrr']:.3f}"
    return [*settings, f"{run['compute']:.2e}", *scores]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
