"""The section of a report on downstream tasks: a plot a task, all figures folded away."""

from __future__ import annotations

from typing import Any

from clue_jax.evaluation.results import HEADS, PREFIX, metric_name, with_groups
from clue_jax.report import figures
from clue_jax.report.fragments import card, cell, folded, table
from clue_jax.report.glossary import glossary, metric_said, models_of

BEST = "best"  # the model that knows what caused the labels
_IN_TABLES = (
    '<p class="soft after">All figures by task. "A linear" is a linear model on the vectors A, "A'
    ' mlp" a network with a hidden layer, "A knn" a vote of the nearest users, "A boosting" boosted'
    ' decision trees, "A lookalike" nearness to the given users, "A cosine" nearness of user and'
    ' item without training; "A - B" is the difference of both on the same users.</p>'
)


def downstream_section(results: list[dict[str, Any]]) -> str:
    """Plots of the chosen heads by task, and the tables behind them; empty without such tasks."""
    entries = [entry for entry in results if entry["task"].startswith(PREFIX)]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        by_task.setdefault(entry["task"], []).append(entry)
    grouped = with_groups({task: rows[0]["metric"] for task, rows in by_task.items()})
    plots = [_plot(task, by_task[task]) for task in grouped]
    if not plots:
        return ""
    caption = (
        '<p class="soft">Small models, called heads, read the frozen vectors of users; each user is'
        " predicted by heads that were fitted on others. Of several heads the one that was best on"
        " validation users is shown. The vectors, and what stands beside them:</p>"
    )
    said = glossary(models_of(entry for rows in by_task.values() for entry in _chosen(rows)))
    tables = "".join(
        folded(task.removeprefix(PREFIX), _table(by_task[task]))
        + (_by_group(task, groups, by_task) if groups else "")
        for task, groups in grouped.items()
    )
    charts = f'<div class="charts">{"".join(plots)}</div>'
    return f"<h2>Downstream tasks</h2>{caption}{said}{charts}{_IN_TABLES}{tables}"


def _by_group(task: str, groups: dict[str, str], by_task: dict[str, list[dict[str, Any]]]) -> str:
    """The first metric of each model for each group of users."""
    columns = {"all": task} | groups
    metric = by_task[task][0]["metric"]
    cells = {
        (name, entry["model"]): figures.interval_text(
            entry["value"], entry.get("low"), entry.get("high")
        )
        for name, of_group in columns.items()
        for entry in _chosen(by_task[of_group])
    }
    models = [entry["model"] for entry in _chosen(by_task[task])]
    rows = [[model, *(cells.get((name, model), "-") for name in columns)] for model in models]
    users = {name: cell(by_task[of_group][0].get("n")) for name, of_group in columns.items()}
    headings = [("model", False), *((f"{name}, n = {users[name]}", True) for name in columns)]
    summary = f"{task.removeprefix(PREFIX)}, by groups of users"
    return folded(summary, table(headings, {metric_name(metric): rows}))


def _chosen(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first metric of models, without those of each head and without differences."""
    return [
        entry
        for entry in entries
        if entry["metric"] == entries[0]["metric"]
        and " - " not in entry["model"]
        and not entry["model"].endswith(HEADS)
    ]


def _plot(task: str, entries: list[dict[str, Any]]) -> str:
    metric = metric_name(entries[0]["metric"])
    intervals = [
        figures.Interval(
            label="best possible" if entry["model"] == BEST else entry["model"],
            value=entry["value"],
            low=entry.get("low"),
            high=entry.get("high"),
            baseline=not entry["model"].startswith("clue"),
        )
        for entry in sorted(
            _chosen(entries), key=lambda entry: entry["model"] == BEST
        )  # the best last
    ]
    users = entries[0].get("n")
    among = f", n = {users:,}" if isinstance(users, int) else ""
    name = task.removeprefix(PREFIX)
    chart = figures.interval_plot(f"{name}, {metric}", metric, intervals)
    caption = f"{metric}{metric_said(entries[0]['metric'])}. With 95 % intervals{among}."
    caption = caption[0].upper() + caption[1:]
    if entries[0]["metric"].endswith("_difference"):
        caption += (
            " How far the best and the worst group are apart, so less is better; chance is how far"
            " as many groups are that were dealt at random."
        )
    return card(name, chart, caption)


def _table(entries: list[dict[str, Any]]) -> str:
    """Models of one metric under each other; differences to the export last."""
    groups: dict[str, list[list[str]]] = {}
    for entry in entries:
        score = figures.interval_text(entry["value"], entry.get("low"), entry.get("high"))
        row = [entry["model"], score, cell(entry.get("n"))]
        groups.setdefault(metric_name(entry["metric"]), []).append(row)
    return table([("model", False), ("value [95 % interval]", True), ("n", True)], groups)
