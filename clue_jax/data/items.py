"""What item identities stand for: service, id at the source and text; in memory and as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds

from clue_jax.data.tf_example import decode_features, decode_texts, encode_record
from clue_jax.errors import DataError


@dataclass(frozen=True)
class ItemTable:
    """What an item identity stands for: J distinct (service, text) in order of identity."""

    item_ids: np.ndarray  # [J] uint64, ascending
    services: np.ndarray  # [J] str
    source_ids: np.ndarray  # [J] str, '' where the logs name no item
    texts: np.ndarray  # [J] str

    def __len__(self) -> int:
        return len(self.item_ids)

    def lookup(self, item_ids: np.ndarray) -> np.ndarray:
        """Positions in this table, int64.

        Raises:
            DataError: an identity that is not in it; names the first.
        """
        wanted = np.asarray(item_ids, np.uint64)
        positions = np.searchsorted(self.item_ids, wanted)
        known = positions < len(self)
        known[known] = self.item_ids[positions[known]] == wanted[known]
        if not known.all():
            unknown = int(wanted[~known].flat[0])
            raise DataError(f"item {unknown:#018x}: not in this dataset's table of items")
        return positions


def item_features() -> tfds.features.FeaturesDict:
    """The TFDS features of an item record."""
    identity = tfds.features.Tensor(
        shape=(), dtype=np.uint64, encoding=tfds.features.Encoding.BYTES
    )
    texts = {name: tfds.features.Text() for name in ("service", "source_id", "text")}
    return tfds.features.FeaturesDict({"item_id": identity, **texts})


def encode_items(items: ItemTable) -> Iterator[bytes]:
    """Yields one record per item."""
    identities = items.item_ids.astype("<u8").tobytes()
    columns = (items.services, items.source_ids, items.texts)
    for n, (service, source_id, text) in enumerate(zip(*columns, strict=True)):
        yield encode_record(
            {
                "item_id": identities[8 * n : 8 * n + 8],
                "service": service.encode("utf-8"),
                "source_id": source_id.encode("utf-8"),
                "text": text.encode("utf-8"),
            }
        )


def decode_items(records: Sequence[bytes]) -> ItemTable:
    """Decodes item records; they must be in order of identity.

    Raises:
        DataError: a record of another format, or identities out of order.
    """
    columns = decode_features(records, ("item_id", "service", "source_id", "text"))
    item_ids = np.frombuffer(b"".join(columns["item_id"]), "<u8")
    if len(item_ids) != len(records) or (item_ids[1:] <= item_ids[:-1]).any():
        raise DataError("the table of items is not in order of identity")
    texts = (decode_texts(columns[name]) for name in ("service", "source_id", "text"))
    return ItemTable(item_ids, *texts)
