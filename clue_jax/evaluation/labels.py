"""Label tables: read, checked row by row, and laid beside the users of an export.

What is refused, each time with file, row and the way out: columns that are missing, missing or
non-finite values, labels of users that neither the export nor its dataset has, two labels of one
user, labels of one class only, and above all labels that the embeddings may have seen.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from clue_jax.config import TaskConfig, TaskKind
from clue_jax.data.hashing import hashes64
from clue_jax.data.timestamps import DAY_SECONDS, times
from clue_jax.errors import DataError
from clue_jax.evaluation.exported import cutoff_seconds, held_out_of
from clue_jax.evaluation.people import People

FOREVER = 2.0**40  # no label is of the future


@dataclass(frozen=True)
class Labels:
    """Labels of held-out users, n of them; of CLICKS a row an impression."""

    task: TaskConfig
    table: pa.Table  # the columns that the task names
    place_n: np.ndarray  # of each row's user among the held-out users
    elsewhere: int  # rows of users of other splits, or without a visible behaviour

    def __len__(self) -> int:
        return len(self.place_n)

    def texts(self, name: str) -> np.ndarray:
        """A column as text, [n]."""
        return np.array([str(value) for value in self.table.column(name).to_pylist()], object)

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers or flags, float64 [n].

        Raises:
            DataError: it holds something else, or a value that is not finite.
        """
        column = self.table.column(name)
        try:
            values = column.cast(pa.float64()).to_numpy()
        except pa.ArrowException as error:
            raise DataError(
                f"task {self.task.name}: column {name!r} holds {column.type}, not numbers"
            ) from error
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise DataError(
                f"task {self.task.name}: column {name!r} is not finite in {len(bad):,} rows"
            )
        return values

    def vectors(self, name: str, width: int) -> np.ndarray:
        """A column of lists of `width` numbers, float64 [n, width].

        Raises:
            DataError: lists of another length.
        """
        rows = self.table.column(name).to_pylist()
        if any(row is None or len(row) != width for row in rows):
            raise DataError(f"task {self.task.name}: {name!r} does not hold {width} values a row")
        return np.array(rows, np.float64).reshape(len(rows), width)


def read_labels(task: TaskConfig, people: People) -> Labels:
    """The labels of a task for held-out users, at most `max_users` of them.

    Raises:
        DataError: see the top of this module.
    """
    return sample(read_every_label(task, people), people)


def read_every_label(task: TaskConfig, people: People) -> Labels:
    """The labels of a task for all held-out users; raises like `read_labels`."""
    folder = people.config.downstream.labels
    table, where = _read_table(task, folder, _columns(task))
    ids = table.column(task.user_id).to_pylist()
    _refuse_unknown(task, people, ids, where)
    if task.kind is not TaskKind.CLICKS:
        _refuse_repeated(task, ids, where)
    if task.timestamp:
        _check_times(task, people, table.column(task.timestamp), where)
    else:
        _check_undated(task, people)
    return _held(task, people, table, ids)


def read_truth(task: TaskConfig, people: People, columns: tuple[str, ...]) -> Labels:
    """What a synthetic world knows of held-out users, to validate estimates with.

    Raises:
        DataError: a file or column that is not there, or two rows of one user.
    """
    table, where = _read_table(task, people.config.downstream.labels, (task.user_id, *columns))
    ids = table.column(task.user_id).to_pylist()
    _refuse_repeated(task, ids, where)
    return _held(task, people, table, ids)


def sample(labels: Labels, people: People) -> Labels:
    """Labels of at most `max_users` users, those of the least hash."""
    users = np.unique(labels.place_n)
    most = people.config.downstream.max_users
    if len(users) <= most:
        return labels
    hashes = hashes64(people.held.user_ids[users].tolist())
    chosen = users[np.argsort(hashes)[:most]]
    rows = np.flatnonzero(np.isin(labels.place_n, chosen))
    return Labels(
        labels.task, labels.table.take(pa.array(rows)), labels.place_n[rows], labels.elsewhere
    )


# ------------------------------------------------------------------------------------- reading


class _Where:
    """Names file and row of a row of all files together."""

    def __init__(self, paths: list[epath.Path], lengths: list[int]):
        self.paths, self.ends = paths, np.cumsum(lengths)

    def __call__(self, row: int) -> str:
        part = int(np.searchsorted(self.ends, row, side="right"))
        first = int(self.ends[part - 1]) if part else 0
        return f"{self.paths[part]}: row {row - first}"


def _held(task: TaskConfig, people: People, table: pa.Table, ids: list) -> Labels:
    """The rows of held-out users."""
    place_n = np.array([people.place_of.get(str(user_id), -1) for user_id in ids], np.int64)
    kept = np.flatnonzero(place_n >= 0)
    if not len(kept):
        raise DataError(
            f"task {task.name}: none of {len(ids):,} labels is of the export's users of"
            f" {'+'.join(people.config.downstream.splits)}"
        )
    return Labels(task, table.take(pa.array(kept)), place_n[kept], len(ids) - len(kept))


def _columns(task: TaskConfig) -> tuple[str, ...]:
    wanted = [task.user_id, task.label, task.timestamp, task.best]
    if task.kind is TaskKind.CLICKS:
        wanted += [task.action, task.position, task.propensity]
    return tuple(dict.fromkeys(name for name in wanted if name))


def _read_table(task: TaskConfig, folder: str, columns: tuple[str, ...]) -> tuple[pa.Table, _Where]:
    paths = _paths(task, folder)
    tables = [read_columns(path, columns) for path in paths]
    where = _Where(paths, [len(table) for table in tables])
    try:
        table = pa.concat_tables(tables).combine_chunks()
    except pa.ArrowException as error:
        raise DataError(f"{paths[0].parent}: files of one task differ ({error})") from error
    for name in table.column_names:
        missing = np.flatnonzero(table.column(name).is_null().to_numpy(zero_copy_only=False))
        if len(missing):
            raise DataError(
                f"{where(missing[0])}: {name!r} is missing ({len(missing):,} such rows)"
            )
    if not len(table):
        raise DataError(f"{paths[0]}: no labels")
    return table, where


def _paths(task: TaskConfig, folder: str) -> list[epath.Path]:
    path = epath.Path(folder) / task.labels
    found = table_files(path)
    if not found:
        raise DataError(
            f"{path}: no labels of task {task.name} there; name their folder with"
            " --config.downstream.labels=DIR"
        )
    return found


def table_files(path: epath.Path) -> list[epath.Path]:
    """The Parquet files that a folder, a glob or a name stands for, in order; none: none there."""
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    if "*" in path.name:
        return sorted(path.parent.glob(path.name))
    return [path] if path.exists() else []


def read_columns(path: epath.Path, columns: tuple[str, ...]) -> pa.Table:
    """These columns of a Parquet file.

    Raises:
        DataError: it cannot be read, or lacks a column; names the file.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()), page_checksum_verification=True)
        there = file.schema_arrow.names
        missing = [name for name in columns if name not in there]
        if missing:
            raise DataError(f"{path}: no column {missing[0]!r}; it has {', '.join(there)}")
        return file.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet ({error})") from error


# ------------------------------------------------------------------------------------- refusals


def _refuse_unknown(task: TaskConfig, people: People, ids: list, where: _Where) -> None:
    strange = [n for n, user_id in enumerate(ids) if str(user_id) not in people.place_of]
    # An export leaves out users without a behaviour that it may see; the dataset knows them.
    if strange:
        strange = [n for n in strange if str(ids[n]) not in people.dataset_ids]
    users = {ids[n] for n in strange}
    most = people.config.downstream.max_unknown_users
    if len(users) > most:
        raise DataError(
            f"{where(strange[0])}: a user that neither the export nor its dataset has"
            f" ({len(users):,} such users of task {task.name}); if that is right, allow it with"
            f" --config.downstream.max_unknown_users={len(users)}"
        )


def _refuse_repeated(task: TaskConfig, ids: list, where: _Where) -> None:
    _, first = np.unique(np.array(ids, object).astype(str), return_index=True)
    if len(first) < len(ids):
        again = np.setdiff1d(np.arange(len(ids)), first)
        raise DataError(
            f"{where(int(again[0]))}: a second label of the same user ({len(again):,} such rows);"
            f" task {task.name} takes one label a user"
        )


def _check_times(task: TaskConfig, people: People, column: pa.ChunkedArray, where: _Where) -> None:
    seconds, problem = times(column.combine_chunks(), task.timestamp, FOREVER)
    bad = np.flatnonzero(problem)
    if len(bad):
        raise DataError(f"{where(bad[0])}: {task.timestamp!r} is not a time ({len(bad):,} rows)")
    if task.timeless:
        return
    cutoff = cutoff_seconds(people.export)
    if cutoff is None:
        raise DataError(
            f"task {task.name}: labels from {_date(seconds.min())} on, but the export has no"
            " cutoff, so the embeddings may have seen what they are to predict; export again with"
            f" --config.cutoff={_date(seconds.min())}"
        )
    early = np.flatnonzero(seconds < cutoff)
    if len(early):
        raise DataError(
            f"{where(early[0])}: a label of {_date(seconds[early[0]])} ({len(early):,} such rows),"
            f" before the export's cutoff {_date(cutoff)}, so the embeddings may have seen it;"
            f" export again with --config.cutoff={_date(seconds.min())}, or leave these labels out"
        )
    end = cutoff + task.window_days * DAY_SECONDS
    late = np.flatnonzero(seconds >= end)
    if task.window_days and len(late):
        raise DataError(
            f"{where(late[0])}: a label of {_date(seconds[late[0]])} ({len(late):,} such rows),"
            f" after the window of {task.window_days} days from the export's cutoff"
            f" {_date(cutoff)}"
        )


def _check_undated(task: TaskConfig, people: People) -> None:
    held_out = held_out_of(people.export)
    if task.timeless or (task.kind is TaskKind.RETRIEVAL and held_out):
        return
    raise DataError(
        f"task {task.name}: the labels have no dates, so nothing says that the embeddings have not"
        " seen them; name their column in `timestamp`, set `timeless` where no behaviour can give"
        " the label away, or for retrieval export with --config.hold_out_last=1"
    )


def _date(seconds: int | np.integer) -> str:
    moment = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
