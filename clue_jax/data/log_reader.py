"""Reads the log tables of one source: filters and checks their rows, hands on what is left.

Filters come before checks, so that a cancelled order without a customer is filtered, not rejected;
a rejected row counts once, under the first of its problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.config import SERVICE_NAME, PrepareConfig, SourceConfig
from clue_jax.data import columns, row_filters, tables, timestamps
from clue_jax.data.coded import changed, combined, compact, constant, numbered, per_row
from clue_jax.data.id_list import suppression
from clue_jax.data.rejects import Reject, Rejects
from clue_jax.data.row_checks import NO_LIMIT, Checks, Limit, Text, problems_of, text_of
from clue_jax.data.scrubbing import Scrubber
from clue_jax.data.tally import Tally
from clue_jax.errors import DataError

SPLITS = ("train", "validation", "test")
MAX_ID_BYTES = 1_000
MAX_SERVICES = 256  # more speak for a wrong `service_column`


@dataclass(frozen=True)
class Behaviours:
    """The usable rows of one batch: B behaviours in order of appearance, texts by their distinct
    values."""

    users: pa.DictionaryArray  # [B]: ids as the logs have them
    services: pa.DictionaryArray  # [B]
    service: np.ndarray  # [B] int16, the services as numbered in order of appearance
    texts: pa.DictionaryArray  # [B]
    source_ids: pa.DictionaryArray  # [B], '' where the source has none
    times: np.ndarray  # [B] int64: epoch s, or the order column, or the order of appearance
    splits: np.ndarray  # [B] int8 position in SPLITS; -1 where the source has none
    rows: np.ndarray  # [B] int64, number of each row in its file
    unit: int  # number of the file among those of all sources
    first: int  # number of the first behaviour: unit << UNIT_BITS, and those before it in the unit
    file: str  # as errors name it
    split_column: str  # '' where the source has none

    def __len__(self) -> int:
        return len(self.rows)


Sink = Callable[[Behaviours], None]


# A behaviour's number says its file and its place there, so that files can be read side by side.
UNIT_BITS = 40
SUPPRESSED = "user on the suppression list"


class LogReader:
    """Reads files of one source and hands their usable rows on, a batch at a time."""

    def __init__(
        self,
        config: PrepareConfig,
        source: SourceConfig,
        tally: Tally,
        rejects: Rejects,
        sink: Sink,
        now: float,
    ):
        self.config, self.source, self.rejects, self.sink = config, source, rejects, sink
        self.tally = tally
        for rule in source.keep:
            row_filters.check_rule(rule)
        self.name = source.service or source.path
        self.now = now  # epoch seconds: what is much later is no time
        self._unit = self._rows = self._behaviours = 0
        self.scrubber = Scrubber(config.scrub)
        listed = suppression(config.suppress)
        self.suppressed = listed and columns.identities(pa.array(listed.ids, pa.large_string()))
        self.windows = timestamps.windows(config, source)
        self.template_columns = columns.template_columns(source.text)
        named = [source.user_id, source.order, source.item_id, source.split, source.service_column]
        named += [*self.template_columns, *(rule.column for rule in source.keep)]
        # Values beyond these are set aside unread; a column that only rules look at has no limit.
        self.text_limit = Limit(limit := config.max_text_bytes, f"max_text_bytes={limit:,}")
        ids = source.user_id, source.item_id, source.split, source.service_column
        self.limits = dict.fromkeys(ids, Limit(MAX_ID_BYTES, f"{MAX_ID_BYTES:,} bytes"))
        self.limits |= dict.fromkeys(self.template_columns, self.text_limit)
        self.text_columns = list(dict.fromkeys(name for name in named if name))
        self.wanted = list(dict.fromkeys([*self.text_columns, *filter(None, [source.timestamp])]))

    def check(self, file: tables.LogFile) -> None:
        """Raises DataError unless a file can be opened and has all the columns in use."""
        tables.check_columns(file, self.wanted, self.source.delimiter)

    def read(self, unit: int, file: tables.LogFile, advance: Callable[[float], None]) -> None:
        """Reads one file.

        Raises:
            DataError: it cannot be read to its end, or more rows are bad than are tolerated.
        """
        self._unit, self._rows, self._behaviours = unit, 0, 0
        size, seen, told = file.path.stat().length, 0, 0.0
        for batch in tables.read_batches(file, self.wanted, self.source.delimiter):
            seen += len(batch) + len(batch.broken)
            try:
                self._take(file, batch)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise file.unreadable(error) from error
            self._rows += len(batch)
            upto = max(batch.upto, told)
            advance((upto - told) * size)
            told = upto
        advance((1.0 - told) * size)
        self.tally.rows[unit] = seen

    def _take(self, file: tables.LogFile, batch: tables.Batch) -> None:
        """Adds the usable rows of a batch, and its rejects."""
        found = [Reject(row, "", reason) for row, reason in batch.broken]
        text = {
            name: text_of(name, batch.columns[name], self.limits.get(name, NO_LIMIT))
            for name in self.text_columns
        }
        kept = self._filter(text, len(batch))
        times, kept = self._times(batch, kept, found)
        check = Checks(batch.rows, kept, found)
        users = self._users(text, check)
        if self.config.replace_bad_text:
            text |= {n: self._mended(n, text[n], check.alive) for n in self.template_columns}
        texts = self._texts(text, check)
        source_ids = self._source_ids(text, check)
        services = self._services(text, check)
        splits = self._splits(text, check)
        self.rejects.add(self._unit, file.name, str(file.path), found)

        alive = check.alive
        if not alive.any():
            return
        mask = pa.array(alive)
        services = compact(services.filter(mask))
        usable = Behaviours(
            users=compact(users.filter(mask)),
            services=services,
            service=self._service_codes(services),
            texts=compact(texts.filter(mask)),
            source_ids=compact(source_ids.filter(mask)),
            times=times[alive],
            splits=splits[alive],
            rows=batch.rows[alive],
            unit=self._unit,
            first=(self._unit << UNIT_BITS) + self._behaviours,
            file=str(file.path),
            split_column=self.source.split,
        )
        self._behaviours += len(usable)
        self.tally.behaviours += len(usable)
        self.sink(usable)

    def _service_codes(self, services: pa.DictionaryArray) -> np.ndarray:
        """Names [B] -> numbers [B] int16 in order of first appearance."""
        known = self.tally.services
        numbers = [known.setdefault(n, len(known)) for n in services.dictionary.to_pylist()]
        if len(known) > MAX_SERVICES:
            raise DataError(
                f"more than {MAX_SERVICES} services, such as {list(known)[-1]!r}; does"
                " `service_column` name the right column?"
            )
        return per_row(services, np.array(numbers, np.int16))

    def _filter(self, text: dict[str, Text], rows: int) -> np.ndarray:
        """Rows every `keep` rule holds for: [B] bool; the first broken rule of a row counts."""
        kept = np.ones(rows, bool)
        if self.suppressed is not None:
            # First of all, so that nothing else of these people is looked at, or shown as a reject.
            users = text[self.source.user_id]
            listed = columns.mask_of(pc.is_in(columns.identities(users.values), self.suppressed))
            kept = ~per_row(users.column, listed)
            self._count(~kept, SUPPRESSED)
        for rule in self.source.keep:
            column = text[rule.column]
            holds = per_row(column.column, row_filters.holds(rule, column.values))
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
            before = (self._unit << UNIT_BITS) + self._rows
            return before + np.arange(len(batch)), kept
        if source.timestamp:
            times, problem = timestamps.times(batch.columns[name], name, self.now)
        else:
            times, problem = timestamps.orders(batch.columns[name], name)
        check = Checks(batch.rows, kept, found)
        for number in np.unique(problem[kept & (problem > 0)]).tolist():
            reason, shown = timestamps.PROBLEMS[number], None
            if reason != timestamps.MISSING:
                limit = Limit(timestamps.MAX_TIME_BYTES, "")
                shown = text_of(name, batch.columns[name], limit).column
            check.reject(problem == number, name, reason, shown)
        kept = check.alive
        for rule, first, last in self.windows:
            outside = kept & ((times < first) | (times >= last))
            self._count(outside, rule)
            kept = kept & ~outside
        return times, kept

    def _users(self, text: dict[str, Text], check: Checks) -> pa.DictionaryArray:
        name = self.source.user_id
        check.readable(name, text[name])
        check.values(text[name].column, columns.empty(text[name].values), name, "is empty")
        return changed(text[name].column, columns.identities)

    def _mended(self, name: str, text: Text, alive: np.ndarray) -> Text:
        """A column of the template made readable."""
        where = np.zeros(len(text.values), bool)
        for of_values, reason in problems_of(text):
            self._replaced(per_row(text.column, of_values) & alive, f"{name}: {reason}")
            where |= of_values
        if not where.any():
            return text
        values = columns.mended(text.raw, text.values, where, text.limit.bytes)
        nothing = np.zeros_like(where)
        return replace(text, column=text.changed(values), invalid=nothing, longer=nothing)

    def _replaced(self, where: np.ndarray, reason: str) -> None:
        if where.any():
            self.tally.replaced[reason] += int(where.sum())

    def _texts(self, text: dict[str, Text], check: Checks) -> pa.DictionaryArray:
        for name in self.template_columns:
            check.readable(name, text[name])
        filled, places = combined([text[name].column for name in self.template_columns])
        cells = dict(zip(self.template_columns, filled, strict=True))
        rendered = numbered(columns.render(self.source.text, cells), places)
        name, limit = ", ".join(self.template_columns), self.text_limit
        check.values(rendered, columns.empty(rendered.dictionary), name, "is empty")
        too_long = columns.longer_than(rendered.dictionary, limit.bytes)
        if not self.config.replace_bad_text:
            check.values(rendered, too_long, name, limit.reason)
        elif too_long.any():
            self._replaced(per_row(rendered, too_long) & check.alive, f"{name}: {limit.reason}")
            rendered = changed(rendered, lambda texts: columns.cut(texts, too_long, limit.bytes))
        scrubbed, found = self.scrubber(rendered.dictionary)
        for rule, where in found.items():
            self._replaced(per_row(rendered, where) & check.alive, f"{name}: {rule}")
        return changed(rendered, lambda texts: scrubbed)

    def _source_ids(self, text: dict[str, Text], check: Checks) -> pa.DictionaryArray:
        name = self.source.item_id
        if not name:
            return constant("", len(check.rows))
        check.readable(name, text[name])
        return changed(text[name].column, lambda ids: columns.identities(ids).fill_null(""))

    def _services(self, text: dict[str, Text], check: Checks) -> pa.DictionaryArray:
        name = self.source.service_column
        if not name:
            return constant(self.source.service, len(check.rows))
        spelled = changed(text[name].column, columns.identities)
        check.readable(name, text[name])
        check.values(spelled, columns.empty(spelled.dictionary), name, "is empty")
        names = columns.fully_matches(spelled.dictionary, SERVICE_NAME)
        reason = "cannot name a service: use up to 64 letters, digits, '_', '-' and '.'"
        check.values(spelled, ~names, name, reason, shown=True)
        return spelled

    def _splits(self, text: dict[str, Text], check: Checks) -> np.ndarray:
        """Position in SPLITS of each row's split, [B] int8; -1 where the source has none."""
        name = self.source.split
        if not name:
            return np.full(len(check.rows), -1, np.int8)
        spelled = changed(text[name].column, columns.identities)
        check.readable(name, text[name])
        numbers = np.full(len(spelled.dictionary), -1, np.int8)
        for number, split in enumerate(SPLITS):
            numbers[columns.fully_matches(spelled.dictionary, split)] = number
        check.values(spelled, columns.empty(spelled.dictionary), name, "is empty")
        reason = f"is not one of {', '.join(SPLITS)}"
        check.values(spelled, numbers < 0, name, reason, shown=True)
        return per_row(spelled, numbers)
