"""Labels to colour a map of users by: from a table that is named, or that tasks were run on."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from clue_jax.errors import DataError
from clue_jax.evaluation.labels import table_files

MOST_VALUES = 50  # distinct ones; beyond, and of numbers, a label is no category


@dataclass(frozen=True)
class LabelTable:
    """A Parquet table with a user and a label a row."""

    path: str  # file, folder or glob
    column: str
    user_id: str = "user_id"


def task_tables(config: dict[str, Any]) -> list[LabelTable]:
    """Of the categorical tasks in the config of an evaluation."""
    downstream = config.get("downstream") or {}
    folder = epath.Path(str(downstream.get("labels", "")))
    return [
        LabelTable(str(folder / task["labels"]), task["label"], task["user_id"])
        for task in downstream.get("tasks", ())
        if task.get("kind") in ("binary", "multiclass") and task.get("labels")
    ]


def read_categories(table: LabelTable) -> dict[str, str]:
    """User id -> label as text; the last row of a user counts.

    Raises:
        DataError: no such table or column, or labels that are no categories.
    """
    files = _files(epath.Path(table.path))
    found: dict[str, str] = {}
    for file in files:
        rows = _read(file, table)
        pairs = (rows.column(name).to_pylist() for name in (table.user_id, table.column))
        for user, value in zip(*pairs, strict=True):
            if user is not None and value is not None:
                found[str(user)] = _text(value)
    values = len(set(found.values()))
    if values > MOST_VALUES:
        raise DataError(
            f"{table.path}: column {table.column!r} has {values:,} distinct values; a map is"
            f" coloured by {MOST_VALUES} at most: group them into another column"
        )
    return found


def read_usable(tables: Iterable[LabelTable]) -> dict[str, dict[str, str]]:
    """Of tables that nobody has named to the report: those that are still there and categories."""
    found = {}
    for table in tables:
        with contextlib.suppress(DataError):
            found[table.column] = read_categories(table)
    return found


def frequent(labels: Mapping[str, str], most: int) -> tuple[str, ...]:
    """The labels of most users, the first of equals in order."""
    counts = Counter(labels.values())
    return tuple(sorted(sorted(counts), key=lambda value: -counts[value])[:most])


def _text(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _files(path: epath.Path) -> list[epath.Path]:
    found = table_files(path)
    if not found:
        raise DataError(f"{path}: no Parquet table of labels there; name one with --labels")
    return found


def _read(file: epath.Path, table: LabelTable) -> pa.Table:
    try:
        content = pq.ParquetFile(pa.BufferReader(file.read_bytes()))
        there = content.schema_arrow.names
        for name in (table.user_id, table.column):
            if name not in there:
                raise DataError(
                    f"{file}: no column {name!r}; it has {', '.join(there)}: name one with --label"
                )
        return content.read(columns=[table.user_id, table.column])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not readable as Parquet ({error})") from error
