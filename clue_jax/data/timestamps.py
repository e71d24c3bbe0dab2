"""Columns of log tables -> times and orders; arrays in, arrays out."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.config import PrepareConfig, SourceConfig
from clue_jax.data.coded import coded, per_row
from clue_jax.data.columns import empty, identities, mask_of, shortened, texts
from clue_jax.errors import ConfigError

MILLISECONDS_FROM = 10**11  # an epoch of this size or more is in milliseconds
DAY_SECONDS = 86_400
_LATEST_DATE = 20_991_231  # a number that could be YYYYMMDD
MAX_TIME_BYTES = 100  # longer texts are no time

MISSING = "is missing"
NOT_A_TIME = "is not an ISO date or an epoch"
AMBIGUOUS = "could be a date or an epoch; write it as 2024-01-31"
NEGATIVE = "is before 1970"
FUTURE = "is later than tomorrow"
NOT_AN_ORDER = "is not a whole number"
PROBLEMS = ("", MISSING, NOT_A_TIME, AMBIGUOUS, NEGATIVE, FUTURE, NOT_AN_ORDER)

_ISO = (
    r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"([T ]([01]\d|2[0-3])(:[0-5]\d(:[0-5]\d(\.\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
)
_ZONE = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"


def times(column: pa.Array, name: str, now: float) -> tuple[np.ndarray, np.ndarray]:
    """Times as epoch seconds; those without a zone are in UTC, fractions of a second are dropped.

    Understands Arrow timestamps and dates, ISO dates and times, and epochs, as numbers or as text;
    an epoch whose absolute value is at least 1e11 is in milliseconds. A number that could be
    YYYYMMDD is refused, as it would pass for a moment in August 1970.

    Returns:
        seconds [B] int64 (0 where there is a problem); problem [B] int8, place in PROBLEMS.

    Raises:
        DataError: the column holds lists or structures.
    """
    if not _is_text(column.type):
        return _times(column, name, now)
    column = coded(shortened(column, MAX_TIME_BYTES))
    seconds, problem = _times(column.dictionary, name, now)
    return per_row(column, seconds), per_row(column, problem)


def _is_date(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _is_text(kind: pa.DataType) -> bool:
    """Whether times of a type are read as texts, each distinct one once."""
    number = pa.types.is_floating(kind) or pa.types.is_signed_integer(kind)
    return not (number or _is_date(kind))


def _times(values: pa.Array, name: str, now: float) -> tuple[np.ndarray, np.ndarray]:
    invalid = compact = np.zeros(len(values), bool)
    if _is_date(values.type):
        seconds = _timestamp_seconds(values)
    elif not _is_text(values.type):  # as texts, without reading digits
        floating = pa.types.is_floating(values.type)
        values = _rounded_down(values) if floating else values.cast(pa.int64())
        seconds, compact = _epoch_seconds(values)
    else:
        values, invalid = texts(values, name)
        seconds, compact = _text_seconds(pc.utf8_trim_whitespace(values))
    unread = mask_of(seconds.is_null())
    blank = empty(values) if _is_text(values.type) else mask_of(values.is_null())
    found = pc.fill_null(seconds, 0).to_numpy(zero_copy_only=False)
    problem = np.zeros(len(values), np.int8)
    for where, reason in (
        (invalid, NOT_A_TIME),
        (compact, AMBIGUOUS),
        (unread & ~blank, NOT_A_TIME),
        (blank, MISSING),
        (found < 0, NEGATIVE),
        (found > now + DAY_SECONDS, FUTURE),
    ):
        if where.any():
            problem[where & (problem == 0)] = PROBLEMS.index(reason)
    return np.where(problem == 0, found, 0), problem


def _timestamp_seconds(column: pa.Array) -> pa.Array:
    # Arrow counts from 1970 in the column's unit, in UTC also where a zone is named.
    if pa.types.is_date(column.type):
        return column.cast(pa.timestamp("s")).cast(pa.int64())
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    return _floor_divide(column.cast(pa.int64()), per_second)


def _floor_divide(values: pa.Array, by: int) -> pa.Array:
    # Arrow rounds towards zero, which would make the last instant of 1969 pass for 1970.
    quotient = pc.divide(values, by)
    return pc.if_else(
        pc.less(values, pc.multiply(quotient, by)), pc.subtract(quotient, 1), quotient
    )


def _rounded_down(column: pa.Array) -> pa.Array:
    """Floats as int64; null where there is no such number."""
    values = pc.floor(column.cast(pa.float64()))
    known = pc.less(pc.abs(values), 2.0**62)
    return pc.if_else(known, values, None).cast(pa.int64())


def _text_seconds(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Epochs and ISO dates [B] as seconds [B] (null: neither); where a number looks like a date."""
    numeric = pc.match_substring_regex(values, r"^[+-]?\d{1,18}(\.\d*)?$")
    epochs = pc.if_else(numeric, values, None)
    epochs = pc.replace_substring_regex(epochs, r"^\+|\..*$", "").cast(pa.int64())
    epochs, compact = _epoch_seconds(epochs)
    return pc.coalesce(epochs, _iso_seconds(pc.if_else(numeric, None, values))), compact


def _epoch_seconds(epochs: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Epochs [B] int64 in seconds or milliseconds as seconds [B] (null: of 19 digits); where one
    looks like a date."""
    bounds = pc.min_max(epochs).as_py()
    least, most = bounds["min"], bounds["max"]
    if least is not None and least > _LATEST_DATE and most < MILLISECONDS_FROM:  # as most logs
        return epochs, np.zeros(len(epochs), bool)
    compact = pc.and_(pc.greater_equal(epochs, 19_000_101), pc.less_equal(epochs, _LATEST_DATE))
    known = pc.and_(pc.greater(epochs, -(10**18)), pc.less(epochs, 10**18))
    epochs = pc.if_else(known, epochs, None)
    large = pc.greater_equal(pc.abs(epochs), MILLISECONDS_FROM)
    return pc.if_else(large, _floor_divide(epochs, 1_000), epochs), mask_of(compact)


def _iso_seconds(dates: pa.Array) -> pa.Array:
    """ISO dates [B] as epoch seconds [B] int64; null where one is not a date."""
    iso = pc.if_else(pc.match_substring_regex(dates, _ISO), dates, None)
    iso = pc.replace_substring_regex(iso, r"\.\d+", "")
    zoned = pc.match_substring_regex(iso, _ZONE)
    utc = _cast_dates(pc.if_else(zoned, iso, None), pa.timestamp("s", "UTC"))
    return pc.coalesce(utc, _cast_dates(pc.if_else(zoned, None, iso), pa.timestamp("s")))


def _cast_dates(dates: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return dates.cast(kind).cast(pa.int64())
    except pa.ArrowInvalid:  # one of them is no day of the calendar, such as February 30
        return pa.array([_calendar_seconds(value) for value in dates.to_pylist()], pa.int64())


def _calendar_seconds(value: str | None) -> int | None:
    try:
        moment = None if value is None else datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment is None:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp())


def iso_seconds(value: str, key: str) -> int:
    """One ISO date of a config as epoch seconds.

    Raises:
        ConfigError: it is not one; names `key`.
    """
    seconds = _iso_seconds(pa.array([value], pa.large_string()))[0].as_py()
    if seconds is None:
        raise ConfigError(f"{key}: {value!r} is not an ISO date such as 2024-01-31")
    return seconds


def windows(config: PrepareConfig, source: SourceConfig) -> list[tuple[str, float, float]]:
    """Rule, first second and first second after it: of the source, then of all sources.

    Raises:
        ConfigError: one of their ends is not an ISO date.
    """
    windows = {
        "config.sources: ": (source.start, source.end),
        "config.": (config.start, config.end),
    }
    found: list[tuple[str, float, float]] = []
    for key, (start, end) in windows.items():
        if start:
            first = iso_seconds(start, f"{key}start")
            found.append((f"before {start}", first, np.inf))
        if end:
            last = iso_seconds(end, f"{key}end")
            found.append((f"from {end} on", -np.inf, last))
    return found


def orders(column: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Like `times`, for a column with the order within a user's history: whole numbers."""
    column = coded(shortened(column, MAX_TIME_BYTES))
    shown, _ = texts(column.dictionary, name)
    spelled = identities(shown)
    valid = pc.fill_null(pc.match_substring_regex(spelled, r"^-?\d{1,18}$"), False)
    numbers = pc.fill_null(pc.if_else(valid, spelled, None).cast(pa.int64()), 0)
    problem = np.where(mask_of(valid), 0, PROBLEMS.index(NOT_AN_ORDER)).astype(np.int8)
    problem[empty(shown)] = PROBLEMS.index(MISSING)
    return per_row(column, numbers.to_numpy(zero_copy_only=False)), per_row(column, problem)
