"""Texts -> token ids by way of their words: a word is encoded once, however often it occurs.

Byte-level BPE splits a text before it merges bytes, and never across a blank: each blank goes to
the word after it, and with a blank put before the text the first word is as the others. So the ids
of a text are those of its words end to end, as long as all white space in it is single blanks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.data.ragged import offsets_of, ranges

# White space other than single blanks between words.
_UNEVEN = r"^ | $|  |[\t-\r\x{85}\x{180E}\x{2028}\x{2029}]|[\x{A0}\x{1680}\x{2000}-\x{200A}]"
_UNEVEN += r"|[\x{202F}\x{205F}\x{3000}]"

Encode = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]  # texts -> ids, offsets


def splits_at_blanks(serialized: bytes) -> bool:
    """Whether a tokenizer.json is of the kind described above."""
    found = json.loads(serialized)
    split = found.get("pre_tokenizer") or {}
    return (
        split.get("type") == "ByteLevel"
        and split.get("add_prefix_space") is True
        and split.get("use_regex", True) is True
        and found.get("normalizer") is None
        and (found.get("model") or {}).get("type") == "BPE"
        and not (found.get("model") or {}).get("dropout")
        and not any(" " in token["content"] for token in found.get("added_tokens") or ())
    )


def encode_words(
    texts: pa.Array, of_words: Encode, of_texts: Encode
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of texts [J] end to end, and their offsets [J + 1].

    Args:
        texts: large_string.
        of_words: encodes words without white space.
        of_texts: encodes any text; for those with other white space than single blanks.
    """
    uneven = pc.match_substring_regex(texts, _UNEVEN).to_numpy(zero_copy_only=False)
    uneven |= pc.equal(texts, "").to_numpy(zero_copy_only=False)
    even = texts.filter(pa.array(~uneven)) if uneven.any() else texts
    words = pc.split_pattern(even, " ")
    cuts = words.offsets.to_numpy()
    coded = words.flatten().dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    ids, starts = of_words(coded.dictionary.to_pylist())
    lengths = np.diff(starts)[codes]
    flat = ids[ranges(starts[:-1][codes], lengths)]
    offsets = offsets_of(lengths)[cuts - cuts[0]]
    if not uneven.any():
        return flat, offsets
    others, other_offsets = of_texts(texts.filter(pa.array(uneven)).to_pylist())
    both, both_offsets = np.concatenate([flat, others]), np.zeros(len(texts), np.int64)
    every = np.zeros(len(texts), np.int64)
    both_offsets[~uneven], both_offsets[uneven] = offsets[:-1], len(flat) + other_offsets[:-1]
    every[~uneven], every[uneven] = np.diff(offsets), np.diff(other_offsets)
    return both[ranges(both_offsets, every)], offsets_of(every)
