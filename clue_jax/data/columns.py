"""Columns of log tables -> texts and ids; arrays in, arrays out.

Everything is computed for a batch of B rows at once; per-value Python runs on bad values only.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.errors import ConfigError, DataError

_BLANK = ord(" ")
_SPACE = r"[\s\v\p{Z}\x{85}]+"


def mask_of(values: pa.Array) -> np.ndarray:
    """Arrow booleans -> [B] bool; null is False."""
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False)


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


def shortened(column: pa.Array, limit: int) -> pa.Array:
    """A column of which values of more than `limit` bytes keep about these: at most `limit` and no
    less than `limit` - 3, as letters of UTF-8 stay whole."""
    if pa.types.is_dictionary(column.type):
        values = shortened(column.dictionary, limit)
        return pa.DictionaryArray.from_arrays(column.indices, values)
    if not _is_bytes(column.type) or not (longer := longer_than(column, limit)).any():
        return column
    kept = pc.if_else(pa.array(~longer), column, None).cast(pa.large_binary())
    # One by one, as all of them together are what memory may not hold.
    long = (column[place].as_buffer() for place in np.flatnonzero(longer).tolist())
    short = [_whole_letters(memoryview(value), limit) for value in long]
    return pc.replace_with_mask(kept, longer, pa.array(short, pa.large_binary()))


def mended(column: pa.Array, values: pa.Array, where: np.ndarray, limit: int) -> pa.Array:
    """Texts of a column as `texts` gave them, and `where` they are spoilt ([B] bool) with U+FFFD
    for each NUL and each byte that is not UTF-8, of the first `limit` bytes."""
    spoilt = column.filter(pa.array(where)).cast(pa.large_binary()).to_pylist()
    whole = [_whole_letters(value, limit).decode("utf-8", "replace") for value in spoilt]
    texts = pa.array([text.replace("\0", "\ufffd") for text in whole], pa.large_string())
    return pc.replace_with_mask(values, where, texts)


def cut(values: pa.Array, where: np.ndarray, limit: int) -> pa.Array:
    """Texts, `where` they are too long ([B] bool) only the whole letters in `limit` bytes."""
    longer = [text.encode("utf-8") for text in values.filter(pa.array(where)).to_pylist()]
    short = [_whole_letters(text, limit).decode("utf-8") for text in longer]
    return pc.replace_with_mask(values, where, pa.array(short, pa.large_string()))


def _whole_letters(text: bytes | memoryview, limit: int) -> bytes:
    """The first `limit` bytes, less the beginning of a letter that ends beyond them."""
    start = limit
    while 0 < start < len(text) and start > limit - 3 and text[start] & 0xC0 == 0x80:
        start -= 1
    return bytes(text[:start])


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
    if np.frombuffer(values.buffers()[2] or b"", np.uint8).all():  # of all of them, so at once
        return np.zeros(len(values), bool)
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
    # Replacing is slow, and most columns have nothing to replace.
    if not pc.any(pc.match_substring(trimmed, ".0")).as_py():
        return trimmed
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
    text = pc.utf8_trim_whitespace(_single_blanks(text))
    separators = sorted({c for c in "".join(pieces[::2]) if not c.isalnum() and not c.isspace()})
    if not separators:
        return text
    ends = "[ " + "".join(rf"\x{{{ord(c):x}}}" for c in separators) + "]+"
    bare = pc.replace_substring_regex(text, f"^{ends}|{ends}$", "")
    missing = np.any([empty(columns[name]) for name in set(pieces[1::2])], axis=0)
    return pc.if_else(pa.array(missing), bare, text)


def _single_blanks(text: pa.Array) -> pa.Array:
    # Replacing is slow, and most texts have nothing to replace; of ASCII the bytes say so.
    letters = bytes(text.buffers()[2] or b"")
    least = np.frombuffer(letters, np.uint8).min(initial=_BLANK)
    if least >= _BLANK and letters.isascii() and b"  " not in letters:
        return text
    uneven = pc.match_substring_regex(text, r"  |[\t-\r\x{85}\p{Zl}\p{Zp}]|[^\P{Zs} ]")
    if not pc.any(uneven).as_py():
        return text
    mended = pc.replace_substring_regex(text.filter(uneven), _SPACE, " ")
    return pc.replace_with_mask(text, uneven, mended)
