"""Batches of an export are packed, encoded and written at the same time, in bounded memory.

A thread packs batches ahead of the devices, these work on one while the host takes up the one
before, and another thread writes a part while the next is encoded. At most `AHEAD` packed batches,
two batches on the devices and two parts exist at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from clue_jax.data.ahead import made_ahead
from clue_jax.data.records import Users
from clue_jax.inference import BatchEncoder
from clue_jax.model import clue

AHEAD = 2
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Packed:
    """A batch on the host: some rows of a part, the last of it or not, as devices take them."""

    part: int
    rows: np.ndarray
    shares: Any
    last: bool


@dataclass(frozen=True)
class Encoded:
    """The vectors of a whole part, in the order of its rows."""

    part: int
    z_NSE: np.ndarray
    present_NS: np.ndarray


def packed_batches(
    encoder: BatchEncoder, users: Users, parts: Sequence[np.ndarray], wanted: Iterable[int]
) -> Iterator[Packed]:
    """The batches of the wanted parts in order. None has rows of two, so that what is encoded
    together, and with it the last bits, does not depend on which parts were done before."""
    for part in wanted:
        rows = parts[part]
        for first in range(0, max(len(rows), 1), encoder.batch_users):
            some = rows[first : first + encoder.batch_users]
            shares = encoder.pack(users.take(some)) if len(some) else None
            yield Packed(part, some, shares, last=first + encoder.batch_users >= len(rows))


def encoded_parts(
    encoder: BatchEncoder,
    params: clue.Params,
    batches: Iterable[Packed],
    services: int,
    advance: Advance,
) -> Iterator[Encoded]:
    """Whole parts, from their batches; the devices are given a batch before the last is awaited."""
    width = encoder.config.embedding_width
    nobody = np.zeros((0, services, width), np.float32), np.zeros((0, services), bool)
    done: list[tuple[np.ndarray, np.ndarray]] = []

    def collected(batch: Packed, started: Any) -> Iterator[Encoded]:
        count = len(batch.rows)
        done.append(encoder.collect(started, count) if count else nobody)
        advance(count)
        if batch.last:
            z_NSE, present_NS = (np.concatenate(arrays) for arrays in zip(*done, strict=True))
            done.clear()
            yield Encoded(batch.part, z_NSE, present_NS)

    pending: tuple[Packed, Any] | None = None
    for batch in batches:
        started = encoder.start(params, batch.shares) if len(batch.rows) else None
        if pending:
            yield from collected(*pending)
        pending = batch, started
    if pending:
        yield from collected(*pending)


def write_behind(parts: Iterable[Encoded], write: Callable[[Encoded], None]) -> None:
    """Writes each part in a thread while the next is made; raises what writing raised."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer") as writer:
        before: Future[None] | None = None
        for part in parts:
            if before:
                before.result()
            before = writer.submit(write, part)
        if before:
            before.result()


def run(
    encoder: BatchEncoder,
    params: clue.Params,
    users: Users,
    parts: Sequence[np.ndarray],
    wanted: Sequence[int],
    write: Callable[[Encoded], None],
    advance: Advance,
) -> None:
    """Encodes and writes the wanted parts.

    Args:
        encoder: of batches of users.
        params: of it.
        users: that parts have rows of.
        parts: rows of `users` in each part.
        wanted: numbers of the parts to make.
        write: takes a whole part, in a thread of its own.
        advance: told the number of users after each batch.
    """
    packed = made_ahead(packed_batches(encoder, users, parts, wanted), AHEAD, "packer")
    with contextlib.closing(packed):
        batches = (batch for batch, _ in packed)
        write_behind(encoded_parts(encoder, params, batches, len(users.services), advance), write)
