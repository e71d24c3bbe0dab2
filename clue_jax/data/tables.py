"""Log tables in Parquet, CSV and JSONL, read in bounded batches of only the columns in use."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import typing
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from etils import epath

from clue_jax.config import PrepareConfig, SourceConfig
from clue_jax.data.json_lines import bounded, column_of, json_records
from clue_jax.errors import ConfigError, DataError

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl"}
FORMATS |= {".ndjson": "jsonl"}
BATCH_ROWS = 1 << 17
BATCH_BYTES = 1 << 24  # of a batch of Parquet
DISTINCT_BYTES = 1 << 25  # of one column in a row group
COLUMN_BUFFER_BYTES = 1 << 20  # else all of a column in a row group is held, however long it is
CSV_BLOCK_BYTES = 1 << 24  # a row may straddle two blocks, so this is also the longest one
HEADER_BYTES = 1 << 20
PROBED_LINES = 1_000  # JSON lines looked at for the names of columns

_READ_ERRORS = (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)


@dataclass(frozen=True)
class LogFile:
    path: epath.Path
    name: str  # relative to the folder of the logs
    format: str

    def unreadable(self, error: BaseException | str, place: str = "") -> DataError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        return DataError(
            f"{self.path}{place}: cannot be read as {self.format}: {reason}; it is damaged, cut off"
            " or of another format (`format` of its source says which)"
        )


@dataclass(frozen=True)
class Batch:
    """Some rows of a file; `broken` are rows between them of which nothing can be read."""

    rows: np.ndarray  # [B] int64, 1-based number of each row (JSONL: line) in its file
    columns: dict[str, pa.Array]  # [B] each
    broken: tuple[tuple[int, str], ...] = ()  # number, reason
    upto: float = 0.0  # share of the file that has been read with it

    def __len__(self) -> int:
        return len(self.rows)


def find_files(config: PrepareConfig, source: SourceConfig) -> list[LogFile]:
    """Files of one source, sorted by name.

    Raises:
        DataError: the folder is not there, or nothing matches.
        ConfigError: the format cannot be told from the name.
    """
    root = epath.Path(config.source)
    if not root.is_dir():
        way_out = config.help or "put the logs there, or name their folder with --config.source=DIR"
        raise DataError(f"{root}: no such folder; {way_out}")
    try:
        paths = sorted(path for path in root.glob(source.path) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"config.sources: path {source.path!r}: {error}") from error
    if not paths:
        there = sorted(path.name for path in root.iterdir())[:20]
        way_out = f"; {config.help}" if config.help else ""
        raise DataError(
            f"{root}/{source.path}: no file matches; the folder holds"
            f" {', '.join(there) or 'nothing'}{way_out}"
        )
    return [
        LogFile(path, str(path.relative_to(root)), _format(path, source.format)) for path in paths
    ]


def _format(path: epath.Path, given: str) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    found = given or FORMATS.get(suffixes[-1] if suffixes else "", "")
    if not found:
        raise ConfigError(
            f"{path}: the name does not tell the format; set `format` of its source to parquet,"
            " csv or jsonl"
        )
    return found


def column_names(file: LogFile, delimiter: str = ",") -> list[str]:
    """Names of the columns of a file, from its header alone (JSONL: from its first lines).

    Raises:
        DataError: it is empty or cannot be read.
    """
    try:
        if file.path.stat().length == 0:
            raise DataError(f"{file.path}: the file is empty")
        if file.format == "parquet":
            with file.path.open("rb") as stream:
                return pq.ParquetFile(stream).schema_arrow.names
        with _stream(file) as stream:
            return _csv_names(stream, delimiter) if file.format == "csv" else _json_names(stream)
    except _READ_ERRORS as error:
        raise file.unreadable(error) from error


def check_columns(file: LogFile, wanted: list[str], delimiter: str = ",") -> None:
    """Refuses a file before it is read in full, from its header alone.

    Raises:
        DataError: a wanted column is not there (says which are), is there twice, or holds lists or
            structures; or the file cannot be read.
    """
    names = column_names(file, delimiter)
    for column in wanted:
        if column not in names:
            there = ", ".join(repr(name) for name in sorted(names)) or "none"
            raise DataError(f"{file.path}: no column {column!r}; it has {there}")
        if names.count(column) > 1:
            raise DataError(f"{file.path}: column {column!r} is there {names.count(column)} times")
    if file.format == "parquet":
        with file.path.open("rb") as stream:
            schema = pq.ParquetFile(stream).schema_arrow
        for column in wanted:
            kind = schema.field(column).type
            if pa.types.is_nested(kind) or pa.types.is_map(kind):
                raise DataError(
                    f"{file.path}: column {column!r} holds {kind}; text, numbers or times are"
                    " needed"
                )


def read_batches(file: LogFile, wanted: list[str], delimiter: str = ",") -> Iterator[Batch]:
    """Yields the rows of a file in order, with the wanted columns (CSV: as bytes).

    Raises:
        DataError: the file cannot be read to its end; names it and the last row that could be.
    """
    last = 0
    try:
        if file.format == "parquet":
            batches = _parquet_batches(file, wanted)
        elif file.format == "csv":
            batches = _csv_batches(file, wanted, delimiter)
        else:
            batches = _json_batches(file, wanted)
        for batch in batches:
            last = int(batch.rows[-1]) if len(batch) else last
            yield batch
    except _READ_ERRORS as error:
        raise file.unreadable(error, f" after row {last}") from error


@contextlib.contextmanager
def _stream(file: LogFile) -> Iterator[IO[bytes]]:
    with file.path.open("rb") as raw:
        if file.path.suffix != ".gz":
            yield raw
        else:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield typing.cast(IO[bytes], unpacked)


def _share(file: LogFile, stream: IO[bytes]) -> float:
    """How much of a file has been read, or of its archive."""
    raw = getattr(stream, "fileobj", stream)
    return raw.tell() / max(file.path.stat().length, 1)


def _parquet_batches(file: LogFile, wanted: list[str]) -> Iterator[Batch]:
    first = 1
    with file.path.open("rb") as stream:
        metadata = pq.read_metadata(stream)
        rows, repeating = _parquet_plan(metadata, wanted)
        table = pq.ParquetFile(
            stream,
            read_dictionary=repeating,
            page_checksum_verification=True,
            buffer_size=COLUMN_BUFFER_BYTES,
        )
        for batch in table.iter_batches(rows, columns=wanted, use_threads=False):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            numbers = np.arange(first, first + len(batch))
            first += len(batch)
            yield Batch(numbers, columns, (), (first - 1) / metadata.num_rows)


def _parquet_plan(metadata: pq.FileMetaData, wanted: list[str]) -> tuple[int, list[str]]:
    """Rows to read at a time, fewer than BATCH_ROWS where they are long; and the columns to read by
    their distinct values, which the reader keeps until the end of a row group."""
    longest, largest = 1.0, dict.fromkeys(wanted, 0)
    for number in range(metadata.num_row_groups):
        group, size = metadata.row_group(number), 0
        for place in range(group.num_columns):
            chunk = group.column(place)
            if chunk.path_in_schema in largest:
                here = chunk.total_uncompressed_size
                largest[chunk.path_in_schema] = max(largest[chunk.path_in_schema], here)
                size += here
        longest = max(longest, size / max(group.num_rows, 1))
    rows = max(1, min(BATCH_ROWS, int(BATCH_BYTES / longest)))
    return rows, [name for name, size in largest.items() if size <= DISTINCT_BYTES]


def _csv_names(stream: IO[bytes], delimiter: str) -> list[str]:
    text = stream.read(HEADER_BYTES).decode("utf-8-sig", errors="replace")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return next((row for row in rows if row), [])


def _csv_batches(file: LogFile, wanted: list[str], delimiter: str) -> Iterator[Batch]:
    invalid: list[tuple[int, str]] = []

    def skip(row: pacsv.InvalidRow) -> str:
        # Numbered from the header's line, which is row 1.
        reason = f"has {row.actual_columns} fields instead of {row.expected_columns}"
        invalid.append((row.number - 1, reason))
        return "skip"

    empty = {name: pa.array([], pa.large_binary()) for name in wanted}
    first, reported = 1, 0
    with (
        _stream(file) as stream,
        pacsv.open_csv(stream, **_csv_options(wanted, delimiter, skip)) as reader,
    ):
        for batch in reader:
            # The parser runs ahead of the batches: rows it skipped further on may be listed too.
            skipped = np.array([number for number, _ in invalid], np.int64)
            span = np.arange(first, first + len(batch) + len(skipped))
            rows = span[~np.isin(span, skipped)][: len(batch)]
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            yield Batch(rows, columns, tuple(invalid[reported:]), _share(file, stream))
            first, reported = (int(rows[-1]) + 1 if len(rows) else first), len(invalid)
    if invalid[reported:]:
        yield Batch(np.zeros(0, np.int64), empty, tuple(invalid[reported:]))


def _csv_options(
    wanted: list[str], delimiter: str, skip: Callable[[pacsv.InvalidRow], str]
) -> dict[str, Any]:
    return {
        "read_options": pacsv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
        "parse_options": pacsv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        # Bytes: one value that is not UTF-8 would otherwise stop the whole block.
        "convert_options": pacsv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.large_binary())
        ),
    }


def _json_names(stream: IO[bytes]) -> list[str]:
    names: dict[str, None] = {}
    for _, record, _ in itertools.islice(json_records(stream), PROBED_LINES):
        names |= dict.fromkeys(record or {})
    return list(names)


def _json_batches(file: LogFile, wanted: list[str]) -> Iterator[Batch]:
    with _stream(file) as stream:
        records = json_records(stream)
        while lines := list(itertools.islice(bounded(records), BATCH_ROWS)):
            good = [(number, record) for number, record, _ in lines if record is not None]
            broken = tuple((number, reason) for number, record, reason in lines if record is None)
            columns = {name: column_of([r.get(name) for _, r in good]) for name in wanted}
            numbers = np.array([number for number, _ in good], np.int64)
            yield Batch(numbers, columns, broken, _share(file, stream))
