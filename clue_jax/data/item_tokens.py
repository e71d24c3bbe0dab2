"""Tokens of items: each distinct text encoded once, a guide token before it, cut to a length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clue_jax.data.accounts import Lengths
from clue_jax.data.ragged import offsets_of, ranges
from clue_jax.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class ItemTokens:
    """Tokens of each row of an item table, guide first."""

    tokens: np.ndarray  # int32, end to end
    offsets: np.ndarray  # [J + 1] int64
    truncated: int  # items that lost tokens

    def lengths(self) -> tuple[Lengths, int]:
        """Of all items, and how many lost tokens."""
        found = Lengths()
        found.add(np.diff(self.offsets))
        return found, self.truncated


def merge_lengths(parts: Iterable[tuple[Lengths, int]]) -> tuple[Lengths, int]:
    """`ItemTokens.lengths` of several tables together."""
    merged, truncated = Lengths(), 0
    for lengths, cut in parts:
        merged.merge(lengths)
        truncated += cut
    return merged, truncated


def tokenize(
    services: pa.Array, texts: pa.Array, tokenizer: Tokenizer, max_item_tokens: int
) -> ItemTokens:
    """Encodes J items; an item keeps its first tokens, guide included.

    Args:
        services, texts: [J] large_string each.
        tokenizer: has the guides of the services.
        max_item_tokens: of one item.
    """
    # Services may share texts.
    distinct = texts.dictionary_encode()
    text = distinct.indices.to_numpy(zero_copy_only=False)
    flat, starts = tokenizer.encode_flat(distinct.dictionary)
    lengths = np.diff(starts)[text]
    kept = np.minimum(lengths, max_item_tokens - 1)
    offsets = offsets_of(kept + 1)
    tokens = np.empty(offsets[-1], np.int32)
    named = services.dictionary_encode()
    guides = [tokenizer.guide(service) for service in named.dictionary.to_pylist()]
    codes = named.indices.to_numpy(zero_copy_only=False)
    tokens[offsets[:-1]] = np.array(guides, np.int32)[codes]
    tokens[ranges(offsets[:-1] + 1, kept)] = flat[ranges(starts[:-1][text], kept)]
    return ItemTokens(tokens, offsets, int((lengths > kept).sum()))
