"""Buckets of items: named, tokenised once, their tokens sent to the users that have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from clue_jax.console import say
from clue_jax.data import tokenizer as bpe
from clue_jax.data.beam.plan import (
    Output,
    Plan,
    Value,
    batch_of,
    joined,
    packed,
    payloads,
    unpacked,
)
from clue_jax.data.beam.reading import Known
from clue_jax.data.beam.writing import Layout, pieces
from clue_jax.data.catalogue import Named, item_table, named_items
from clue_jax.data.guides import guide_services
from clue_jax.data.intake import CATALOGUE
from clue_jax.data.item_tokens import tokenize
from clue_jax.data.items import encode_items
from clue_jax.data.ragged import offsets_of, rows_at
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.data.writing import ITEMS_PER_SHARD

CHUNK_ITEMS = 8_192  # made records of at a time

# Identities [n] uint64, ascending, and the text of each.
Texts = tuple[np.ndarray, list[str]]
# A bucket of items: their table, and the items that each bucket of users has.
NamedBucket = tuple[int, tuple[bytes, list[tuple[int, bytes]]]]


def name_bucket(element: tuple[int, Iterable[Value]], plan: Plan) -> Iterator[Output]:
    """Names the items of a bucket that users have kept.

    Raises:
        DataError: two items of one identity.
    """
    bucket, values = element
    used = [(user, unpacked(payload)) for kind, user, payload in values if kind == "used"]
    blocks = [np.stack([column.to_numpy() for column in table.columns]) for _, table in used]
    named = named_items(blocks, joined(payloads(values, "catalogue"), CATALOGUE))
    wanted = [(user, block[0].tobytes()) for (user, _), block in zip(used, blocks, strict=True)]
    if len(named.item_ids):
        yield "named", (bucket, (packed(named.table().combine_chunks()), wanted))
        yield "counts", (bucket, np.array([len(named.item_ids)]))
    if plan.trains:
        yield "texts", first_texts([_training(named)], plan.config.tokenizer.max_training_texts)


def _training(named: Named) -> Texts:
    texts = named.texts.filter(pa.array(named.training)).to_pylist()
    return named.item_ids[named.training], texts


def first_texts(parts: Iterable[Texts], most: int) -> Texts:
    """The first distinct texts in order of identity, a hash: a fair sample."""
    parts = list(parts)
    item_ids = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in parts)])
    texts = [text for part in parts for text in part[1]]
    found: dict[str, int] = {}
    for place in np.argsort(item_ids, kind="stable").tolist():
        if len(found) == most:
            break
        found.setdefault(texts[place], place)
    return item_ids[list(found.values())], list(found)


def train_tokenizer(texts: Texts, known: Known, plan: Plan) -> Iterator[Output]:
    """The tokenizer of all training texts."""
    say(f"training the tokenizer on {len(texts[1]):,} texts of training users")
    size = plan.config.tokenizer.vocab_size
    yield "tokenizer", bpe.train(texts[1], known.reading.services, size)


def guide_tokenizer(given: Tokenizer, known: Known, plan: Plan) -> Iterator[Output]:
    """The given tokenizer, with guides for the services that it does not know."""
    new = plan.config.tokenizer.new_services
    yield "tokenizer", guide_services(given, known.reading.services, new)


def tokenize_bucket(element: NamedBucket, tokenizer: Tokenizer, plan: Plan) -> Iterator[Output]:
    """Encodes the items of a bucket, for each bucket of users that has some of them."""
    bucket, (payload, wanted) = element
    batch = batch_of(payload)
    services, texts = batch.column("service"), batch.column("text")
    tokens = tokenize(services, texts, tokenizer, plan.config.max_item_tokens)
    item_ids = batch.column("item_id").to_numpy()
    for user, identities in wanted:
        mine = np.frombuffer(identities, np.uint64)
        flat, lengths = rows_at(tokens.offsets, np.searchsorted(item_ids, mine))
        lists = pa.LargeListArray.from_arrays(
            pa.array(offsets_of(lengths)), pa.array(tokens.tokens[flat])
        )
        table = pa.table({"item": pa.array(mine), "tokens": lists})
        yield "tokens", (user, ("tokens", bucket, packed(table)))
    yield "lengths", tokens.lengths()


def encode_item_bucket(element: NamedBucket, layout: Layout) -> Iterator[Output]:
    """The records of a bucket of items, by shard."""
    bucket, (payload, _) = element
    batch, first = batch_of(payload), int(layout.starts[bucket, 0])
    for start in range(0, len(batch), CHUNK_ITEMS):
        records = list(encode_items(item_table(batch.slice(start, CHUNK_ITEMS))))
        total = int(layout.totals[0])
        yield from pieces(("items", "items"), total, ITEMS_PER_SHARD, first + start, records)
