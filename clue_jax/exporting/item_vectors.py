"""Each distinct item of a dataset encoded once, into a table on disk that histories look up.

A batch encodes its distinct items once; what batches have in common it encodes again for each. So
where items repeat from batch to batch, a table of all of them is cheaper, and the numbers are the
same. The table is made in blocks, each whole or absent like a part, and shared like parts: every
process makes its own blocks first, then those that are still missing, and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.config import EncoderConfig
from clue_jax.console import progress
from clue_jax.data.ragged import distinct, offsets_of, ranges
from clue_jax.data.records import Users
from clue_jax.data.sampling import full_views
from clue_jax.embeddings.writer import write_array
from clue_jax.errors import DataError
from clue_jax.inference import ItemEncoder
from clue_jax.model import clue

BLOCK = 65_536  # items
SAMPLE = 16  # batches that tell how often items repeat
CHEAPER = 2.0  # times that batches would encode an item, from which on a table pays


class DistinctItems:
    """The items of users' visible behaviours that the encoder reads, each once.

    Attributes:
        item_ids: [J] uint64, ascending.
        first: [J] where in the users' items each is first.
        lengths: [J] tokens that the encoder reads.
    """

    def __init__(self, users: Users, config: EncoderConfig):
        self.users = users
        self.max_history = config.max_history
        views = full_views(users, config.max_history)
        self.item_ids, where, _ = distinct(users.item_ids[views.items])
        self.first = views.items[where]
        lengths = np.diff(users.token_offsets)[self.first]
        self.lengths = np.minimum(lengths, config.max_item_tokens)

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def longest(self) -> int:
        """Tokens of an item at most."""
        return int(self.lengths.max(initial=1))

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Identities of the items of some of the users, repeated as often as they are there."""
        some = self.users.take(rows)
        return some.item_ids[full_views(some, self.max_history).items]

    def tokens(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of some of the items, end to end, and offsets."""
        starts, lengths = self.users.token_offsets[self.first[rows]], self.lengths[rows]
        return self.users.tokens[ranges(starts, lengths)], offsets_of(lengths)


def saving(items: DistinctItems, parts: Sequence[np.ndarray], batch_users: int) -> float:
    """How often batches encode an item, on average; from an even sample of batches."""
    batches = [
        part[first : first + batch_users]
        for part in parts
        for first in range(0, len(part), batch_users)
    ]
    chosen = np.unique(np.linspace(0, len(batches) - 1, SAMPLE).astype(int))
    of_batches = [len(np.unique(items.of(batches[n]))) for n in chosen]
    return float(np.mean(of_batches)) * len(batches) / max(len(items), 1)


class ItemVectors:
    """The table of vectors of items, [J, D] float32 on disk; use `make`.

    Args:
        folder: local, of its blocks.
        items: what it has a row for.
    """

    def __init__(self, folder: epath.Path, items: DistinctItems):
        self.folder, self.items = folder, items
        self.count = -(-len(items) // BLOCK)
        self._blocks: list[np.ndarray] = []

    def make(self, encoder: ItemEncoder, params: clue.Params, index: int, count: int) -> None:
        """Makes the blocks that are not there, process `index` of `count`."""
        others = [k for k in range(self.count) if k % count != index]
        with progress("encoding items", len(self.items)) as advance:
            for block in [*range(index, self.count, count), *others]:
                if not self._whole(block):
                    self._make(encoder, params, block)
                advance(min(BLOCK, len(self.items) - block * BLOCK))
        self._blocks = [np.load(self._file(k), mmap_mode="r") for k in range(self.count)]

    def __call__(self, item_ids: np.ndarray) -> np.ndarray:
        """Rows [n, D] of items by identity."""
        place = np.searchsorted(self.items.item_ids, item_ids)
        block, row = np.divmod(place, BLOCK)
        found = np.empty((len(item_ids), self._blocks[0].shape[1]), np.float32)
        for k in np.unique(block):
            of_block = np.flatnonzero(block == k)
            found[of_block] = self._blocks[k][row[of_block]]
        return found

    def _make(self, encoder: ItemEncoder, params: clue.Params, block: int) -> None:
        last = min((block + 1) * BLOCK, len(self.items))
        vectors = []
        for first in range(block * BLOCK, last, encoder.batch_items):
            rows = slice(first, min(first + encoder.batch_items, last))
            vectors.append(encoder(params, *self.items.tokens(rows)))
        digest = write_array(self._file(block), np.concatenate(vectors))
        files.write_json(self._marker(block), {"sha256": digest})

    def _whole(self, block: int) -> bool:
        if not self._marker(block).exists() or not self._file(block).exists():
            return False
        try:
            digest = files.read_json(self._marker(block))["sha256"]
        except (DataError, KeyError, TypeError):
            return False
        return files.sha256_file(self._file(block)) == digest

    def _file(self, block: int) -> epath.Path:
        return self.folder / f"block-{block:05d}-of-{self.count:05d}.npy"

    def _marker(self, block: int) -> epath.Path:
        return self.folder / f"block-{block:05d}-of-{self.count:05d}.json"
