"""What names people in texts -> placeholders, where `config.scrub` asks for it.

Rules are regular expressions (RE2) and find what is written in common ways; they neither know names
and addresses nor decide what is personal. Card numbers are those whose check digit is right
(ISO/IEC 7812, Luhn), since catalogues are full of other long numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.config import ScrubConfig
from clue_jax.data.columns import mask_of
from clue_jax.errors import ConfigError

EMAIL = r"[\pL\pN._%+\-]+@[\pL\pN\-]+(?:\.[\pL\pN\-]+)+"
# 13 to 19 digits, in groups or not.
CARD = r"\b\d(?:[ \-]?\d){12,18}\b"
# With a country code, or in groups: digits in one piece are as likely an article number.
PHONE = (
    r"(?:\+|\b00)\d{1,3}[ ./\-]?\(?\d{1,4}\)?(?:[ ./\-]?\d{2,4}){1,4}\b"
    r"|\b0\d{1,4}[ ./\-]\d{3,8}(?:[ ./\-]\d{2,4}){0,3}\b"
    r"|(?:\(\d{3}\) ?|\b\d{3}[ .\-])\d{3}[ .\-]\d{4}\b"
)


class Rule(NamedTuple):
    """What is looked for, and what is written in its place."""

    name: str  # as it is counted
    pattern: str
    placeholder: str


class Scrubber:
    """The rules of a config, in order: e-mail addresses, cards, phone numbers, then its own.

    Raises:
        ConfigError: a pattern that is no regular expression.
    """

    def __init__(self, config: ScrubConfig):
        known = (
            (config.emails, Rule("e-mail address", EMAIL, "[email]")),
            (config.cards, Rule("card number", CARD, "[card]")),
            (config.phones, Rule("phone number", PHONE, "[phone]")),
        )
        own = [Rule(one.name, one.pattern, f"[{one.name}]") for one in config.patterns]
        self.rules = [rule for wanted, rule in known if wanted] + own
        for rule in own:
            try:
                _matches(pa.array([""]), rule.pattern)
            except pa.ArrowInvalid as error:
                problem = f"{rule.name!r} is not a regular expression (RE2): {error}"
                raise ConfigError(f"config.scrub.patterns: {problem}") from error

    def __call__(self, texts: pa.Array) -> tuple[pa.Array, dict[str, np.ndarray]]:
        """Texts [n] without what the rules find, and by rule which were changed, bool [n]."""
        changed = {}
        for rule in self.rules:
            after = _without(texts, rule)
            where = mask_of(pc.not_equal(after, texts))
            if where.any():
                changed[rule.name] = where
            texts = after
        return texts, changed


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    return mask_of(pc.match_substring_regex(texts, pattern))


def _without(texts: pa.Array, rule: Rule) -> pa.Array:
    if rule.pattern != CARD:
        # A backslash in a placeholder would stand for a group of the pattern.
        placeholder = rule.placeholder.replace("\\", "\\\\")
        return pc.replace_substring_regex(texts, rule.pattern, placeholder)
    where = _matches(texts, CARD)
    if not where.any():
        return texts
    found = [
        re.sub(CARD, lambda number: _card(number[0], rule.placeholder), text, flags=re.ASCII)
        for text in texts.filter(pa.array(where)).to_pylist()
    ]
    return pc.replace_with_mask(texts, pa.array(where), pa.array(found, texts.type))


def _card(number: str, placeholder: str) -> str:
    return placeholder if _luhn([int(digit) for digit in number if digit.isdecimal()]) else number


def _luhn(digits: list[int]) -> bool:
    def summands() -> Iterator[int]:
        for place, digit in enumerate(reversed(digits)):
            yield digit if place % 2 == 0 else sum(divmod(2 * digit, 10))

    return sum(summands()) % 10 == 0
