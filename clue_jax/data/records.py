"""One user as flat arrays: in memory for a whole split, and as one record in a shard.

A record is a tf.Example whose features hold raw little-endian arrays, so that TFDS reads it without
TensorFlow (`tfds.features.Tensor(encoding="bytes")`) and many records are decoded at once by
joining their bytes. The same arrays of all users end to end are the columns of `Users`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from clue_jax.data.outline import CHUNK_USERS, Outline
from clue_jax.data.ragged import offsets_of, ranges, rows_at
from clue_jax.data.tf_example import decode_features, decode_texts, encode_record
from clue_jax.errors import DataError

# The arrays of a record, flat. Little-endian on every machine.
ARRAYS: dict[str, np.dtype[Any]] = {
    "item_ids": np.dtype("<u8"),  # [I] identity of service and text, ascending
    "item_lengths": np.dtype("<i4"),  # [I] tokens of each item, guide included
    "tokens": np.dtype("<i4"),  # the items' tokens end to end
    "behaviour_items": np.dtype("<i4"),  # index into the record's items; services in order
    "behaviour_times": np.dtype("<i8"),  # epoch seconds, or the given order
    "behaviour_counts": np.dtype("<i4"),  # [S] behaviours per service
}


class UserTable(Protocol):
    """Users to draw from, in memory (`Users`) or not (cache.py)."""

    @property
    def services(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...
    def take(self, indices: np.ndarray | Sequence[int]) -> Users: ...
    def outlines(self) -> Iterator[Outline]: ...
    def identities(self, size: int = CHUNK_USERS) -> Iterator[np.ndarray]: ...
    def gathered(self, parts: Iterable[np.ndarray], dtype: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Users:
    """The users of a split, or any selection of them, as flat columns.

    Attributes:
        user_ids: [N] str.
        services: S names, the order of the service axis.
        item_ids: [I] uint64 identities of (service, text), distinct per user, users end to end.
        item_offsets: [N + 1] int64 into `item_ids`.
        tokens: [K] int32, the items' tokens end to end; the first of each item is its guide token.
        token_offsets: [I + 1] int64 into `tokens`.
        behaviour_items: [M] int32 index into the user's own items.
        behaviour_times: [M] int64 epoch seconds, or the given order where logs have no dates.
        behaviour_offsets: [N * S + 1] int64; those of user n in service s are
            `[n * S + s]:[n * S + s + 1]`, oldest first.
    """

    user_ids: np.ndarray
    services: tuple[str, ...]
    item_ids: np.ndarray
    item_offsets: np.ndarray
    tokens: np.ndarray
    token_offsets: np.ndarray
    behaviour_items: np.ndarray
    behaviour_times: np.ndarray
    behaviour_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.user_ids)

    def counts(self) -> np.ndarray:
        """Behaviours [N, S] per user and service."""
        return np.diff(self.behaviour_offsets).reshape(len(self), len(self.services))

    def owners(self) -> np.ndarray:
        """The user of each behaviour, [M]."""
        return np.repeat(np.arange(len(self)), self.counts().sum(axis=1))

    def item_rows(self) -> np.ndarray:
        """The item of each behaviour, [M] into `item_ids`."""
        return self.item_offsets[self.owners()] + self.behaviour_items

    def in_service(self, service: int) -> tuple[np.ndarray, np.ndarray]:
        """The behaviours in a service by number, user by user: their users, and their places."""
        starts = self.behaviour_offsets[service : -1 : len(self.services)]
        lengths = self.counts()[:, service]
        return np.repeat(np.arange(len(self)), lengths), ranges(starts, lengths)

    def take(self, indices: np.ndarray | Sequence[int]) -> Users:
        """The users at `indices`, in that order; an index may occur more than once."""
        indices = np.asarray(indices, np.int64)
        rows = (indices[:, None] * len(self.services) + np.arange(len(self.services))).ravel()
        items, item_lengths = rows_at(self.item_offsets, indices)
        tokens, token_lengths = rows_at(self.token_offsets, items)
        behaviours, behaviour_lengths = rows_at(self.behaviour_offsets, rows)
        return Users(
            user_ids=self.user_ids[indices],
            services=self.services,
            item_ids=self.item_ids[items],
            item_offsets=offsets_of(item_lengths),
            tokens=self.tokens[tokens],
            token_offsets=offsets_of(token_lengths),
            behaviour_items=self.behaviour_items[behaviours],
            behaviour_times=self.behaviour_times[behaviours],
            behaviour_offsets=offsets_of(behaviour_lengths),
        )

    def outlines(self, size: int = CHUNK_USERS) -> Iterator[Outline]:
        """Sizes of all users, `size` at a time."""
        counts = self.counts()
        for first in range(0, len(self), size):
            items = self.item_offsets[first : first + size + 1]
            yield Outline(
                rows=np.arange(first, first + len(items) - 1),
                services=self.services,
                counts=counts[first : first + size],
                item_ids=self.item_ids[items[0] : items[-1]],
                item_offsets=items - items[0],
                item_lengths=np.diff(self.token_offsets[items[0] : items[-1] + 1]),
            )

    def identities(self, size: int = CHUNK_USERS) -> Iterator[np.ndarray]:
        """Ids of all users, `size` at a time."""
        for first in range(0, len(self), size):
            yield self.user_ids[first : first + size]

    def gathered(self, parts: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
        """Parts of an array over users, end to end, kept where the users are."""
        return np.concatenate([np.zeros(0, dtype), *parts])


def visible(
    users: Users,
    cutoff: int | None = None,
    hold_out_last: int = 0,
    start: int | None = None,
    newest: int = 0,
) -> Users:
    """What an observer may see: all users, with fewer behaviours.

    Items nobody's remaining behaviours refer to stay in the item columns.

    Args:
        users: N users.
        cutoff: epoch seconds; behaviours at or after it are left out. None: no cutoff.
        hold_out_last: behaviours left out at the end of each user's history in each service
            (after the cutoff has been applied).
        start: epoch seconds; behaviours before it are left out. None: no start.
        newest: of what is left, so many of each user in each service; 0: all.
    """
    # Each row is oldest first, so what stays of it is one stretch.
    first, last = users.behaviour_offsets[:-1], users.behaviour_offsets[1:]
    row = np.repeat(np.arange(len(first)), last - first)

    def earlier(time: int) -> np.ndarray:
        return np.bincount(row[users.behaviour_times < time], minlength=len(first))

    if cutoff is not None:
        last = first + earlier(cutoff)
    last = np.maximum(last - hold_out_last, first)
    if start is not None:
        first = np.minimum(first + earlier(start), last)
    if newest:
        first = np.maximum(first, last - newest)
    lengths = last - first
    stay = ranges(first, lengths)
    return Users(
        **{
            **vars(users),
            "behaviour_items": users.behaviour_items[stay],
            "behaviour_times": users.behaviour_times[stay],
            "behaviour_offsets": offsets_of(lengths),
        }
    )


def concatenate(parts: Sequence[Users], services: tuple[str, ...]) -> Users:
    """Users of several shards end to end; of none, no users."""
    if not parts:
        return decode_users([], services)
    flat = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("user_ids", "item_ids", "tokens", "behaviour_items", "behaviour_times")
    }
    offsets = {
        name: offsets_of(np.concatenate([np.diff(getattr(part, name)) for part in parts]))
        for name in ("item_offsets", "token_offsets", "behaviour_offsets")
    }
    return Users(services=services, **flat, **offsets)


# ------------------------------------------------------------------------------------- records


def user_features() -> tfds.features.FeaturesDict:
    """The TFDS features of a user record."""
    arrays = {
        name: tfds.features.Tensor(
            shape=(None,), dtype=dtype.newbyteorder("="), encoding=tfds.features.Encoding.BYTES
        )
        for name, dtype in ARRAYS.items()
    }
    return tfds.features.FeaturesDict({"user_id": tfds.features.Text(), **arrays})


def encode_users(users: Users) -> Iterator[bytes]:
    """Yields one record per user."""
    columns = {
        "item_ids": (users.item_ids, users.item_offsets),
        "item_lengths": (np.diff(users.token_offsets), users.item_offsets),
        "tokens": (users.tokens, users.token_offsets[users.item_offsets]),
        "behaviour_items": (users.behaviour_items, _user_behaviours(users)),
        "behaviour_times": (users.behaviour_times, _user_behaviours(users)),
        "behaviour_counts": (
            np.diff(users.behaviour_offsets),
            np.arange(len(users) + 1) * len(users.services),
        ),
    }
    raw = {
        name: (values.astype(ARRAYS[name]).tobytes(), (offsets * ARRAYS[name].itemsize).tolist())
        for name, (values, offsets) in columns.items()
    }
    for n, user_id in enumerate(users.user_ids):
        arrays = {name: buffer[cut[n] : cut[n + 1]] for name, (buffer, cut) in raw.items()}
        yield encode_record({"user_id": str(user_id).encode("utf-8"), **arrays})


def _user_behaviours(users: Users) -> np.ndarray:
    return users.behaviour_offsets[:: len(users.services)]


def decode_users(records: Sequence[bytes], services: tuple[str, ...]) -> Users:
    """Decodes many records at once.

    Raises:
        DataError: a record that contradicts itself; names its number in `records`.
    """
    columns = decode_features(records, ("user_id", *ARRAYS))
    values = {n: np.frombuffer(b"".join(columns[n]), dtype) for n, dtype in ARRAYS.items()}
    lengths = {
        n: np.array([len(part) for part in columns[n]], np.int64) // dtype.itemsize
        for n, dtype in ARRAYS.items()
    }
    item_offsets = offsets_of(lengths["item_ids"])
    _check_records(values, lengths, item_offsets, len(services))
    return Users(
        user_ids=decode_texts(columns["user_id"]),
        services=services,
        item_ids=values["item_ids"],
        item_offsets=item_offsets,
        tokens=values["tokens"],
        token_offsets=offsets_of(values["item_lengths"]),
        behaviour_items=values["behaviour_items"],
        behaviour_times=values["behaviour_times"],
        behaviour_offsets=offsets_of(values["behaviour_counts"]),
    )


def _check_records(
    values: dict[str, np.ndarray],
    lengths: dict[str, np.ndarray],
    item_offsets: np.ndarray,
    services: int,
) -> None:
    """Every index and length of a record must fit its other arrays; checked for all at once."""
    items, behaviours = lengths["item_ids"], lengths["behaviour_items"]
    differ = "arrays of one length are not"
    _refuse(lengths["item_lengths"] != items, f"{differ}: item_ids and item_lengths")
    _refuse(lengths["behaviour_times"] != behaviours, f"{differ}: behaviour items and times")
    _refuse(lengths["behaviour_counts"] != services, f"it is not about {services} services")
    _refuse(_any(values["item_lengths"] < 1, items), "an item has no token")
    counts = values["behaviour_counts"].reshape(-1, services)
    _refuse(np.min(counts, axis=1) < 0, "a negative number of behaviours")
    _refuse(counts.sum(axis=1) != behaviours, "behaviours per service do not add up")
    index = values["behaviour_items"]
    outside = np.logical_or(index < 0, index >= np.repeat(items, behaviours))
    _refuse(_any(outside, behaviours), "a behaviour names an item the record does not have")
    token_sums = np.diff(offsets_of(values["item_lengths"])[item_offsets])
    _refuse(token_sums != lengths["tokens"], "token lengths do not add up")


def _any(flags: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For rows end to end: whether a row has a flag set."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(row[flags], minlength=len(lengths)) > 0


def _refuse(wrong: np.ndarray, problem: str) -> None:
    if wrong.any():
        raise DataError(f"record {int(np.argmax(wrong))}: {problem}")
