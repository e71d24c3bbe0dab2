"""Histories that a program gives as lists of texts, checked and as `Users` have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.data.columns import render
from clue_jax.data.hashing import hashes64
from clue_jax.data.item_tokens import tokenize
from clue_jax.data.ragged import offsets_of, rows_at
from clue_jax.data.recency import halved
from clue_jax.data.records import Users
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.errors import DataError

History = Mapping[str, Sequence[str]]  # service -> texts, oldest first
Times = Mapping[str, Sequence[float]]  # service -> epoch seconds, as many as texts
Seconds = Mapping[str, np.ndarray]  # the same, checked: [m] int64, ascending
_NUL = pa.scalar("\0", pa.large_string())


class View(NamedTuple):
    """What a user did on one service, oldest first.

    Attributes:
        user: its number.
        service: by name.
        texts: [m].
        times: [m] epoch seconds int64; zeros where nobody gave any.
    """

    user: int
    service: str
    texts: list[str]
    times: np.ndarray


def view_of(
    user: int, service: str, texts: Sequence[str], seconds: Seconds | None, newest: int
) -> View:
    """A view of the newest behaviours.

    Raises:
        DataError: what is no text; names user and service.
    """
    where = f"user {user}, service {service!r}"
    if isinstance(texts, str):
        raise DataError(f"{where}: one text, not a list of texts")
    kept = list(texts[-newest:])
    for text in kept:
        if not isinstance(text, str):
            raise DataError(f"{where}: {text!r} is not a text")
        if not _is_unicode(text):
            raise DataError(
                f"{where}: {text!r} is not Unicode: half of a character in it has no other half;"
                " decode it with errors='replace'"
            )
    none = np.zeros(len(kept), np.int64)
    return View(user, service, kept, none if seconds is None else seconds[service][-newest:])


def seconds_of(users: Sequence[History], times: Sequence[Times]) -> list[Seconds]:
    """The times of each user's behaviours by service.

    Raises:
        DataError: times that do not go with the texts; names user and service.
    """
    if len(times) != len(users):
        raise DataError(f"{len(users)} users, and times of {len(times)}")
    return [
        {
            service: _seconds(f"user {n}, service {service!r}", len(texts), own.get(service, ()))
            for service, texts in user.items()
        }
        for n, (user, own) in enumerate(zip(users, times, strict=True))
    ]


def _seconds(where: str, texts: int, times: Sequence[float]) -> np.ndarray:
    if len(times) != texts:
        raise DataError(f"{where}: {texts} texts and {len(times)} times; give one time a text")
    try:
        seconds = np.asarray(times, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: times are seconds since 1970, not {times[0]!r}") from error
    if not np.isfinite(seconds).all():
        raise DataError(f"{where}: a time that is not finite")
    if (np.diff(seconds) < 0).any():
        row = int(np.argmax(np.diff(seconds) < 0)) + 1
        raise DataError(f"{where}: text {row} is older than the one before it; sort oldest first")
    return seconds.astype(np.int64)


def service_weights(seconds: Seconds, half_life_days: float) -> dict[str, float]:
    """What each service of a user weighs, as in exports: the newest behaviour of all is one."""
    newest = max(s[-1] for s in seconds.values() if len(s))
    return {s: halved(newest - at, half_life_days).sum() for s, at in seconds.items()}


def together(counts: np.ndarray, most: int, most_behaviours: int) -> Iterator[np.ndarray]:
    """Rows in turn: so many at a time as neither they nor their behaviours exceed what fits."""
    ends, first = np.cumsum(counts), 0
    while first < len(counts):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + most_behaviours, side="right"))
        last = min(last, first + most)
        yield np.arange(first, last)
        first = last


def histories_of(views: Sequence[View], tokenizer: Tokenizer, max_item_tokens: int) -> Users:
    """Each view as a user with one service, of items that are distinct by service and text."""
    counts = [len(view.texts) for view in views]
    owners = np.repeat(np.arange(len(views)), counts)
    raw = pa.array([text for view in views for text in view.texts], pa.large_string())
    texts = render("{text}", {"text": raw})  # white space as `prepare` has it
    services = pa.array([view.service for view in views for _ in view.texts], pa.large_string())
    keys = pc.binary_join_element_wise(services, texts, _NUL).to_pylist()
    identities, first, codes = np.unique(hashes64(keys), return_index=True, return_inverse=True)
    tokens = tokenize(services.take(first), texts.take(first), tokenizer, max_item_tokens)
    pairs, position = np.unique(owners * len(identities) + codes, return_inverse=True)
    owner, item = np.divmod(pairs, len(identities))
    item_offsets = offsets_of(np.bincount(owner, minlength=len(views)))
    flat, lengths = rows_at(tokens.offsets, item)
    return Users(
        user_ids=np.arange(len(views)).astype(str).astype(object),
        services=("view",),
        item_ids=identities[item],
        item_offsets=item_offsets,
        tokens=tokens.tokens[flat],
        token_offsets=offsets_of(lengths),
        behaviour_items=(position - item_offsets[owners]).astype(np.int32),
        behaviour_times=np.concatenate([view.times for view in views]),
        behaviour_offsets=offsets_of(np.array(counts, np.int64)),
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
