"""Reads the log tables of one source: filters and checks their rows, hands on what is left.

Filters come before checks, so that a cancelled order without a customer is filtered, not rejected;
a rejected row counts once, under the first of its problems.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from clue_jax.config import SERVICE_NAME, PrepareConfig, SourceConfig
from clue_jax.console import say
from clue_jax.data import columns, row_filters, tables, timestamps
from clue_jax.data.rejects import Reject, Rejects
from clue_jax.errors import DataError

SPLITS = ("train", "validation", "test")
MAX_ID_BYTES = 1_000
MAX_SERVICES = 256  # more speak for a wrong `service_column`


@dataclass(frozen=True)
class Behaviours:
    """The usable rows of one batch: B behaviours in order of appearance."""

    users: pa.Array  # [B] large_string: ids as the logs have them
    services: pa.Array  # [B] large_string
    service: np.ndarray  # [B] int16, the services as numbered in order of appearance
    texts: pa.Array  # [B] large_string
    source_ids: pa.Array  # [B] large_string, '' where the source has none
    times: np.ndarray  # [B] int64: epoch s, or the order column, or the order of appearance
    splits: np.ndarray  # [B] int8 position in SPLITS; -1 where the source has none
    rows: np.ndarray  # [B] int64, number of each row in its file
    first: int  # behaviours before this batch
    file: str  # as errors name it
    split_column: str  # '' where the source has none

    def __len__(self) -> int:
        return len(self.rows)


Sink = Callable[[Behaviours], None]


@dataclass
class Tally:
    """What all sources have given so far, in numbers."""

    services: dict[str, int] = field(default_factory=dict)  # numbered as they appear
    filtered: Counter[str] = field(default_factory=Counter)
    behaviours: int = 0
    rows: int = 0  # read from sources that say neither when nor in which order


class LogReader:
    """Reads the files of one source and hands their usable rows on, a batch at a time."""

    def __init__(
        self,
        config: PrepareConfig,
        source: SourceConfig,
        tally: Tally,
        rejects: Rejects,
        sink: Sink,
    ):
        self.config, self.source, self.rejects, self.sink = config, source, rejects, sink
        self.tally = tally
        for rule in source.keep:
            row_filters.check_rule(rule)
        self.name = source.service or source.path
        self.now = time.time()
        self.start = (
            timestamps.iso_seconds(source.start, "config.sources: start") if source.start else None
        )
        self.end = timestamps.iso_seconds(source.end, "config.sources: end") if source.end else None
        self.template_columns = columns.template_columns(source.text)
        named = [source.user_id, source.order, source.item_id, source.split, source.service_column]
        named += [*self.template_columns, *(rule.column for rule in source.keep)]
        self.text_columns = list(dict.fromkeys(name for name in named if name))
        self.wanted = list(dict.fromkeys([*self.text_columns, *filter(None, [source.timestamp])]))

    def check(self, files: list[tables.LogFile]) -> None:
        """Raises DataError unless every file can be opened and has all the columns in use."""
        for file in files:
            tables.check_columns(file, self.wanted, self.source.delimiter)

    def read(self, files: list[tables.LogFile], advance: Callable[[float], None]) -> None:
        """Raises DataError for a source without a single row, and as `read_events` does."""
        seen = 0
        for file in files:
            before = seen
            for batch in tables.read_batches(file, self.wanted, self.source.delimiter):
                seen += len(batch) + len(batch.broken)
                try:
                    self._take(file, batch)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    raise file.unreadable(error) from error
            if seen == before:
                say(f"{file.path}: a table without rows")
            advance(file.path.stat().length)
        if not seen:
            raise DataError(f"{files[0].path}: the table is empty: no row in {self.source.path}")

    def _take(self, file: tables.LogFile, batch: tables.Batch) -> None:
        """Adds the usable rows of a batch, and its rejects."""
        found = [Reject(row, "", reason) for row, reason in batch.broken]
        text, invalid = {}, {}
        for name in self.text_columns:
            text[name], invalid[name] = columns.texts(batch.columns[name], name)
        kept = self._filter(text, len(batch))
        times, kept = self._times(batch, kept, found)
        check = _Check(batch.rows, kept, found)
        users = self._users(text, invalid, check)
        texts = self._texts(text, invalid, check)
        source_ids = self._source_ids(text, invalid, check)
        services = self._services(text, invalid, check)
        splits = self._splits(text, invalid, check)
        self.rejects.add(file.name, str(file.path), found)

        alive = check.alive
        if not alive.any():
            return
        mask = pa.array(alive)
        services = services.filter(mask)
        usable = Behaviours(
            users=users.filter(mask),
            services=services,
            service=self._codes(services),
            texts=texts.filter(mask),
            source_ids=source_ids.filter(mask),
            times=times[alive],
            splits=splits[alive],
            rows=batch.rows[alive],
            first=self.tally.behaviours,
            file=str(file.path),
            split_column=self.source.split,
        )
        self.tally.behaviours += len(usable)
        self.sink(usable)

    def _codes(self, services: pa.Array) -> np.ndarray:
        """Names [B] -> numbers [B] int16 in order of first appearance."""
        known, encoded = self.tally.services, services.dictionary_encode()
        codes = [known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()]
        if len(known) > MAX_SERVICES:
            raise DataError(
                f"more than {MAX_SERVICES} services, such as {list(known)[-1]!r}; does"
                " `service_column` name the right column?"
            )
        return np.array(codes, np.int16)[encoded.indices.to_numpy(zero_copy_only=False)]

    def _filter(self, text: dict[str, pa.Array], rows: int) -> np.ndarray:
        """Rows every `keep` rule holds for: [B] bool; the first broken rule of a row counts."""
        kept = np.ones(rows, bool)
        for rule in self.source.keep:
            holds = row_filters.holds(rule, text[rule.column])
            self._count(kept & ~holds, row_filters.describe(rule))
            kept &= holds
        return kept

    def _count(self, left_out: np.ndarray, rule: str) -> None:
        if left_out.any():
            self.tally.filtered[f"{self.name}: {rule}"] += int(left_out.sum())

    def _times(
        self, batch: tables.Batch, kept: np.ndarray, found: list[Reject]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Times [B] int64, and which of the `kept` rows have one inside the window [B] bool."""
        source = self.source
        name = source.timestamp or source.order
        if not name:
            self.tally.rows += len(batch)
            return np.arange(self.tally.rows - len(batch), self.tally.rows), kept
        if source.timestamp:
            times, problem, shown = timestamps.times(batch.columns[name], name, self.now)
        else:
            times, problem, shown = timestamps.orders(batch.columns[name], name)
        check = _Check(batch.rows, kept, found)
        for reason in set(problem[kept]) - {""}:
            value = None if reason == timestamps.MISSING else shown
            check.reject(problem == reason, name, reason, value)
        kept = check.alive
        if self.start is not None:
            self._count(kept & (times < self.start), f"before {source.start}")
            kept = kept & (times >= self.start)
        if self.end is not None:
            self._count(kept & (times >= self.end), f"from {source.end} on")
            kept = kept & (times < self.end)
        return times, kept

    def _users(self, text: dict, invalid: dict, check: _Check) -> pa.Array:
        name = self.source.user_id
        check.reject(invalid[name], name, "is not UTF-8")
        check.reject(columns.empty(text[name]), name, "is empty")
        check.reject(columns.contains_nul(text[name]), name, "contains a NUL byte")
        too_long = columns.longer_than(text[name], MAX_ID_BYTES)
        check.reject(too_long, name, f"is longer than {MAX_ID_BYTES:,} bytes")
        return columns.identities(text[name])

    def _texts(self, text: dict, invalid: dict, check: _Check) -> pa.Array:
        for name in self.template_columns:
            check.reject(invalid[name], name, "is not UTF-8")
            check.reject(columns.contains_nul(text[name]), name, "contains a NUL byte")
        rendered = columns.render(self.source.text, text)
        name = ", ".join(self.template_columns)
        limit = self.config.max_text_bytes
        check.reject(columns.empty(rendered), name, "is empty")
        too_long = columns.longer_than(rendered, limit)
        check.reject(too_long, name, f"is longer than max_text_bytes={limit:,}")
        return rendered

    def _source_ids(self, text: dict, invalid: dict, check: _Check) -> pa.Array:
        name = self.source.item_id
        if not name:
            return pa.array([""], pa.large_string()).take(pa.array(np.zeros(len(check.rows), int)))
        check.reject(invalid[name], name, "is not UTF-8")
        check.reject(columns.contains_nul(text[name]), name, "contains a NUL byte")
        too_long = columns.longer_than(text[name], MAX_ID_BYTES)
        check.reject(too_long, name, f"is longer than {MAX_ID_BYTES:,} bytes")
        return columns.identities(text[name]).fill_null("")

    def _services(self, text: dict, invalid: dict, check: _Check) -> pa.Array:
        name = self.source.service_column
        if not name:
            constant = pa.array([self.source.service], pa.large_string())
            return constant.take(pa.array(np.zeros(len(check.rows), int)))
        spelled = columns.identities(text[name])
        check.reject(invalid[name], name, "is not UTF-8")
        check.reject(columns.empty(spelled), name, "is empty")
        names = columns.fully_matches(spelled, SERVICE_NAME)
        reason = "cannot name a service: use up to 64 letters, digits, '_', '-' and '.'"
        check.reject(~names, name, reason, spelled)
        return spelled

    def _splits(self, text: dict, invalid: dict, check: _Check) -> np.ndarray:
        """Position in SPLITS of each row's split, [B] int8; -1 where the source has none."""
        name = self.source.split
        codes = np.full(len(check.rows), -1, np.int8)
        if name:
            spelled = columns.identities(text[name])
            for code, split in enumerate(SPLITS):
                codes[columns.fully_matches(spelled, split)] = code
            check.reject(columns.empty(spelled) & ~invalid[name], name, "is empty")
            check.reject(codes < 0, name, f"is not one of {', '.join(SPLITS)}", spelled)
        return codes


class _Check:
    """Which rows of a batch are still good, and the first problem of each that is not."""

    def __init__(self, rows: np.ndarray, alive: np.ndarray, found: list[Reject]):
        self.rows, self.alive, self.found = rows, alive.copy(), found

    def reject(
        self, where: np.ndarray, column: str, reason: str, shown: pa.Array | None = None
    ) -> None:
        for position in np.flatnonzero(where & self.alive):
            value = None if shown is None else shown[int(position)].as_py()
            self.found.append(Reject(int(self.rows[position]), column, reason, value))
        self.alive &= ~where
