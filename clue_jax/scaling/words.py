"""What a study found, in words and tables: sections that Markdown and HTML are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

TITLE = "Scaling study"
# The paper's study spans these PF-days (figure 1 of arXiv 2111.11294).
PAPER_RANGE = (2e-5, 5e-2)
_COLUMNS = ("size", "users", "behaviours", "batch", "steps", "learning_rate", "seed")
_LOSSES = ("loss", "loss, best temperature", "loss, own length and batch")


@dataclass(frozen=True)
class Table:
    """Cells are plain text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = str | Sequence[str] | Table  # a paragraph, points of a list, or a table


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


def sections(conclusions: dict[str, Any], results: Sequence[dict[str, Any]]) -> list[Section]:
    """The report of a study; the first section's title is empty.

    Args:
        conclusions: contents of fits.json.
        results: of all runs that ended.
    """
    low, high = conclusions["compute"]
    missing = conclusions["missing"]
    excluded = [f"{run}: {why}" for run, why in conclusions["excluded"].items()]
    summary = (
        f"{len(results)} of {len(results) + len(missing)} runs have ended; {conclusions['runs']}"
        f" count, from {low:.1e} to {high:.1e} PF-days. {_range(low, high)}"
    )
    refused = [f"Not fitted: {why}" for why in conclusions["refused"].values()]
    return [
        Section("", [summary]),
        Section("Questions of the paper", [_answers(conclusions["answers"])]),
        Section("Laws", [_laws(conclusions["laws"]), refused]),
        Section("Forecast of the largest budget", _forecast(conclusions["forecast"])),
        Section("What to spend a budget on", _allocations(conclusions["allocation"])),
        Section("Learning rates", _rates(conclusions["best_rates"], conclusions["rate_rule"])),
        Section("Runs", [_runs(results)]),
        Section("Left out", [excluded or "None."]),
        Section("Not yet run", [missing or "None."]),
    ]


def markdown(found: Sequence[Section]) -> str:
    """Sections as Markdown."""
    parts = [f"# {TITLE}"]
    for section in found:
        if section.title:
            parts.append(f"## {section.title}")
        parts += [markdown_block(block) for block in section.blocks if block]
    return "\n\n".join(parts) + "\n"


def _range(low: float, high: float) -> str:
    if high < PAPER_RANGE[0]:
        return (
            f"All of it lies below the paper's range ({PAPER_RANGE[0]:.0e} to"
            f" {PAPER_RANGE[1]:.0e}): what holds here need not hold there."
        )
    return f"The paper's range is {PAPER_RANGE[0]:.0e} to {PAPER_RANGE[1]:.0e}."


def _answers(answers: Iterable[dict[str, Any]]) -> Block:
    rows = [
        [
            answer["claim"],
            answer["verdict"],
            with_interval(answer["value"], answer["low"], answer["high"], "+.3f"),
            str(answer["runs"]),
            answer["how"],
        ]
        for answer in answers
    ]
    head = ["claim", "verdict", "effect on log loss, or correlation", "runs", "compared"]
    return Table(head, rows) if rows else "No two runs differ in one factor alone."


def _laws(laws: Iterable[dict[str, Any]]) -> Block:
    rows = [
        [
            law["name"],
            law["law"],
            str(law["runs"]),
            f"{law['r2']:.4f}",
            f"{100 * law['error']:.1f} %",
            ", ".join(
                f"{name} {with_interval(value, low, high, '.3g')}"
                for name, (value, low, high) in law["coefficients"].items()
            ),
        ]
        for law in laws
    ]
    head = ["law", "form", "runs", "R2 of log losses", "typical error", "coefficients"]
    return Table(head, rows) if rows else "None could be fitted."


def _forecast(told: dict[str, Any] | None) -> list[Block]:
    if told is None:
        return ["Too few runs to hold the largest out."]
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
    measured = (
        f"Laws fitted to {largest['seen']} smaller runs, for {largest['compute']:.1e} PF-days,"
        f" where {largest['measured']:.4f} was measured:"
    )
    blocks: list[Block] = [
        measured,
        Table(["law", "said", "error", "error on the budget before"], rows),
    ]
    if told["law"]:
        blocks.append(
            f"Chosen by the budget before, without looking at this one: {told['law']},"
            f" {100 * largest['errors'][told['law']]:.1f} % off."
        )
    return blocks


def _allocations(best: dict[str, Sequence[dict[str, Any]]]) -> list[Block]:
    if not best:
        return ["No law of size and samples."]
    head = ["PF-days", "parameters", "samples", "behaviours", "batch, at most", "users", "loss", ""]
    blocks: list[Block] = []
    for law, rows in best.items():
        lines = [
            [
                f"{b['compute']:.1e}",
                with_interval(b["parameters"], b["parameters_low"], b["parameters_high"], ",.0f"),
                f"{b['samples']:,.0f}",
                f"{b['behaviours']:g}",
                f"{b['batch']:,.0f}",
                f"{b['users']:,.0f}",
                f"{b['loss']:.4f}",
                "" if b["within"] else "beyond what was tried",
            ]
            for b in rows
        ]
        blocks += [f"By the law of {law}:", Table(head, lines)]
    return blocks


def _rates(best: Sequence[dict[str, Any]], rule: dict[str, float] | None) -> list[Block]:
    if not best:
        return ["Nowhere were three learning rates tried."]
    rows = [
        [
            b["size"],
            str(b["batch"]),
            f"{b['samples']:,}",
            f"{b['rate']:.2e}",
            "at the edge" if b["at_edge"] else "",
        ]
        for b in best
    ]
    told = "All of them lie at the edge of what was tried: no rule."
    if rule is not None:
        told = (
            f"Through those inside: rate = {rule['at']:.2e} (64 / D)^{rule['width_power']:.2f}"
            f" (B / 256)^{rule['batch_power']:.2f}."
        )
    return [Table(["size", "batch", "samples", "best rate", ""], rows), told]


def with_interval(value: float, low: float | None, high: float | None, form: str) -> str:
    """A number with its interval, where it has one."""
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _runs(results: Sequence[dict[str, Any]]) -> Table:
    head = [*_COLUMNS, "PF-days", *_LOSSES, "MRR"]
    return Table(head, [_run_row(result) for result in results])


def _run_row(run: dict[str, Any]) -> list[str]:
    settings = [f"{v:.3g}" if isinstance(v := run[name], float) else str(v) for name in _COLUMNS]
    if "failed" in run:
        return [*settings, "", "failed", "", "", ""]
    losses = (f"{run[name]:.4f}" for name in ("loss", "loss_best_scale", "loss_own"))
    return [*settings, f"{run['compute']:.2e}", *losses, f"{run['mrr']:.3f}"]


def markdown_block(block: Block) -> str:
    """A paragraph, list or table as Markdown."""
    if isinstance(block, str):
        return block
    if isinstance(block, Table):
        lines = [block.head, ["---"] * len(block.head), *block.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join(f"- {point}" for point in block)
