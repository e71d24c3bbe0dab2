"""Rows of results.json and the table a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clue_jax.errors import NonFiniteError
from clue_jax.evaluation.bootstrap import Resampled

TABLE_WIDTH = 100
MODEL = "clue"  # the evaluated export, among models
ATTACK, REFERENCE = "attack model", "reference"  # on membership, beside the simple attack
PREFIX = "downstream/"  # of the names of tasks that heads are trained for
LINKAGE, MEMBERSHIP = "audit/linkage/", "audit/membership/"
MOST_COLUMNS = 3  # of metrics, those that come first
# At the end of a model's name.
HEADS = (" linear", " mlp", " knn", " boosting", " lookalike", " cosine")
NAMES = {"recall": "R", "hit rate": "HR", "ndcg": "NDCG"}  # of metrics at k
CAPITALS = ("mrr", "auc", "r2", "rmse", "mae", "ips", "snips", "dr")


@dataclass(frozen=True)
class Result:
    """One metric of one model on one task."""

    task: str
    model: str
    metric: str
    value: float
    low: float | None  # 95 % interval; None where the value is exact
    high: float | None
    n: int  # users it is the mean of
    seed: int  # of the model's parameters; of the evaluation where it has none


def rows_of(
    task: str, model: str, metrics: Sequence[str], sample: Resampled, n: int, seed: int
) -> list[Result]:
    """One result for each metric, in the order of the sample's columns.

    Raises:
        NonFiniteError: a value that is none; names task, model and metric.
    """
    low, high = sample.interval()
    results = []
    for metric, *values in zip(metrics, sample.value, low, high, strict=True):
        if not np.isfinite(values).all():
            raise NonFiniteError(f"{task}, {model}, {metric}: {values} is not finite")
        value, least, most = map(float, values)
        results.append(Result(task, model, metric, value, least, most, n, seed))
    return results


def exact_rows(
    task: str, model: str, values: Mapping[str, float], n: int, seed: int
) -> list[Result]:
    """Results that are known without sampling."""
    return [Result(task, model, m, value, None, None, n, seed) for m, value in values.items()]


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What results.json holds."""
    return [asdict(result) for result in results]


def with_groups(first_metric: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Whole tasks, each with its groups of users by name: `TASK, GROUP` is one of `TASK`.

    Args:
        first_metric: of each task, groups after their whole; a group has that of the whole.
    """
    found: dict[str, dict[str, str]] = {}
    for task, metric in first_metric.items():
        whole, _, group = task.rpartition(", ")
        if whole in found and first_metric[whole] == metric:
            found[whole][group] = task
        else:
            found[task] = {}
    return found


def print_table(results: Sequence[Result], console: Console | None = None) -> None:
    """Prints a table of at most 100 columns: a section a task, a line a model.

    With more than one pair of services, only the means of both directions are printed; of models
    with several heads, only the one that was chosen; of tasks, not the groups of users.
    """
    console = console or Console(width=TABLE_WIDTH, highlight=False)
    cells = {(r.task, r.model, r.metric): r for r in results if not r.model.endswith(HEADS)}
    first_metric: dict[str, str] = {}
    for r in results:
        first_metric.setdefault(r.task, r.metric)
    grouped = with_groups(first_metric)
    tasks = list(grouped)
    others = [task for task in tasks if not task.startswith("matching/")]
    means = [task for task in tasks if task.endswith("(mean)") and task not in others]
    for task in means + others if len(means) > 1 else tasks:
        users = next(r.n for r in results if r.task == task)
        console.print()
        console.print(Text(f"{task}, {users:,} users", style="bold"))
        console.print(_section(task, cells))
    console.print(Text("\n[low high]: 95 % interval; - NAME: difference to NAME on the same users"))
    if len(means) > 1:
        console.print(Text("Each direction, and blocks of candidates, are in results.json"))
    if others:
        groups = ", groups of users" if any(grouped.values()) else ""
        console.print(Text(f"Each head{groups}, and all metrics, are in results.json"))


def _section(task: str, cells: dict[tuple[str, str, str], Result]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True, min_width=18)
    metrics = list(dict.fromkeys(metric for name, _, metric in cells if name == task))
    metrics = metrics[:MOST_COLUMNS]
    for metric in metrics:
        heading = metric_name(metric)
        table.add_column(heading, justify="right", min_width=19)
    for model in dict.fromkeys(model for name, model, _ in cells if name == task):
        minuend, minus, subtrahend = model.partition(" - ")
        label = f"- {subtrahend}" if minus else minuend
        if minus and minuend != MODEL:
            label = f"{minuend} {label}"
        values = (_cell(cells.get((task, model, metric))) for metric in metrics)
        table.add_row(label, *(Text(value, no_wrap=True) for value in values))
    return table


def _cell(result: Result | None) -> str:
    if result is None:
        return "-"
    value = f"{'+' if ' - ' in result.model and result.value > 0 else ''}{short(result.value)}"
    if result.low is None or result.high is None:
        return value
    return f"{value} [{short(result.low)} {short(result.high)}]"


def metric_name(metric: str) -> str:
    """A metric as people write it: recall_at_10 and R@10 are R@10, hit_rate_at_5 is HR@5."""
    plain = metric.lower().replace("_at_", "@").replace("_", " ")
    name, at, k = plain.partition("@")
    if at:
        return f"{NAMES.get(name, name.upper() if len(name) == 1 else name)}@{k}"
    first, _, rest = plain.partition(" ")
    return f"{first.upper() if first in CAPITALS else first} {rest}".rstrip()


def short(value: float) -> str:
    """Three decimals, without a zero before the point."""
    written = f"{value:.3f}"
    return written.replace("0.", ".", 1) if abs(value) < 1.0 else written
