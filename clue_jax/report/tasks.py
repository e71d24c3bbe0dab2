"""The section of a report on downstream tasks: a plot a task, all figures folded away."""

from __future__ import annotations

from typing import Any

from clue_jax.evaluation.results import HEADS, metric_name
from clue_jax.report import figures
from clue_jax.report.fragments import card, cell, folded, table

PREFIX = "downstream/"
BEST = "best"  # the model that knows what caused the labels


def downstream_section(results: list[dict[str, Any]]) -> str:
    """Plots of the chosen heads by task, and the tables behind them; empty without such tasks."""
    entries = [entry for entry in results if entry["task"].startswith(PREFIX)]
    tasks = list(dict.fromkeys(entry["task"] for entry in entries))
    plots = [_plot(task, [entry for entry in entries if entry["task"] == task]) for task in tasks]
    if not plots:
        return ""
    caption = (
        '<p class="soft">Heads on frozen vectors, each user predicted by heads that were fitted on'
        " others. Of several heads the one that was best on validation users is shown.</p>"
    )
    tables = "".join(
        folded(task.removeprefix(PREFIX), _table([e for e in entries if e["task"] == task]))
        for task in tasks
    )
    return f'<h2>Downstream tasks</h2>{caption}<div class="charts">{"".join(plots)}</div>{tables}'


def _plot(task: str, entries: list[dict[str, Any]]) -> str:
    metric = metric_name(entries[0]["metric"])
    shown = [
        entry
        for entry in entries
        if entry["metric"] == entries[0]["metric"]
        and " - " not in entry["model"]
        and not entry["model"].endswith(HEADS)
    ]
    intervals = [
        figures.Interval(
            label="best possible" if entry["model"] == BEST else entry["model"],
            value=entry["value"],
            low=entry.get("low"),
            high=entry.get("high"),
            baseline=not entry["model"].startswith("clue"),
        )
        for entry in sorted(shown, key=lambda entry: entry["model"] == BEST)  # the best last
    ]
    users = entries[0].get("n")
    among = f", n = {users:,}" if isinstance(users, int) else ""
    name = task.removeprefix(PREFIX)
    chart = figures.interval_plot(f"{name}, {metric}", metric, intervals)
    return card(name, chart, f"{metric} with 95 % intervals{among}.")


def _table(entries: list[dict[str, Any]]) -> str:
    """Models of one metric under each other; differences to the export last."""
    groups: dict[str, list[list[str]]] = {}
    for entry in entries:
        score = figures.interval_text(entry["value"], entry.get("low"), entry.get("high"))
        row = [entry["model"], score, cell(entry.get("n"))]
        groups.setdefault(metric_name(entry["metric"]), []).append(row)
    return table([("model", False), ("value [95 % interval]", True), ("n", True)], groups)
