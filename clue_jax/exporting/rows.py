"""What an export has a row for: users, or items, in which part and in what order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.composition import combine
from clue_jax.config import EncoderConfig, ExportConfig, ExportWhat, epoch_seconds
from clue_jax.data.id_list import IdList
from clue_jax.data.item_tokens import tokenize
from clue_jax.data.items import ItemTable
from clue_jax.data.ragged import offsets_of, row_sums
from clue_jax.data.recency import service_weights
from clue_jax.data.records import Users, concatenate, visible
from clue_jax.data.source import Dataset
from clue_jax.data.suppressed import among
from clue_jax.embeddings.layout import item_shards, user_shards
from clue_jax.embeddings.schema import item_table, user_table
from clue_jax.errors import DataError

FEWEST_PARTS, MOST_ROWS = 8, 100_000  # where the number of parts is left to us


@dataclass(frozen=True)
class Rows:
    """What an export has a row for.

    Attributes:
        users: whose histories are encoded, a row each.
        parts: rows of `users` in each part, in the order of the part.
        table: of some of them: indices, z_NSE, present_NS, model version -> its rows.
        left_out: users of the splits without a behaviour that may be seen.
        suppressed: users of the splits who are on the suppression list.
    """

    users: Users
    parts: list[np.ndarray]
    table: Callable[[np.ndarray, np.ndarray, np.ndarray, str], pa.Table]
    left_out: int
    suppressed: int = 0


def rows_of(
    config: ExportConfig, dataset: Dataset, encoder: EncoderConfig, suppressed: IdList | None
) -> Rows:
    """The rows of an export of a dataset, without those of a suppression list.

    Raises:
        DataError: a user who is there twice, or never did anything, or nobody has a behaviour that
            may be seen; names it.
    """
    if config.what is ExportWhat.ITEMS:
        return _item_rows(config, dataset)
    return _user_rows(config, dataset, encoder, suppressed)


def _parts_of(config: ExportConfig, shards: Callable[[int], np.ndarray], order: np.ndarray) -> list:
    """Rows of each part; `shards` gives the part of each row, of so many parts."""
    count = config.num_shards or max(FEWEST_PARTS, math.ceil(len(order) / MOST_ROWS))
    shards_N = shards(count)[order]
    by_part = order[np.argsort(shards_N, kind="stable")]
    return np.split(by_part, np.cumsum(np.bincount(shards_N, minlength=count))[:-1])


# ----------------------------------------------------------------------------------------- users


def _user_rows(
    config: ExportConfig, dataset: Dataset, encoder: EncoderConfig, suppressed: IdList | None
) -> Rows:
    everyone = [dataset.users(split) for split in config.splits]
    split_N = np.repeat(np.array(config.splits, object), [len(users) for users in everyone])
    users = concatenate(everyone, dataset.services)
    _refuse_odd(dataset, users, split_N)
    listed_N = _listed(config, users, suppressed)
    if listed_N.any():
        users, split_N = users.take(np.flatnonzero(~listed_N)), split_N[~listed_N]
    cutoff = epoch_seconds(config.cutoff) if config.cutoff else None
    start = epoch_seconds(config.start) if config.start else None
    users = visible(users, cutoff, config.hold_out_last, start, config.newest)
    seen = np.flatnonzero(users.counts().sum(axis=1))
    left_out = len(users) - len(seen)
    if not len(seen):
        raise DataError(
            f"{dataset.path}: none of {left_out:,} users has a behaviour that may be seen with"
            f" start={config.start!r}, cutoff={config.cutoff!r} and"
            f" hold_out_last={config.hold_out_last}"
        )
    users, split_N = users.take(seen), split_N[seen]
    counts_NS = users.counts()
    tokens_NS, truncated_N = volume(users, encoder)
    half_life = config.half_life_days
    weight_NS = service_weights(users, half_life) if half_life else np.ones(counts_NS.shape)
    first_N, last_N = _first_and_last(users) if dataset.has_times else (None, None)
    event_N = np.full(len(users), cutoff) if cutoff is not None else last_N

    def table(
        rows: np.ndarray, z_NSE: np.ndarray, present_NS: np.ndarray, model_version: str
    ) -> pa.Table:
        return user_table(
            user_ids=users.user_ids[rows],
            splits=split_N[rows],
            services=users.services,
            embedding_NE=combine(z_NSE, present_NS * weight_NS[rows]),
            z_NSE=z_NSE,
            counts_NS=counts_NS[rows],
            tokens_NS=tokens_NS[rows],
            truncated_N=truncated_N[rows],
            first_N=None if first_N is None else first_N[rows],
            last_N=None if last_N is None else last_N[rows],
            event_N=None if event_N is None else event_N[rows],
            model_version=model_version,
            precision=config.precision,
        )

    # Arrow compares strings by their bytes.
    order = np.asarray(pc.sort_indices(pa.array(users.user_ids, pa.large_string())))
    parts = _parts_of(config, lambda count: user_shards(users.user_ids, count), order)
    return Rows(users, parts, table, left_out, suppressed=int(listed_N.sum()))


def _listed(config: ExportConfig, users: Users, suppressed: IdList | None) -> np.ndarray:
    """[N] whether a user is on the suppression list.

    Raises:
        DataError: everybody is.
    """
    if suppressed is None:
        return np.zeros(len(users), bool)
    listed_N = among(users.user_ids, suppressed.ids)
    if listed_N.all():
        raise DataError(
            f"{config.suppress}: all {len(users):,} users of {'+'.join(config.splits)} are on the"
            " suppression list; there is nobody to export"
        )
    return listed_N


def _refuse_odd(dataset: Dataset, users: Users, split_N: np.ndarray) -> None:
    """Raises DataError for a user who is there twice or without any behaviour; `prepare` makes
    neither."""
    counts = pc.value_counts(pa.array(users.user_ids, pa.large_string()))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        user_id = repeated[0].as_py()
        rows = np.flatnonzero(users.user_ids == user_id)
        splits = ", ".join(dict.fromkeys(split_N[rows].tolist()))
        raise DataError(
            f"{dataset.path}: user {user_id!r} is there {len(rows)} times, in {splits}; a user may"
            " have one embedding: prepare the data again"
        )
    empty = np.flatnonzero(users.counts().sum(axis=1) == 0)
    if len(empty):
        row = int(empty[0])
        raise DataError(
            f"{dataset.path}: user {users.user_ids[row]!r} of {split_N[row]} has no behaviour"
            f" at all ({len(empty):,} such users), so nothing to encode: prepare the data again"
        )


def volume(users: Users, encoder: EncoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """How much there is of each user, and whether the encoder leaves some of it out.

    Returns:
        tokens_NS of the behaviours of each service, repeated items counted as often; truncated_N.
    """
    counts_NS = users.counts()
    lengths_M = np.diff(users.token_offsets)[users.item_rows()]
    tokens_NS = row_sums(lengths_M, counts_NS.ravel()).reshape(counts_NS.shape)
    longer_N = row_sums(lengths_M > encoder.max_item_tokens, counts_NS.sum(axis=1)) > 0
    return tokens_NS, longer_N | (counts_NS > encoder.max_history).any(axis=1)


def _first_and_last(users: Users) -> tuple[np.ndarray, np.ndarray]:
    """Epoch seconds of each user's first and last behaviour; every user has one."""
    starts = users.behaviour_offsets[: -1 : len(users.services)]
    times = users.behaviour_times
    return np.minimum.reduceat(times, starts), np.maximum.reduceat(times, starts)


# ----------------------------------------------------------------------------------------- items


def _item_rows(config: ExportConfig, dataset: Dataset) -> Rows:
    """An item's vector is that of a history of this one item: it lies in the users' space."""
    items = dataset.items()

    def table(
        rows: np.ndarray, z_NSE: np.ndarray, present_NS: np.ndarray, model_version: str
    ) -> pa.Table:
        return item_table(
            item_ids=items.item_ids[rows],
            source_ids=items.source_ids[rows],
            services=items.services[rows],
            embedding_JE=z_NSE[:, 0],
            model_version=model_version,
            precision=config.precision,
        )

    # The table of items is in order of identity already.
    parts = _parts_of(
        config, lambda count: item_shards(items.item_ids, count), np.arange(len(items))
    )
    return Rows(_history_of_each(items, dataset), parts, table, left_out=0)


def _history_of_each(items: ItemTable, dataset: Dataset) -> Users:
    services = pa.array(items.services, pa.large_string())
    texts = pa.array(items.texts, pa.large_string())
    most = dataset.manifest["max_item_tokens"]
    tokens = tokenize(services, texts, dataset.tokenizer, most)
    one_each = offsets_of(np.ones(len(items), np.int64))
    return Users(
        user_ids=items.item_ids.astype(str).astype(object),
        services=("item",),
        item_ids=items.item_ids,
        item_offsets=one_each,
        tokens=tokens.tokens,
        token_offsets=tokens.offsets,
        behaviour_items=np.zeros(len(items), np.int32),
        behaviour_times=np.zeros(len(items), np.int64),
        behaviour_offsets=one_each,
    )
