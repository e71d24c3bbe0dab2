"""Byte-level BPE over item texts, and the guide tokens that name an item's service.

The vocabulary, in order: padding, the generic guide, 64 reserved guides for services to come, one
guide per service, the 256 bytes, merges. Trained and run by the `tokenizers` library. Which service
has which reserved guide is no part of tokenizer.json, whose bytes stay the same: see guides.py.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
from etils import epath
from tokenizers import decoders, models, pre_tokenizers, trainers

from clue_jax.data.ragged import offsets_of
from clue_jax.data.words import encode_words, splits_at_blanks
from clue_jax.errors import ConfigError, DataError
from clue_jax.files import write_bytes

PAD = 0
GENERIC_GUIDE = 1
RESERVED_GUIDES = 64  # ids 2 to 65
FIRST_SERVICE_GUIDE = 2 + RESERVED_GUIDES
BYTES = 256

_FIXED = ("<pad>", "<guide>", *(f"<guide:{n}>" for n in range(RESERVED_GUIDES)))
_BATCH = 1 << 16  # texts whose words are told apart together
_WORDS = 1_000  # words that are one text to the library
_CALL = 10_000  # texts encoded in one call: bounds the memory of the library's own objects


def _service_token(service: str) -> str:
    return f"<service:{service}>"


class Tokenizer:
    """Texts to token ids and back; a text that spells a special token does not become it.

    Attributes:
        serialized: the bytes of its tokenizer.json.
        reserved: the reserved guide of each service that was given one.
    """

    def __init__(self, serialized: bytes, where: str = "tokenizer"):
        """Reads the bytes of a tokenizer.json.

        Raises:
            DataError: not a tokenizer of this format; names `where`.
        """
        try:
            self._bpe = tokenizers.Tokenizer.from_str(serialized.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{where}: not a tokenizer.json ({error})") from error
        for token_id, token in enumerate(_FIXED):
            if self._bpe.id_to_token(token_id) != token:
                raise DataError(
                    f"{where}: token {token_id} is {self._bpe.id_to_token(token_id)!r}, not"
                    f" {token!r}; only a tokenizer.json that `prepare` wrote has the guide tokens"
                )
        self.serialized = serialized
        self.reserved: Mapping[str, int] = types.MappingProxyType({})
        self._by_words = splits_at_blanks(serialized)
        # Not part of tokenizer.json: without it a title that contains "<pad>" would become padding.
        self._bpe.encode_special_tokens = True

    @functools.cached_property
    def vocab_size(self) -> int:
        """V: ids are 0 to V - 1."""
        return self._bpe.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of the bytes of tokenizer.json."""
        return hashlib.sha256(self.serialized).hexdigest()

    def guide(self, service: str) -> int:
        """The guide token of a service: its own, else one reserved for it, else the generic one."""
        found = self._bpe.token_to_id(_service_token(service))
        return self.reserved.get(service, GENERIC_GUIDE) if found is None else found

    def with_reserved(self, reserved: Mapping[str, int]) -> Tokenizer:
        """The same tokenizer, with these reserved guides given to services."""
        other = object.__new__(Tokenizer)
        other.__dict__ |= {**self.__dict__, "reserved": types.MappingProxyType(dict(reserved))}
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes, which read the same one once."""
        return _received, (self.serialized, tuple(self.reserved.items()))

    @functools.cached_property
    def guides(self) -> range:
        """All guide tokens: the generic one, the reserved ones, those of services."""
        stop = FIRST_SERVICE_GUIDE
        while (self._bpe.id_to_token(stop) or "").startswith(_service_token("")[:-1]):
            stop += 1
        return range(GENERIC_GUIDE, stop)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids int32 of each text, without guide token."""
        flat, offsets = self._encode(texts)
        return np.split(flat, offsets[1:-1]) if len(texts) else []

    def encode_flat(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of texts [J] end to end, int32, and their offsets [J + 1] int64."""
        parts = [texts.slice(start, _BATCH) for start in range(0, len(texts), _BATCH)]
        if self._by_words:
            done = [encode_words(part, self._encode_words, self._encode) for part in parts]
        else:
            done = [self._encode(part.to_pylist()) for part in parts]
        flat = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in done)])
        lengths = [np.diff(offsets) for _, offsets in done]
        return flat, offsets_of(np.concatenate([np.zeros(0, np.int64), *lengths]))

    def _encode_words(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`_encode` of words, many of them in one call's text: objects of the library are dear."""
        calls = [list(words[start : start + _WORDS]) for start in range(0, len(words), _WORDS)]
        parts = [np.zeros(0, np.int32)]
        lengths = np.zeros(len(words), np.int64)
        found = self._bpe.encode_batch(calls, is_pretokenized=True, add_special_tokens=False)
        for number, one in enumerate(found):
            first = number * _WORDS
            lengths[first : first + _WORDS] = np.bincount(
                np.array(one.word_ids, np.int64), minlength=len(calls[number])
            )
            parts.append(np.array(one.ids, np.int32))
        return np.concatenate(parts), offsets_of(lengths)

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As the library has it; texts in parts, to bound the memory of its objects."""
        parts, lengths = [np.zeros(0, np.int32)], np.zeros(len(texts), np.int64)
        for start in range(0, len(texts), _CALL):
            texts_here = list(texts[start : start + _CALL])
            batch = self._bpe.encode_batch_fast(texts_here, add_special_tokens=False)
            ids = [one.ids for one in batch]
            lengths[start : start + len(ids)] = [len(one) for one in ids]
            parts.append(np.fromiter(itertools.chain.from_iterable(ids), np.int32))
        return np.concatenate(parts), offsets_of(lengths)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids; guide and padding tokens are left out."""
        return self._bpe.decode([int(i) for i in ids], skip_special_tokens=True).strip()

    def save(self, path: epath.PathLike) -> None:
        """Writes tokenizer.json."""
        write_bytes(path, self.serialized)


@functools.lru_cache(maxsize=1)
def _received(serialized: bytes, reserved: tuple[tuple[str, int], ...]) -> Tokenizer:
    return Tokenizer(serialized).with_reserved(dict(reserved))


def load(path: epath.PathLike) -> Tokenizer:
    """Reads a tokenizer.json.

    Raises:
        DataError: the file is missing, or not a tokenizer of this format.
    """
    try:
        serialized = epath.Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return Tokenizer(serialized, str(path))


def train(texts: Iterable[str], services: Sequence[str], vocab_size: int) -> Tokenizer:
    """Trains byte-level BPE; deterministic in the order and content of its arguments.

    Args:
        texts: the training texts; keep them to a few million, all their words stay in memory.
        services: get a guide token each, in this order.
        vocab_size: V at most, all special tokens included; few texts may give fewer merges.

    Raises:
        ConfigError: `vocab_size` leaves no room for guides and bytes.
    """
    fixed = FIRST_SERVICE_GUIDE + len(services) + BYTES
    if vocab_size < fixed:
        raise ConfigError(
            f"config.tokenizer.vocab_size: {vocab_size} is too small; guide tokens and bytes alone"
            f" take {fixed}"
        )
    bpe = tokenizers.Tokenizer(models.BPE())
    # A word is the same token at the beginning of a title as inside it.
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*_FIXED, *(_service_token(service) for service in services)],
        # Every byte has a token, so that no text is unknown. Sorted: the library's order varies.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return Tokenizer(bpe.to_str().encode("utf-8"))
