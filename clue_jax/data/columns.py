"""Columns of log tables -> texts, ids and times; arrays in, arrays out.

Everything is computed for a batch of B rows at once; per-value Python runs on bad values only.
"""

from __future__ import annotations

import datetime
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.errors import ConfigError, DataError

MILLISECONDS_FROM = 10**11  # an epoch of this size or more is in milliseconds
DAY_SECONDS = 86_400

MISSING = "is missing"
NOT_A_TIME = "is not an ISO date or an epoch"
AMBIGUOUS = "could be a date or an epoch; write it as 2024-01-31"
NEGATIVE = "is before 1970"
FUTURE = "is later than tomorrow"
NOT_AN_ORDER = "is not a whole number"

_SPACE = r"[\s\v\p{Z}\x{85}]+"
_ISO = (
    r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"([T ]([01]\d|2[0-3])(:[0-5]\d(:[0-5]\d(\.\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
)
_ZONE = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"


def mask_of(values: pa.Array) -> np.ndarray:
    """Arrow booleans -> [B] bool; null is False."""
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False)


# -------------------------------------------------------------------------------- texts and ids


def texts(column: pa.Array, name: str) -> tuple[pa.Array, np.ndarray]:
    """A column of any flat type as text, and where it is not UTF-8.

    Missing values (null, NaN, not UTF-8) are null; whole numbers have no decimals: 12345.0 in a
    float column is '12345'.

    Returns:
        values [B] large_string, invalid [B] bool.

    Raises:
        DataError: the column holds lists or structures.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    invalid = np.zeros(len(column), bool)
    if pa.types.is_nested(kind):
        raise DataError(f"column {name!r} holds {kind}, which is neither text nor a number")
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.large_string()), invalid
    if pa.types.is_floating(kind):
        return _float_texts(column), invalid
    if not _is_bytes(kind):
        return column.cast(pa.large_string()), invalid
    # Through bytes, because readers do not check that text is UTF-8.
    column = column.cast(pa.large_binary())
    try:
        return column.cast(pa.large_string()), invalid
    except pa.ArrowInvalid:
        values = pa.array([_decoded(value) for value in column.to_pylist()], pa.large_string())
        return values, mask_of(pc.and_(column.is_valid(), values.is_null()))


def _is_bytes(kind: pa.DataType) -> bool:
    views = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return views or binary or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _float_texts(column: pa.Array) -> pa.Array:
    values = column.cast(pa.float64())
    values = pc.if_else(pc.is_nan(values), None, values)
    whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**62))
    integers = pc.if_else(whole, values, None).cast(pa.int64())
    return pc.coalesce(integers.cast(pa.large_string()), values.cast(pa.large_string()))


def empty(values: pa.Array) -> np.ndarray:
    """Where text is missing or blank: [B] bool."""
    return ~mask_of(pc.not_equal(pc.utf8_trim_whitespace(values), ""))


def contains_nul(values: pa.Array) -> np.ndarray:
    return mask_of(pc.match_substring(values, "\0"))


def longer_than(values: pa.Array, limit: int) -> np.ndarray:
    """Where text has more than `limit` bytes: [B] bool."""
    return mask_of(pc.greater(pc.binary_length(values), limit))


def fully_matches(values: pa.Array, pattern: str) -> np.ndarray:
    """Where the whole text matches a regular expression (RE2): [B] bool."""
    return mask_of(pc.match_substring_regex(values, rf"\A(?:{pattern})\z"))


def identities(values: pa.Array) -> pa.Array:
    """Ids in one spelling: no space around them, and '12345.0' (an id once kept as a float) is
    '12345', so that a person is the same in every file."""
    trimmed = pc.utf8_trim_whitespace(values)
    return pc.replace_substring_regex(trimmed, r"^(-?\d+)\.0+$", r"\1")


def template_columns(template: str) -> tuple[str, ...]:
    """Columns a template names, each once, in order; `"{brand} {title}"` -> ("brand", "title").

    Raises:
        ConfigError: it names none, or has a brace without its partner.
    """
    names = re.findall(r"\{([^{}]+)\}", template)
    if not names or re.search(r"[{}]", re.sub(r"\{[^{}]+\}", "", template)):
        raise ConfigError(
            f"config.sources: text template {template!r}: expected column names in braces, such as"
            " '{brand} {title} | {category}'"
        )
    return tuple(dict.fromkeys(names))


def render(template: str, columns: dict[str, pa.Array]) -> pa.Array:
    """The paper's tabular-to-text: fills a template with the texts of B rows.

    Missing values are empty, white space is collapsed to single blanks, and where a value was
    missing, separators left dangling at either end (punctuation of the template) are removed.

    Returns:
        [B] large_string, no nulls.
    """
    pieces = re.split(r"\{([^{}]+)\}", template)  # literal, column, literal, column, ..., literal
    filled = [
        pc.fill_null(columns[piece], "") if position % 2 else pa.scalar(piece, pa.large_string())
        for position, piece in enumerate(pieces)
    ]
    text = pc.binary_join_element_wise(*filled, pa.scalar("", pa.large_string()))
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, _SPACE, " "))
    separators = sorted({c for c in "".join(pieces[::2]) if not c.isalnum() and not c.isspace()})
    if not separators:
        return text
    ends = "[ " + "".join(rf"\x{{{ord(c):x}}}" for c in separators) + "]+"
    bare = pc.replace_substring_regex(text, f"^{ends}|{ends}$", "")
    missing = np.any([empty(columns[name]) for name in set(pieces[1::2])], axis=0)
    return pc.if_else(pa.array(missing), bare, text)


# --------------------------------------------------------------------------------------- times


def times(column: pa.Array, name: str, now: float) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Times as epoch seconds; those without a zone are in UTC, fractions of a second are dropped.

    Understands Arrow timestamps and dates, ISO dates and times, and epochs, as numbers or as text;
    an epoch whose absolute value is at least 1e11 is in milliseconds. A number that could be
    YYYYMMDD is refused, as it would pass for a moment in August 1970.

    Returns:
        seconds [B] int64 (0 where there is a problem); problem [B] object, a reason or ''; the
        values as text [B], to be shown.

    Raises:
        DataError: the column holds lists or structures.
    """
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        seconds = _timestamp_seconds(column)
        shown = seconds.cast(pa.timestamp("s")).cast(pa.large_string())
        problem = np.full(len(column), "", object)
    else:
        if pa.types.is_floating(column.type):
            column = _rounded_down(column)
        shown, invalid = texts(column, name)
        seconds, compact = _text_seconds(pc.utf8_trim_whitespace(shown))
        problem = np.where(compact, AMBIGUOUS, "").astype(object)
        problem[invalid] = NOT_A_TIME
    unread = mask_of(seconds.is_null())
    blank = unread & empty(shown)
    found = pc.fill_null(seconds, 0).to_numpy(zero_copy_only=False)
    for where, reason in (
        (unread & ~blank, NOT_A_TIME),
        (blank, MISSING),
        (found < 0, NEGATIVE),
        (found > now + DAY_SECONDS, FUTURE),
    ):
        problem[where & (problem == "")] = reason
    return np.where(problem == "", found, 0), problem, shown


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
    compact = pc.and_(pc.greater_equal(epochs, 19_000_101), pc.less_equal(epochs, 20_991_231))
    large = pc.greater_equal(pc.abs(epochs), MILLISECONDS_FROM)
    epochs = pc.if_else(large, _floor_divide(epochs, 1_000), epochs)
    # Distinct texts are parsed once: logs repeat their times.
    dates = pc.if_else(numeric, None, values).dictionary_encode()
    iso = _iso_seconds(dates.dictionary).take(dates.indices)
    return pc.coalesce(epochs, iso), mask_of(compact)


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


def orders(column: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Like `times`, for a column with the order within a user's history: whole numbers."""
    shown, _ = texts(column, name)
    spelled = identities(shown)
    valid = pc.fill_null(pc.match_substring_regex(spelled, r"^-?\d{1,18}$"), False)
    values = pc.fill_null(pc.if_else(valid, spelled, None).cast(pa.int64()), 0)
    problem = np.where(mask_of(valid), "", NOT_AN_ORDER).astype(object)
    problem[empty(shown)] = MISSING
    return values.to_numpy(zero_copy_only=False), problem, shown
