"""Entries of results.json: read, checked, and those to see first."""

from __future__ import annotations

import math
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.errors import DataError

RESULT_KEYS = ("task", "model", "metric", "value")


def read_results(path: epath.Path) -> list[dict[str, Any]]:
    """Entries of results.json.

    Raises:
        DataError: the file is missing or damaged, an entry lacks a key or a value is not finite.
    """
    entries = files.read_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a list of results, found {type(entries).__name__}")
    for position, entry in enumerate(entries):
        where = f"{path}[{position}]"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected an object, found {entry!r:.80}")
        for key in RESULT_KEYS:
            if key not in entry:
                raise DataError(f"{where}: has no '{key}'")
        for key in ("value", "low", "high"):
            required = key == "value"
            if number(entry.get(key)) is None and (required or entry.get(key) is not None):
                raise DataError(f"{where}: '{key}' is {entry.get(key)!r}, not a finite number")
    return entries


def headline(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries to see first: no differences, and of two directions their mean alone."""
    scores = [entry for entry in results if " - " not in entry["model"]]
    means = [entry for entry in scores if entry["task"].endswith("(mean)")]
    return means or scores


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
