"""SASRec as a baseline of retrieval: trained for the one task, on the one service.

It reads what the export could see of all users of the dataset, and learns to tell each behaviour
from those before it. A tenth of the users, by hash, keep their last visible behaviour back to say
when to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clue_jax.data.hashing import hashes64
from clue_jax.data.ragged import ranges
from clue_jax.data.records import Users
from clue_jax.errors import DataError
from clue_jax.evaluation.catalogue import Catalogue
from clue_jax.evaluation.people import People
from clue_jax.model import sasrec
from clue_jax.ranking import ranks_of

LENGTH = 50  # newest behaviours of a history
BATCH, RATE, EVERY, PATIENCE = 128, 2e-3, 25, 4
LOGITS = 1 << 23  # of a batch, at most: a great catalogue has smaller batches
CHUNK = 512  # users whose logits are in memory at a time


@dataclass(frozen=True)
class Histories:
    """Newest entries of A users, oldest first, padded behind with C."""

    entry_AT: np.ndarray
    length_A: np.ndarray


def sasrec_ranks(
    people: People, catalogue: Catalogue, place_n: np.ndarray, target_n: np.ndarray, steps: int
) -> np.ndarray:
    """Rank of each right entry among the catalogue, [n].

    Args:
        people: whose visible behaviours are learnt from.
        catalogue: of the service.
        place_n: places of the users among the held-out ones.
        target_n: entries to be found.
        steps: of training, at most.

    Raises:
        DataError: nobody has two visible behaviours on the service.
    """
    histories = read_histories(people.everyone, catalogue)
    ids = people.everyone.user_ids.tolist()
    chosen = hashes64(f"stop\0{user_id}" for user_id in ids) % np.uint64(10) == 0
    config = sasrec.SasRecConfig(len(catalogue))
    params = train(config, histories, chosen, steps, people.config.seed)
    rank_n = np.empty(len(place_n))
    for first in range(0, len(place_n), CHUNK):
        rows = place_n[first : first + CHUNK]
        # Nobody's first behaviour is predicted from padding alone: place 0 then.
        last = np.maximum(histories.length_A[rows] - 1, 0)
        logits = sasrec.next_logits(
            config, params, jnp.asarray(histories.entry_AT[rows]), jnp.asarray(last)
        )
        rank_n[first : first + CHUNK] = ranks_of(
            np.asarray(logits, np.float64), target_n[first : first + CHUNK]
        )
    return rank_n


def read_histories(users: Users, catalogue: Catalogue) -> Histories:
    """The newest `LENGTH` behaviours of each user on the catalogue's service."""
    service = users.services.index(catalogue.service)
    ends = users.behaviour_offsets[service + 1 :: len(users.services)]
    length_A = np.minimum(users.counts()[:, service], LENGTH)
    owner = np.repeat(np.arange(len(users)), length_A)
    behaviours = ranges(ends - length_A, length_A)
    column = ranges(np.zeros(len(users), np.int64), length_A)
    entry_AT = np.full((len(users), LENGTH), len(catalogue), np.int32)
    entry_AT[owner, column] = catalogue.entries(users, owner, behaviours)
    return Histories(entry_AT, length_A.astype(np.int32))


def train(
    config: sasrec.SasRecConfig, histories: Histories, chosen_A: np.ndarray, steps: int, seed: int
) -> sasrec.Params:
    """Parameters with the least loss on the last behaviour of the chosen users."""
    length_A = histories.length_A
    fit = np.flatnonzero(length_A - chosen_A >= 2)
    choose = np.flatnonzero(chosen_A & (length_A >= 2))
    if not len(fit) or not len(choose):
        raise DataError("sasrec: too few users with two behaviours on the service that are visible")
    size = max(1, min(BATCH, LOGITS // (LENGTH * config.items)))
    rng, key = np.random.default_rng([seed, 11]), jax.random.key(seed)
    params = sasrec.init(config, key)
    adam = optax.adamw(RATE, weight_decay=1e-3)
    state = adam.init(params)

    @jax.jit
    def step(params: Any, state: Any, batch: Any, key: jax.Array) -> tuple[Any, Any]:
        grads = jax.grad(lambda p: _mean(config, p, batch, key))(params)
        updates, state = adam.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    choose = choose[: 4 * size]
    validation = _batch(histories, choose, length_A - 2, length_A - 2)
    best, least, since = params, np.inf, 0
    for number in range(1, steps + 1):
        rows = rng.choice(fit, size=size)
        batch = _batch(histories, rows, np.zeros_like(length_A), length_A - 2 - chosen_A)
        params, state = step(params, state, batch, jax.random.fold_in(key, number))
        if number % EVERY == 0 or number == steps:
            now = float(_mean(config, params, validation, None))
            best, least, since = (params, now, 0) if now < least else (best, least, since + 1)
            if since == PATIENCE:
                break
    return best


def _batch(
    histories: Histories, rows: np.ndarray, first_A: np.ndarray, last_A: np.ndarray
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Entries, next entries and the places that count: those from first to last."""
    entry = histories.entry_AT[rows]
    place_T = np.arange(LENGTH - 1)[None, :]
    counts = (place_T >= first_A[rows, None]) & (place_T <= last_A[rows, None])
    target = np.where(counts, entry[:, 1:], 0)
    return (
        jnp.asarray(entry[:, :-1]),
        jnp.asarray(target),
        jnp.asarray(counts.astype(np.float32)),
    )


def _mean(
    config: sasrec.SasRecConfig, params: sasrec.Params, batch: Any, key: jax.Array | None
) -> jax.Array:
    entry_BT, target_BT, counts_BT = batch
    found_BT = sasrec.losses(config, params, entry_BT, target_BT, key)
    return (found_BT * counts_BT).sum() / jnp.maximum(counts_BT.sum(), 1.0)
