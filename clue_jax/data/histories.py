"""Behaviours of a range of users -> histories: by user and service, dealt to splits, capped.

Every rule here is counted: users with too few or too many behaviours are dropped, histories keep
their newest behaviours. Behaviours of equal time keep their order of appearance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clue_jax.config import PrepareConfig, SplitConfig
from clue_jax.data.behaviour_rows import Counts, Rows
from clue_jax.data.hashing import hashes64
from clue_jax.data.intake import two_splits
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.ragged import distinct, offsets_of, ranges
from clue_jax.errors import DataError


@dataclass(frozen=True)
class People:
    """Distinct users of a range, in order of the hash of their id."""

    hashes: np.ndarray  # [N] uint64
    ids: np.ndarray  # [N] str (object)
    splits: np.ndarray  # [N] int8 as the logs say, -1 where none does


@dataclass(frozen=True)
class Histories:
    """N users in the order they are written: by split, within it by the hash of their id.

    Laid out like `records.Users`, with rows of the range's own items instead of identities.
    """

    user_ids: np.ndarray  # [N] str (object)
    split_counts: np.ndarray  # [3] int64: users of train, validation, test
    identities: np.ndarray  # [D] uint64, ascending: the items that behaviours refer to
    first_rows: np.ndarray  # [D] int64, number of the first behaviour with the item
    entries: np.ndarray  # [D] int64, its row of the catalogue
    training: np.ndarray  # [D] bool, whether a training user has the item
    item_rows: np.ndarray  # [I] int32 into the D items, ascending within a user
    item_offsets: np.ndarray  # [N + 1] int64
    behaviour_items: np.ndarray  # [M] int32 index into the user's own items
    behaviour_times: np.ndarray  # [M] int64
    behaviour_offsets: np.ndarray  # [N * S + 1] int64
    dropped: Counter[str]  # what the rules left out, by rule
    repeats: int  # behaviours with the user, service, time and text of another, and kept


def people(table: pa.Table, files: Sequence[tuple[str, str]]) -> People:
    """Merges what the logs say of each user.

    Args:
        table: rows of `Taken.users`.
        files: of each unit, name and column of splits.

    Raises:
        DataError: a user in two splits, by file and row; or two users of one hash.
    """
    if not len(table):
        return People(np.zeros(0, np.uint64), np.zeros(0, object), np.zeros(0, np.int8))
    hashes, splits = table["user"].to_numpy(), table["split"].to_numpy()
    order = np.lexsort((table["line"].to_numpy(), table["unit"].to_numpy(), hashes))
    hashes, splits = hashes[order], splits[order]
    ids = table["id"].combine_chunks().take(pa.array(order))
    same = hashes[1:] == hashes[:-1]
    differ = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    if (same & differ).any():
        one = int(np.argmax(same & differ))
        raise DataError(
            f"users {ids[one].as_py()!r} and {ids[one + 1].as_py()!r}: their ids share a 64-bit"
            " hash (one chance in many millions); leave one of them out with a `keep` rule"
        )
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    known = np.maximum.reduceat(splits, starts)
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(hashes))))
    conflict = (splits >= 0) & (splits != known[owner])
    if conflict.any():
        # Of all that the logs say of this user, the first that is not what was said before.
        mine = np.flatnonzero((owner == owner[np.argmax(conflict)]) & (splits >= 0))
        later = order[mine[np.argmax(splits[mine] != splits[mine[0]])]]
        file, column = files[table["unit"][later].as_py()]
        raise two_splits(file, table["line"][later].as_py(), column)
    distinct = ids.take(pa.array(starts)).to_pylist()
    return People(hashes[starts], np.array(distinct, object), known)


def group(
    rows: Rows,
    counts: Counts,
    people: People,
    config: PrepareConfig,
    width: int,
    behaviours: int,
) -> Histories:
    """Groups the behaviours of a range of users into histories.

    Args:
        rows, counts: of `behaviour_rows.read_rows`.
        people: has the users of `rows` at least.
        config: the rules.
        width: S, services of the dataset.
        behaviours: of all users of the logs, repeats included.
    """
    user = np.searchsorted(people.hashes, counts.user)
    stays, dropped = _stays(user, counts, len(people.hashes), config, behaviours)
    repeats = counts.behaviours - counts.distinct
    if config.drop_repeats:  # the first rule, so also of users that others drop
        dropped["repeated behaviours"] = int(repeats.sum())
    kept = np.unique(user[stays])
    splits = _splits(people.ids[kept], people.splits[kept], config.split)
    by_split = np.argsort(splits, kind="stable")  # the hash orders users within a split
    kept = kept[by_split]
    rank = np.full(len(people.hashes), -1)
    rank[kept] = np.arange(len(kept))

    place = rank[user] * width + counts.service
    chosen = np.flatnonzero(stays)
    chosen = chosen[np.argsort(place[chosen])]
    starts = rows.histories()
    lengths = np.diff(np.append(starts, len(rows)))
    newest = np.minimum(lengths, config.max_history)
    rows = rows.take(ranges((starts + lengths - newest)[chosen], newest[chosen]))
    history_lengths = np.zeros(len(kept) * width, np.int64)
    history_lengths[place[chosen]] = newest[chosen]
    before = counts.distinct if config.drop_repeats else counts.behaviours
    cut = (before - newest)[chosen]
    dropped["behaviours beyond max_history"] = int(cut.sum())
    dropped["histories cut to max_history"] = int((cut > 0).sum())
    owner = np.repeat(rank[user[chosen]], newest[chosen])
    split_counts = np.bincount(splits, minlength=len(SPLITS))
    return Histories(
        user_ids=people.ids[kept],
        split_counts=split_counts,
        behaviour_times=rows.time,
        behaviour_offsets=offsets_of(history_lengths),
        dropped=+dropped,
        repeats=0 if config.drop_repeats else int(repeats[stays].sum()),
        **_items(rows, owner, len(kept), int(split_counts[0])),
    )


def _stays(
    user: np.ndarray, counts: Counts, users: int, config: PrepareConfig, behaviours: int
) -> tuple[np.ndarray, Counter[str]]:
    """Which histories [K] stay, and what the rules drop: users of too many behaviours, then short
    histories, then users of too few behaviours in those left."""
    sizes = counts.distinct if config.drop_repeats else counts.behaviours

    def per_user(stays: np.ndarray) -> np.ndarray:
        return np.bincount(user, sizes * stays, minlength=users).astype(np.int64)

    dropped: Counter[str] = Counter()
    stays = np.ones(len(user), bool)
    most = {"max_behaviours": config.max_behaviours or np.inf}
    most["max_user_share"] = config.max_user_share * behaviours
    for rule, limit in most.items():
        total = per_user(stays)
        many = total > limit
        dropped[f"users above {rule}"] = int(many.sum())
        dropped[f"behaviours of users above {rule}"] = int(total[many].sum())
        stays &= ~many[user]
    short = stays & (sizes < config.min_service_behaviours)
    dropped["histories below min_service_behaviours"] = int(short.sum())
    dropped["behaviours of histories below min_service_behaviours"] = int(sizes[short].sum())
    present = per_user(stays) > 0
    stays &= ~short
    total = per_user(stays)
    few = present & (total < config.min_behaviours)
    dropped["users below min_behaviours"] = int(few.sum())
    dropped["behaviours of users below min_behaviours"] = int(total[few].sum())
    return stays & ~few[user], dropped


def _splits(ids: np.ndarray, given: np.ndarray, config: SplitConfig) -> np.ndarray:
    """Position in SPLITS of each user: as given, or by the hash of salt and id."""
    share = hashes64(f"{config.salt}\0{user}" for user in ids) / 2.0**64
    dealt = np.where(share < config.test + config.validation, 1, 0)
    dealt = np.where(share < config.test, 2, dealt)
    return np.where(given >= 0, given, dealt).astype(np.int64)


def _items(rows: Rows, owner: np.ndarray, users: int, training_users: int) -> dict[str, np.ndarray]:
    """The items of histories whose behaviours belong to users `owner` [M], ascending."""
    identities, _, local = distinct(rows.item)
    # One number per (user, item): items of a user in order of identity.
    pair = owner * np.int64(len(identities)) + local
    pairs, _, index = distinct(pair)
    item_offsets = offsets_of(np.bincount(pairs // max(len(identities), 1), minlength=users))
    first_rows = np.full(len(identities), np.iinfo(np.int64).max)
    np.minimum.at(first_rows, local, rows.row)
    entries = np.zeros(len(identities), np.int64)
    first = rows.row == first_rows[local]
    entries[local[first]] = rows.entry[first]
    in_training = local[owner < training_users]
    return {
        "identities": identities,
        "first_rows": first_rows,
        "entries": entries,
        "training": np.bincount(in_training, minlength=len(identities)) > 0,
        "item_rows": (pairs % max(len(identities), 1)).astype(np.int32),
        "item_offsets": item_offsets,
        "behaviour_items": (index - item_offsets[owner]).astype(np.int32),
    }
