"""Events -> users: grouped by user and service, dealt to splits, capped, with their items' tokens.

Every rule here is counted: users with too few behaviours are dropped, histories keep their newest
behaviours, items their first tokens. Behaviours of equal time keep their order of appearance.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from clue_jax.config import PrepareConfig, SplitConfig
from clue_jax.data.events import Events
from clue_jax.data.items import ItemTable
from clue_jax.data.ragged import offsets_of, ranges
from clue_jax.data.records import Users
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.errors import DataError

SPLITS = ("train", "validation", "test")


def hash64(*parts: str) -> int:
    """64 bits of BLAKE2b over the parts, joined by NUL."""
    joined = "\0".join(parts).encode("utf-8")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Histories:
    """N users in the order they are written: by split, within it by the hash of their id.

    Laid out like `Users`, with rows of `items` instead of identities and tokens.
    """

    items: ItemTable  # J, those that behaviours refer to
    user_ids: np.ndarray  # [N] str
    split_offsets: np.ndarray  # [4] int64: users of train, validation, test
    services: tuple[str, ...]
    item_rows: np.ndarray  # [I] int64 row of `items`, ascending within a user
    item_offsets: np.ndarray  # [N + 1]
    behaviour_items: np.ndarray  # [M] int32 index into the user's own items
    behaviour_times: np.ndarray  # [M] int64
    behaviour_offsets: np.ndarray  # [N * S + 1]
    dropped: dict[str, int]  # what the rules left out, by rule

    def counts(self) -> np.ndarray:
        """Behaviours [N, S] per user and service."""
        return np.diff(self.behaviour_offsets).reshape(-1, len(self.services))

    def training_items(self) -> np.ndarray:
        """Rows of `items` that users of the training split have, ascending."""
        return np.unique(self.item_rows[: self.item_offsets[self.split_offsets[1]]])


def group(events: Events, config: PrepareConfig) -> Histories:
    """Groups events into histories.

    Raises:
        DataError: a service or the training split is left without users.
    """
    width = len(events.services)
    users, dropped = _kept_users(events, config)
    order = np.lexsort((events.times, events.service, users))  # stable: equal times keep order
    order = order[np.searchsorted(users[order], 0) :]  # dropped users are -1
    ids, splits, rank = _deal(events, users, config.split)
    row = rank[users[order]] * width + events.service[order]
    again = np.argsort(row, kind="stable")
    order, row = order[again], row[again]
    counts = np.bincount(row, minlength=len(ids) * width)
    repeats = _repeats(events, order, row)
    newest = np.maximum(counts - config.max_history, 0)
    starts = offsets_of(counts)[:-1]
    stay = ranges(starts + newest, counts - newest)
    order, row, counts = order[stay], row[stay], counts - newest
    _check_services(events, counts.reshape(-1, width), config)
    items, item_row = _items(events, order)
    # One number per (user, item): items of a user in order of identity.
    pair = row // width * np.int64(len(items)) + item_row
    distinct, index = np.unique(pair, return_inverse=True)
    item_offsets = offsets_of(np.bincount(distinct // max(len(items), 1), minlength=len(ids)))
    dropped |= {
        "behaviours beyond max_history": int(newest.sum()),
        "histories cut to max_history": int((newest > 0).sum()),
    }
    return Histories(
        items=items,
        user_ids=ids,
        split_offsets=offsets_of(np.bincount(splits, minlength=len(SPLITS))),
        services=events.services,
        item_rows=distinct % max(len(items), 1),
        item_offsets=item_offsets,
        behaviour_items=(index - item_offsets[row // width]).astype(np.int32),
        behaviour_times=events.times[order],
        behaviour_offsets=offsets_of(counts),
        dropped={k: v for k, v in dropped.items() if v} | {"repeated behaviours (kept)": repeats},
    )


def _kept_users(events: Events, config: PrepareConfig) -> tuple[np.ndarray, dict[str, int]]:
    """User code [M] of each event, -1 where the user has too few behaviours."""
    behaviours = np.bincount(events.users, minlength=len(events.user_ids))
    few = behaviours < config.min_behaviours
    users = np.where(few[events.users], -1, events.users).astype(np.int64)
    present = few & (behaviours > 0)
    return users, {
        "users below min_behaviours": int(present.sum()),
        "behaviours of users below min_behaviours": int(behaviours[present].sum()),
    }


def _deal(
    events: Events, users: np.ndarray, config: SplitConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and splits of the users that stay, in their order; and each user code's place in it."""
    codes = np.unique(users[users >= 0])
    ids = events.user_ids[codes]
    given = events.splits[codes]
    splits = np.array(
        [SPLITS.index(g) if g else _split(i, config) for i, g in zip(ids, given, strict=True)],
        np.int64,
    )
    hashes = np.array([hash64("order", i) for i in ids], np.uint64)
    order = np.lexsort((ids.astype(str), hashes, splits))
    if not (splits == 0).any():
        raise DataError(
            f"no user of {len(ids)} is in the training split; check the split column or"
            f" config.split (validation={config.validation}, test={config.test})"
        )
    rank = np.full(len(events.user_ids), -1, np.int64)
    rank[codes[order]] = np.arange(len(order))
    return ids[order], splits[order], rank


def _split(user_id: str, config: SplitConfig) -> int:
    share = hash64(config.salt, user_id) / 2.0**64
    return 2 if share < config.test else 1 if share < config.test + config.validation else 0


def _repeats(events: Events, order: np.ndarray, row: np.ndarray) -> int:
    """How many behaviours have the user, service, time and text of another one before them."""
    time, text = events.times[order], events.text[order]
    sort = np.lexsort((text, time, row))
    columns = (row[sort], time[sort], text[sort])
    same = np.logical_and.reduce([c[1:] == c[:-1] for c in columns])
    return int(same.sum())


def _check_services(events: Events, counts: np.ndarray, config: PrepareConfig) -> None:
    for name, used in zip(events.services, counts.sum(axis=0), strict=True):
        if not used:
            raise DataError(
                f"service {name!r}: nobody uses it among the users with at least"
                f" config.min_behaviours={config.min_behaviours} behaviours; leave it out of"
                " `sources` or lower min_behaviours"
            )


def _items(events: Events, order: np.ndarray) -> tuple[ItemTable, np.ndarray]:
    """The distinct (service, text) of the events at `order`, and each event's row among them."""
    pair = events.service.astype(np.int64) * len(events.texts) + events.text
    appearance = np.sort(order)
    distinct, first = np.unique(pair[appearance], return_index=True)
    services = np.array(events.services, object)[distinct // len(events.texts)]
    texts = events.texts[distinct % len(events.texts)]
    identities = np.array([hash64(s, t) for s, t in zip(services, texts, strict=True)], np.uint64)
    by_identity = np.argsort(identities, kind="stable")
    identities = identities[by_identity]
    if (identities[1:] == identities[:-1]).any():
        where = int(np.argmax(identities[1:] == identities[:-1]))
        raise DataError(
            f"item {int(identities[where]):#018x}: two items share this 64-bit identity (one chance"
            " in many millions); change the text template slightly"
        )
    rank = np.empty(len(distinct), np.int64)
    rank[by_identity] = np.arange(len(distinct))
    # The id at the source is that of the first row with this text.
    source_ids = events.source_ids[events.source_id[appearance[first]]]
    columns = (column[by_identity] for column in (services, source_ids, texts))
    return ItemTable(identities, *columns), rank[np.searchsorted(distinct, pair[order])]


# -------------------------------------------------------------------------------------- tokens


@dataclass(frozen=True)
class ItemTokens:
    """Tokens of each row of an item table, guide first."""

    tokens: np.ndarray  # int32, end to end
    offsets: np.ndarray  # [J + 1] int64
    truncated: int  # items that lost tokens


def tokenize(items: ItemTable, tokenizer: Tokenizer, max_item_tokens: int) -> ItemTokens:
    """Encodes each distinct text once; an item keeps its first tokens, guide included."""
    # Object arrays of str: a dictionary finds the distinct ones faster than sorting.
    codes: dict[str, int] = {}
    text = np.array([codes.setdefault(t, len(codes)) for t in items.texts], np.int64)
    encoded = tokenizer.encode(list(codes))
    lengths = np.array([len(ids) for ids in encoded], np.int64)
    starts = offsets_of(lengths)[:-1]
    flat = np.concatenate([np.zeros(0, np.int32), *encoded])
    kept = np.minimum(lengths[text], max_item_tokens - 1)
    offsets = offsets_of(kept + 1)
    tokens = np.empty(offsets[-1], np.int32)
    guides = {service: tokenizer.guide(service) for service in set(items.services)}
    tokens[offsets[:-1]] = [guides[service] for service in items.services]
    tokens[ranges(offsets[:-1] + 1, kept)] = flat[ranges(starts[text], kept)]
    return ItemTokens(tokens, offsets, int((lengths[text] > kept).sum()))


def users_between(histories: Histories, tokens: ItemTokens, first: int, last: int) -> Users:
    """The users `first` to `last` in full."""
    width = len(histories.services)
    rows = histories.item_rows[slice(*histories.item_offsets[[first, last]])]
    cuts = histories.behaviour_offsets[first * width : last * width + 1]
    lengths = np.diff(tokens.offsets)[rows]
    return Users(
        user_ids=histories.user_ids[first:last],
        services=histories.services,
        item_ids=histories.items.item_ids[rows],
        item_offsets=histories.item_offsets[first : last + 1] - histories.item_offsets[first],
        tokens=tokens.tokens[ranges(tokens.offsets[rows], lengths)],
        token_offsets=offsets_of(lengths),
        behaviour_items=histories.behaviour_items[cuts[0] : cuts[-1]],
        behaviour_times=histories.behaviour_times[cuts[0] : cuts[-1]],
        behaviour_offsets=cuts - cuts[0],
    )
