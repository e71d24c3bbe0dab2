"""Row filters: which rows of a log table a `keep` rule holds for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.config import Comparison, RowFilter
from clue_jax.data.columns import empty, identities, mask_of
from clue_jax.errors import ConfigError


def describe(rule: RowFilter) -> str:
    """The rule's own name or `Quantity > 0`: what rows that fail it are counted under."""
    return rule.name or f"{rule.column} {rule.comparison.value} {rule.value}".strip()


def check_rule(rule: RowFilter) -> None:
    """Raises ConfigError for a row filter whose value is no number or no regular expression."""
    where = f"config.sources: keep {describe(rule)!r}"
    if rule.comparison in (Comparison.MATCHES, Comparison.NOT_MATCHES):
        try:
            pc.match_substring_regex(pa.array([""]), rule.value)
        except pa.ArrowInvalid as error:
            raise ConfigError(f"{where}: not a regular expression (RE2): {error}") from error
    if rule.comparison in (Comparison.GREATER, Comparison.LESS):
        try:
            float(rule.value)
        except ValueError as error:
            raise ConfigError(f"{where}: {rule.value!r} is not a number") from error


def holds(rule: RowFilter, values: pa.Array) -> np.ndarray:
    """Where a row filter holds for the texts of its column: [B] bool, False where one is missing.

    `>` and `<` compare numbers, and do not hold for what is no number; `==` and `!=` compare texts,
    with 5.0 the same as 5; expressions are searched for in the text (RE2 syntax).
    """
    known = ~empty(values)
    match rule.comparison:
        case Comparison.PRESENT:
            return known
        case Comparison.EQUAL | Comparison.NOT_EQUAL:
            wanted = identities(pa.array([rule.value], pa.large_string()))[0]
            equal = mask_of(pc.equal(identities(values), wanted))
            return known & (equal == (rule.comparison is Comparison.EQUAL))
        case Comparison.MATCHES | Comparison.NOT_MATCHES:
            found = mask_of(pc.match_substring_regex(values, rule.value))
            return known & (found == (rule.comparison is Comparison.MATCHES))
    trimmed = pc.utf8_trim_whitespace(values)
    number = pc.match_substring_regex(trimmed, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    unsigned = pc.replace_substring_regex(pc.if_else(number, trimmed, None), r"^\+", "")
    compare = pc.greater if rule.comparison is Comparison.GREATER else pc.less
    return mask_of(compare(unsigned.cast(pa.float64()), float(rule.value)))
