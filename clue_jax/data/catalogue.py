"""Distinct items of the kept behaviours: found range by range of identity, named, and tokenised.

The catalogue that `Intake` spilled names every item of the logs, some more than once; the ranges of
users say which are used, and by which behaviour first, whose id at the source is the item's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.console import progress
from clue_jax.data.accounts import Lengths
from clue_jax.data.item_tokens import merge_lengths, tokenize
from clue_jax.data.items import ItemTable
from clue_jax.data.ragged import rows_at, run_starts
from clue_jax.data.spill import Range, Spilled, ranges_of, write_table
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.data.user_store import Used, UserStore
from clue_jax.data.workers import Advance, Workers
from clue_jax.errors import DataError

# What an item used by a range of users takes in memory beside its tokens, while merged.
_USED_BYTES = 150
_CHUNK_ITEMS = 8_192


@dataclass(frozen=True)
class Named:
    """Items in order of identity, in Arrow: the items of one range."""

    item_ids: np.ndarray  # [J] uint64
    training: np.ndarray  # [J] bool, whether a training user has it
    services: pa.Array  # [J] large_string
    texts: pa.Array  # [J] large_string
    source_ids: pa.Array  # [J] large_string

    def table(self) -> pa.Table:
        columns = {
            "item_id": pa.array(self.item_ids),
            "service": self.services,
            "source_id": self.source_ids,
            "text": self.texts,
            "training": pa.array(self.training),
        }
        return pa.table(columns)


@dataclass(frozen=True)
class ItemFiles:
    """Named items on disk, a file for each range of identities."""

    folder: Path
    ranges: int

    def save(self, number: int, named: Named) -> None:
        write_table(self._path(number), named.table(), _CHUNK_ITEMS)

    def open(self, number: int) -> pa.RecordBatchFileReader:
        return pa.ipc.open_file(pa.OSFile(str(self._path(number))))

    def items(self, first: int, last: int) -> Iterator[ItemTable]:
        """Items `first` to `last` in order of identity, some at a time."""
        passed = 0
        for number in range(self.ranges):
            reader = self.open(number)
            for chunk in range(reader.num_record_batches):
                batch = reader.get_batch(chunk)
                start, stop = max(first - passed, 0), min(last - passed, len(batch))
                if start < stop:
                    yield item_table(batch.slice(start, stop - start))
                passed += len(batch)
            if passed >= last:
                return

    def _path(self, number: int) -> Path:
        return self.folder / f"items-{number:05d}.arrow"


class Catalogue:
    """Items by ranges of identity, on disk once `collect` has gone through.

    Attributes:
        files: of the items, once `collect` has gone through.
        count: J, distinct items.
    """

    def __init__(
        self, folder: Path, spill: Spilled, store: UserStore, item_bytes: int, memory_bytes: int
    ):
        """Takes what was spilled; `item_bytes` is what the tokens of an item may take, and
        `memory_bytes` what a process may."""
        self.spill, self.store = spill, store
        weights = spill.weights + store.items * (_USED_BYTES + item_bytes)
        self.ranges = ranges_of(weights, memory_bytes)
        self.files = ItemFiles(folder, len(self.ranges))
        self.count = 0

    def collect(self, most_texts: int, workers: Workers) -> list[str]:
        """Names all items, and returns the first distinct texts of training users in order of
        identity, a hash: a fair sample."""
        tasks = [(self.spill, self.store, self.files, *range_) for range_ in enumerate(self.ranges)]
        with progress("prepare: items named", int(self.store.items.sum())) as advance:
            self.count = sum(workers.map(name_items, tasks, advance))
        texts: dict[str, None] = {}
        for number in range(len(self.ranges)):
            reader = self.files.open(number)
            for chunk in range(reader.num_record_batches):
                if len(texts) >= most_texts:
                    return list(texts)[:most_texts]
                batch = reader.get_batch(chunk)
                mine = batch.column("text").filter(batch.column("training"))
                texts |= dict.fromkeys(mine.to_pylist())
        return list(texts)[:most_texts]

    def tokenize(
        self, tokenizer: Tokenizer, max_item_tokens: int, workers: Workers
    ) -> tuple[Lengths, int]:
        """Encodes every item once and hands its tokens to the users that have it; gives the
        lengths of the items and how many lost tokens."""
        tasks = [
            (tokenizer, max_item_tokens, self.store, self.files, *range_)
            for range_ in enumerate(self.ranges)
        ]
        with progress("prepare: items tokenised", self.count) as advance:
            return merge_lengths(workers.map(tokenize_items, tasks, advance))


def name_items(
    spill: Spilled, store: UserStore, files: ItemFiles, number: int, span: Range, advance: Advance
) -> int:
    """A task of `Workers`: names and saves the items of a range; gives how many there are."""
    blocks = [block for _, block in store.used(span)]
    named = named_items(blocks, spill.table(span))
    files.save(number, named)
    advance(int(store.items[span.first : span.last].sum()))
    return len(named.item_ids)


def tokenize_items(
    tokenizer: Tokenizer,
    max_item_tokens: int,
    store: UserStore,
    files: ItemFiles,
    number: int,
    span: Range,
    advance: Advance,
) -> tuple[Lengths, int]:
    """A task of `Workers`: the tokens of a range of items, put down for the users that have it."""
    table = files.open(number).read_all()
    services, texts = (table[n].combine_chunks() for n in ("service", "text"))
    tokens = tokenize(services, texts, tokenizer, max_item_tokens)
    item_ids = table["item_id"].to_numpy()
    for users, used in store.used(span):
        flat, lengths = rows_at(tokens.offsets, np.searchsorted(item_ids, used[0]))
        store.write_tokens(users, number, tokens.tokens[flat], lengths)
    advance(len(item_ids))
    return tokens.lengths()


def named_items(blocks: Sequence[Used], known: pa.Table) -> Named:
    """The items of a range.

    Args:
        blocks: of `UserStore.used`.
        known: all that `Intake` wrote into the catalogue about the range.

    Raises:
        DataError: two items of one identity.
    """
    used = np.concatenate([np.zeros((3, 0), np.uint64), *blocks], axis=1)
    used = used[:, np.lexsort((used[1], used[0]))]
    starts = run_starts(used[0])
    item_ids = used[0][starts]
    if not len(item_ids):
        nothing = pa.array([], pa.large_string())
        return Named(item_ids, np.zeros(0, bool), nothing, nothing, nothing)
    training = np.bitwise_or.reduceat(used[2] & np.uint64(1), starts) > 0
    _check_identities(known, item_ids)
    entries = known["entry"].to_numpy()
    order = np.argsort(entries)
    wanted = (used[2][starts] >> np.uint64(1)).astype(np.int64)
    rows = order[np.searchsorted(entries, wanted, sorter=order)]
    services, texts, source_ids = _parts(known["texts"].combine_chunks().take(pa.array(rows)))
    return Named(item_ids, training, services, texts, source_ids)


def _parts(joined: pa.Array) -> list[pa.Array]:
    """Texts joined by NUL -> service, text, id at the source."""
    flat = pc.split_pattern(joined, "\0").flatten()
    return [flat.take(pa.array(np.arange(part, len(flat), 3))) for part in range(3)]


def _check_identities(known: pa.Table, item_ids: np.ndarray) -> None:
    """Refuses two items of one identity among those that are used."""
    identity = known["item"].to_numpy()
    position = np.minimum(np.searchsorted(item_ids, identity), len(item_ids) - 1)
    rows = np.flatnonzero(item_ids[position] == identity)
    rows = rows[np.argsort(identity[rows], kind="stable")]
    again = np.flatnonzero(identity[rows][1:] == identity[rows][:-1])
    if not len(again):
        return
    texts = known["texts"].combine_chunks()
    before, after = (_parts(texts.take(pa.array(rows[again + step]))) for step in (0, 1))
    differ = [pc.not_equal(before[part], after[part]).to_numpy(False) for part in (0, 1)]
    differs = differ[0] | differ[1]
    if differs.any():
        found = int(identity[rows[again[np.argmax(differs)]]])
        raise DataError(
            f"item {found:#018x}: two items share this 64-bit identity (one chance in many"
            " millions); change the text template slightly"
        )


def item_table(batch: pa.RecordBatch) -> ItemTable:
    """The items of a piece of `Named.table`."""
    texts = [
        np.array(batch.column(name).to_pylist(), object)
        for name in ("service", "source_id", "text")
    ]
    return ItemTable(batch.column("item_id").to_numpy(), *texts)
