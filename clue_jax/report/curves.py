"""The training section of a report: curves over steps and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from clue_jax.report import figures
from clue_jax.report.fragments import card, cell, folded, table
from clue_jax.report.read import Run
from clue_jax.report.results import number

TABLE_ROWS = 20  # of the table under the charts
TABLE_METRICS = (
    "loss",
    "retrieval_at_1",
    "learning_rate",
    "logit_scale",
    "users_per_second",
    "mfu",
    "data_wait",
    "goodput",
)


def training_section(run: Run) -> str:
    """Charts of a run as HTML."""
    if not run.training and not run.validation:
        return '<h2>Training</h2><p class="soft">No step has been logged yet.</p>'
    parts = _training_charts, _validation_charts, _schedule_charts, _time_charts
    charts = "".join(chart for part in parts for chart in part(run))
    numbers = folded("Numbers behind the curves", _metrics_table(run))
    return f'<h2>Training</h2><div class="charts">{charts}</div>{numbers}'


def curve(
    rows: list[dict[str, Any]],
    key: str,
    dots: bool = False,
    transform: Callable[[float], float] = float,
) -> figures.Curve | None:
    """The finite values of a metric by step; None where there are none."""
    points = [(row["step"], number(row.get(key))) for row in rows]
    kept = [(step, transform(value)) for step, value in points if value is not None]
    if not kept:
        return None
    steps, values = zip(*kept, strict=True)
    return figures.Curve(np.array(steps), np.array(values, float), dots)


def _training_charts(run: Run) -> Iterable[str]:
    loss = curve(run.training, "loss")
    batch = number(setting(run, "train", "batch_users"))
    item_steps = number(setting(run, "sampling", "item_steps")) or 0
    # Before this step a view is a single item, an easier or harder task than that of a user.
    seen = loss is not None and 0 < item_steps < loss.steps[-1]
    mark = ("whole users", item_steps) if seen else None
    yield _chart("Loss", "Contrastive loss of training batches, in nats.", loss, mark=mark)
    yield _chart(
        "Retrieval in training batches",
        "R@1: share of users whose other view ranks first in the batch.",
        curve(run.training, "retrieval_at_1"),
        floor=0.0,
        ceiling=1.0,
        reference=("chance", 1.0 / batch) if batch else None,
        mark=mark,
    )


def _validation_charts(run: Run) -> Iterable[str]:
    last = run.validation[-1] if run.validation else {}
    chance = number(last.get("chance"))
    among = f" among {last['users']:,}" if isinstance(last.get("users"), int) else ""
    yield _chart(
        "Validation R@10",
        f"Share of held-out users found in the first ten{among}.",
        curve(run.validation, "recall_at_10", dots=True),
        floor=0.0,
        ceiling=1.0,
        reference=("chance", chance) if chance is not None else None,
    )
    yield _chart(
        "Validation MRR",
        "Mean over held-out users of one over the rank.",
        curve(run.validation, "mrr", dots=True),
        floor=0.0,
        ceiling=1.0,
    )


def _schedule_charts(run: Run) -> Iterable[str]:
    yield _chart(
        "Learning rate", "As applied at each step.", curve(run.training, "learning_rate"), floor=0.0
    )
    positive = [row for row in run.training if (number(row.get("logit_scale")) or 0) > 0]
    yield _chart(
        "Temperature",
        "Of the contrastive loss: one over the logit scale.",
        curve(positive, "logit_scale", transform=lambda scale: 1.0 / scale),
    )


def _time_charts(run: Run) -> Iterable[str]:
    yield _chart(
        "Throughput",
        "Users a second, of both views, while steps are taken.",
        curve(run.training, "users_per_second"),
        floor=0.0,
    )
    yield _chart(
        "MFU",
        "Model FLOP utilisation: share of the peak of all devices, of what is computed.",
        curve(run.training, "mfu"),
        floor=0.0,
    )
    yield _chart(
        "Goodput",
        "Share of the time since the run began, down time included, that went into steps.",
        curve(run.training, "goodput"),
        floor=0.0,
        ceiling=1.0,
    )
    yield _chart(
        "Waiting for data",
        "Per cent of the time of steps in which the loop waited for a batch.",
        curve(run.training, "data_wait", transform=lambda share: 100.0 * share),
        floor=0.0,
    )


def _chart(title: str, caption: str, points: figures.Curve | None, **options: Any) -> str:
    return (
        "" if points is None else card(title, figures.line_chart(title, points, **options), caption)
    )


def setting(run: Run, section: str, key: str) -> Any:
    """Of the run's config; None where it has no such key."""
    settings = run.config.get(section)
    return settings.get(key) if isinstance(settings, dict) else None


def _metrics_table(run: Run) -> str:
    names = [name for name in TABLE_METRICS if curve(run.training, name)]
    last = len(run.training) - 1
    picked = np.unique(np.linspace(0, last, min(TABLE_ROWS, last + 1)).astype(int))
    rows = [
        [cell(run.training[i]["step"]), *(cell(run.training[i].get(name)) for name in names)]
        for i in picked
    ]
    return table([("step", True), *((name, True) for name in names)], {"": rows})
