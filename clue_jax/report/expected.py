"""The result that a quickstart says to expect, beside the one it had and chance.

Quickstart leaves the range as a file of its folder, so that a page made later, by another version,
still compares a result with what was expected of it then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.errors import DataError
from clue_jax.evaluation.results import metric_name
from clue_jax.report.fragments import text
from clue_jax.report.glossary import BASELINES, CHANCE
from clue_jax.report.results import headline, number

EXPECTED = "expected.json"


@dataclass(frozen=True)
class Expected:
    """A range of a metric of the trained encoder, as the mean over the tasks of the headline."""

    metric: str  # as results.json calls it
    low: float
    high: float

    def holds(self, value: float | None) -> bool:
        """Whether a value is in the range; none is in no range."""
        return value is not None and self.low <= value <= self.high


def read_expected(path: epath.Path) -> Expected:
    """Reads what quickstart wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    found = files.read_json(path)
    keys = found if isinstance(found, dict) else {}
    metric, low, high = keys.get("metric"), number(keys.get("low")), number(keys.get("high"))
    if not isinstance(metric, str) or low is None or high is None:
        raise DataError(
            f"{path}: expected an object with 'metric', 'low' and 'high'; run quickstart again, or"
            " delete the file for a page without the range"
        )
    return Expected(metric, low, high)


def means(results: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """Of each model, the mean of a metric over the tasks of the headline."""
    found: dict[str, list[float]] = {}
    for entry in headline(results):
        if metric_name(entry["metric"]) == metric_name(metric):
            found.setdefault(entry["model"], []).append(entry["value"])
    return {model: float(np.mean(values)) for model, values in found.items()}


def expected_section(expected: Expected, results: list[dict[str, Any]]) -> str:
    """A sentence as HTML for each trained model; empty without a result to compare."""
    values, tasks = means(results, expected.metric), {e["task"] for e in headline(results)}
    luck = f"; chance is {values[CHANCE]:.3f}" if CHANCE in values else ""
    mean = f", the mean of {len(tasks)} pairs of services," if len(tasks) > 1 else ""
    sentences = []
    for model, value in values.items():
        if model in BASELINES:
            continue
        inside = expected.holds(value)
        line = (
            f"{metric_name(expected.metric)} of {model}{mean} is {value:.3f}:"
            f" {'within' if inside else 'OUTSIDE'} the range to expect, {expected.low:.2f} to"
            f" {expected.high:.2f}{luck}."
        )
        if not inside:
            line += (
                " The range is that of this config with other seeds and other test users. Look for"
                " a setting that was changed, and at the versions under Origin; otherwise it is a"
                " bug: please report it."
            )
        sentences.append(f'<p class="{"soft" if inside else "warning"} after">{text(line)}</p>')
    return "".join(sentences)
