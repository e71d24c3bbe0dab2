"""(seed, step) -> the views of the users of a batch: pure functions of their arguments.

Nothing here keeps state: step `k` of a run is the same on any number of hosts, after any restart.
Every random choice is a hash of (seed, purpose, step, identity), so it does not depend on order,
packing or sharding either.

Whom a step draws: strata.py. Which views are positives of each other: pairs.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.config import Parts, SamplingConfig
from clue_jax.data.keyed import (
    BLOCK,
    CUT,
    GUIDE,
    KEEP,
    PART,
    SINGLE,
    TOKEN,
    hash64,
    int32_of,
    multiset_hash,
    uniform,
)
from clue_jax.data.pairs import num_views
from clue_jax.data.ragged import ranges, row_sums, run_starts
from clue_jax.data.records import Users


@dataclass(frozen=True)
class Views:
    """Histories of `N` users in `V` views, as flat arrays.

    `items[offsets[n * V + v]:offsets[n * V + v + 1]]` are positions in the users' `item_ids`,
    oldest first, of view `v` of user `n`, and `times` when they were (records.Users).
    """

    num_views: int
    items: np.ndarray
    times: np.ndarray
    offsets: np.ndarray


# ----------------------------------------------------------------------------------------- views


def history_length(config: SamplingConfig, longest: int, step: int) -> int:
    """T of a step: behaviours in a view at most, `longest` once the schedule has ended."""
    schedule = config.history_schedule
    if step >= schedule.steps:
        return longest
    return schedule.start + (longest - schedule.start) * step // schedule.steps


def training_views(
    users: Users, identities: np.ndarray, config: SamplingConfig, length: int, seed: int, step: int
) -> Views:
    """Draws the views of the users of a batch.

    Args:
        users: N users.
        identities: [N] integers that stay with a user, whatever the batch (its index).
        config: how views are drawn.
        length: T, behaviours in one view at most; the newest stay.
        seed: of the run.
        step: of the run; below `config.item_steps` a view is a single item of the history.
    """
    counts = users.counts().reshape(-1)
    services = len(users.services)
    takes_part_S = [not config.services or name in config.services for name in users.services]
    enough = (counts >= config.min_behaviours) & np.tile(takes_part_S, len(users))
    entries, rows, ages = _recent(users, np.where(enough, length, 0))
    histories = (
        seed,
        step,
        np.repeat(identities, services),
        np.tile(np.arange(services), len(users)),
    )

    def shared(purpose: int) -> np.ndarray:
        """What the words of the entries of a history have in common."""
        return hash64(purpose, *histories)[rows]

    kept = uniform(ages, start=shared(KEEP)) < config.behaviours_kept
    # A view is never emptied by chance: its newest behaviour stays when all the others go.
    any_kept = np.bincount(rows[kept], minlength=len(counts)) > 0
    kept |= (ages == 0) & ~any_kept[rows]
    views = num_views(services, config)
    view_rows = [(rows // services * views + rows % services)[kept]]
    chosen = [np.flatnonzero(kept)]
    if config.within_service_weight > 0:
        if config.parts is Parts.RANDOM:
            part, halved = _halves(rows, hash64(ages, start=shared(PART)))
        else:
            part, halved = _windows(rows, ages, uniform(CUT, *histories)[rows])
        first_part = rows // services * views + services + 2 * (rows % services)
        view_rows.append((first_part + part)[halved])
        chosen.append(np.flatnonzero(halved))
    row, picked = np.concatenate(view_rows), np.concatenate(chosen)
    if step < config.item_steps:
        one = _one_of_each(row, hash64(ages, start=shared(SINGLE))[picked])
        row, picked = row[one], picked[one]
    return _views(users, entries[picked], row, views)


def full_views(users: Users, length: int) -> Views:
    """One view per service, of the newest `length` behaviours: what inference encodes."""
    entries, rows, _ = _recent(users, np.full(len(users) * len(users.services), length))
    return _views(users, entries, rows, len(users.services))


def view_keys(users: Users, views: Views) -> np.ndarray:
    """What is in each view as an int32 [N, V]: views of the same items have the same key.

    Order does not count, repetition does. A bag of items gives such views one vector, so no model
    of that kind can tell the positive from such a negative; and behaviours of one basket or second
    have no order of their own, so that it says little of who somebody is.

    Different views collide with probability 2^-32. Of a million negatives an anchor then misses one
    in 4,000 batches, for each key; what is lost is a random negative, never a positive.

    Users of one dataset need no key of their own: a batch holds nobody twice, since they are drawn
    without replacement, never across the end of an epoch, and have one record each (strata.py).
    Of several datasets somebody may have a record in each: mixture.user_keys.
    """
    words = multiset_hash(users.item_ids[views.items], views.offsets)
    return int32_of(words).reshape(len(users), views.num_views)


def _recent(users: Users, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The newest `lengths[row]` behaviours of each row (user * S + service), oldest first.

    Returns:
        Flat behaviour indices, their rows, and their ages (0 is the newest of its row).
    """
    end = users.behaviour_offsets[1:]
    size = np.minimum(np.diff(users.behaviour_offsets), lengths)
    rows = np.repeat(np.arange(len(size)), size)
    ages = np.repeat(np.cumsum(size), size) - 1 - np.arange(size.sum())
    return end[rows] - 1 - ages, rows, ages


def _halves(rows: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits each row's entries at random into two parts as equal as can be.

    Returns:
        The part (0 or 1) of each entry, and whether its row has two entries or more.
    """
    order = np.lexsort((words, rows))
    sizes = np.bincount(rows, minlength=1)
    starts = np.cumsum(sizes) - sizes
    part = np.empty(len(rows), np.int64)
    part[order] = (np.arange(len(rows)) - starts[rows[order]]) % 2
    return part, sizes[rows] >= 2


def _windows(
    rows: np.ndarray, ages: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Splits each row's entries at a point in time: part 0 is older than part 1.

    The cut lies anywhere from a quarter to three quarters of the row: a part of few behaviours says
    little of its user, and a cut that never moved would teach one moment alone.

    Args:
        rows: [M] of each entry.
        ages: [M] of each entry in its row, 0 the newest.
        draws: [M] uniform in [0, 1), one value for all entries of a row.

    Returns:
        The part (0 or 1) of each entry, and whether its row has two entries or more.
    """
    sizes = np.bincount(rows, minlength=1)[rows]
    least, most = -(-sizes // 4), 3 * sizes // 4  # of two or more: at least 1, at most size - 1
    older = least + (draws * (most - least + 1)).astype(np.int64)
    return (ages < sizes - older).astype(np.int64), sizes >= 2


def _one_of_each(rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Indices of one entry per row, drawn by its hash."""
    order = np.lexsort((words, rows))
    return order[run_starts(rows[order])]


def _views(users: Users, entries: np.ndarray, rows: np.ndarray, views: int) -> Views:
    order = np.argsort(rows, kind="stable")
    entries, rows = entries[order], rows[order]
    items = users.item_offsets[rows // views] + users.behaviour_items[entries]
    sizes = np.bincount(rows, minlength=len(users) * views)
    times = users.behaviour_times[entries]
    return Views(views, items, times, np.concatenate([[0], np.cumsum(sizes)]))


# --------------------------------------------------------------------------------- items' tokens


def token_draws(
    item_ids: np.ndarray, lengths: np.ndarray, config: SamplingConfig, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of a batch's items stay, and which items get the generic guide token.

    Args:
        item_ids: [U] identities; an item is drawn alike wherever it occurs in a batch.
        lengths: [U] tokens of each item, guide included.
        config: token_dropout and generic_guide.
        seed: of the run.
        step: of the run.

    Returns:
        kept: [sum(lengths)] bool; the guide and one more token always stay.
        generic: [U] bool.
    """
    kept = np.ones(int(lengths.sum()), bool)
    if config.token_dropout:
        place = ranges(np.zeros(len(lengths), np.int64), lengths)
        words = uniform(place, start=np.repeat(hash64(TOKEN, seed, step, item_ids), lengths))
        kept = (words >= config.token_dropout) | (place == 0)
        bare = row_sums(kept, lengths) < 2
        kept |= (place == 1) & np.repeat(bare, lengths)
    return kept, uniform(GUIDE, seed, step, item_ids) < config.generic_guide


def block_draws(
    config: SamplingConfig, seed: int, step: int, num_layers: int, *identity: np.ndarray
) -> np.ndarray:
    """Which blocks of the encoder each item or view skips: uint32, bit l for block l.

    Args:
        config: layer_dropout.
        seed: of the run.
        step: of the run.
        num_layers: at most 32.
        identity: arrays [U] that together stay with an item or a view.
    """
    layers = np.arange(num_layers)
    keys = (key[:, None] for key in identity)
    skipped = uniform(BLOCK, seed, step, *keys, layers) < config.layer_dropout
    return (skipped.astype(np.uint32) << layers.astype(np.uint32)).sum(axis=1, dtype=np.uint32)
