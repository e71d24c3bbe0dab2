"""SASRec: it sees no later item, learns an order that popularity cannot, and stops in time."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.errors import DataError
from clue_jax.evaluation import next_item
from clue_jax.evaluation.next_item import Histories, read_histories, sasrec_ranks, train
from clue_jax.model import sasrec
from tests.samples import users_with

ITEMS, LENGTH = 12, 12
CONFIG = sasrec.SasRecConfig(ITEMS, width=16, layers=1, heads=2)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(next_item, "LENGTH", LENGTH)
    monkeypatch.setattr(next_item, "BATCH", 32)


def cycles(count, rng):
    """Users who go round the catalogue, each from somewhere: the next one is one more."""
    starts, lengths = rng.integers(ITEMS, size=count), rng.integers(4, 12, size=count)
    pairs = zip(starts, lengths, strict=True)
    return [((start + np.arange(length)) % ITEMS).tolist() for start, length in pairs]


class Catalogue:
    service = "service-0"

    def __len__(self):
        return ITEMS

    def entries(self, users, owner, places):
        own = users.item_offsets[owner] + users.behaviour_items[places]
        return users.item_ids[own].astype(int)


def users_of(histories):
    return users_with([[history, []] for history in histories], [np.array([5])] * ITEMS)


def test_histories_are_the_newest_oldest_first():
    long = [n % ITEMS for n in range(LENGTH + 7)]
    found = read_histories(users_of([[3, 1, 4], long]), Catalogue())
    assert found.length_A.tolist() == [3, LENGTH]
    assert found.entry_AT[0].tolist() == [3, 1, 4] + [ITEMS] * (LENGTH - 3)
    assert found.entry_AT[1].tolist() == long[-LENGTH:]


def test_a_place_does_not_see_later_ones():
    params = sasrec.init(CONFIG, jax.random.key(0))
    entry = np.random.default_rng(0).integers(0, ITEMS, (2, 8))
    other = entry.copy()
    other[:, 5:] = (other[:, 5:] + 1) % ITEMS
    target = jnp.zeros((2, 8), int)
    first, second = (
        np.asarray(sasrec.losses(CONFIG, params, jnp.asarray(e), target, None))
        for e in (entry, other)
    )
    np.testing.assert_allclose(first[:, :5], second[:, :5], rtol=1e-5)
    assert (np.abs(first[:, 5:] - second[:, 5:]) > 1e-4).all()


def test_it_learns_an_order(monkeypatch):
    rng = np.random.default_rng(0)
    histories = cycles(300, rng)
    users = users_of(histories)
    target = np.array([(history[-1] + 1) % ITEMS for history in histories[:50]])
    people = types.SimpleNamespace(everyone=users, config=types.SimpleNamespace(seed=0))
    monkeypatch.setattr(next_item.sasrec, "SasRecConfig", lambda items: CONFIG)
    ranks = sasrec_ranks(people, Catalogue(), np.arange(50), target, steps=200)
    assert ranks.mean() < 1.3, "by popularity it would be 6.5"


def test_what_is_kept_back_is_not_learnt_from():
    # All users end on item 7, which is nowhere else; those who keep it back must not teach it.
    rows = np.tile(np.array([1, 2, 3, 7]), (200, 1))
    entry = np.full((200, LENGTH), ITEMS, np.int32)
    entry[:, :4] = rows
    histories = Histories(entry, np.full(200, 4, np.int32))
    params = train(CONFIG, histories, np.ones(200, bool), steps=100, seed=0)
    logits = np.asarray(
        sasrec.next_logits(CONFIG, params, jnp.asarray(entry[:1]), jnp.asarray([2]))
    )
    assert logits[0].argmax() != 7
    half = np.arange(200) % 2 == 0
    params = train(CONFIG, histories, half, steps=100, seed=0)
    logits = np.asarray(
        sasrec.next_logits(CONFIG, params, jnp.asarray(entry[:1]), jnp.asarray([2]))
    )
    assert logits[0].argmax() == 7, "control"


def test_without_histories_it_says_so():
    empty = Histories(np.full((5, LENGTH), ITEMS, np.int32), np.ones(5, np.int32))
    with pytest.raises(DataError, match="too few users with two behaviours"):
        train(CONFIG, empty, np.arange(5) < 2, steps=5, seed=0)
