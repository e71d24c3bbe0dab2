"""Capacities, loads and who takes part, swept in parts: the same as over all users at once."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from clue_jax.config import EncoderConfig, SamplingConfig
from clue_jax.data import capacity as capacities
from clue_jax.data.balance import user_loads
from clue_jax.data.capacity import capacity_for
from clue_jax.data.outline import Outline
from clue_jax.data.sampling import eligible_users
from tests.samples import sample_users

ENCODER = EncoderConfig(max_history=5, max_item_tokens=6, row_tokens=16, row_behaviours=8)


class InParts:
    """A table whose users are swept a few at a time."""

    def __init__(self, users, size):
        self.users, self.size, self.seen = users, size, 0
        self.services, self.take, self.gathered = users.services, users.take, users.gathered

    def __len__(self):
        return len(self.users)

    def outlines(self):
        for part in self.users.outlines(self.size):
            self.seen += 1
            yield part


def at_once(users, config, batch):
    """The bounds, by their definition over whole columns."""
    seen = np.minimum(users.counts(), config.max_history).sum(axis=1)
    lengths = np.minimum(np.diff(users.token_offsets), config.max_item_tokens)
    ids, first = np.unique(users.item_ids, return_index=True)
    tokens = [
        lengths[users.item_offsets[n] : users.item_offsets[n + 1]].sum() for n in range(len(users))
    ]
    most = lambda loads: int(np.sort(loads)[::-1][:batch].sum())  # noqa: E731
    items = min(most(np.minimum(np.diff(users.item_offsets), seen)), len(ids))
    longest = lengths.max(initial=1)
    return items, min(most(np.array(tokens)), items * longest, lengths[first].sum()), most(seen)


@hypothesis.given(
    st.integers(0, 99), st.integers(1, 40), st.integers(1, 30), st.sampled_from([3, 40, 4_000])
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_sweep_in_parts_is_one_over_all(seed, batch, size, catalogue):
    users = sample_users(40, seed=seed, catalogue=catalogue)
    parts = InParts(users, size)
    whole = capacity_for(users, ENCODER, batch, 2)
    assert capacity_for(parts, ENCODER, batch, 2) == whole
    assert whole.items == max(1, at_once(users, ENCODER, batch)[0])
    found = capacities._extremes(parts.outlines(), ENCODER, batch)
    distinct, tokens = capacities._catalogue(
        parts.outlines(), ENCODER.max_item_tokens, found.distinct, found.tokens
    )
    items = min(found.distinct, distinct)
    bounds = items, min(found.tokens, items * found.longest, tokens), found.behaviours
    assert bounds == at_once(users, ENCODER, batch)
    np.testing.assert_array_equal(user_loads(parts, ENCODER), user_loads(users, ENCODER))
    config = SamplingConfig(min_behaviours=2)
    rows = eligible_users(users, config)
    np.testing.assert_array_equal(eligible_users(parts, config), rows)
    assert capacity_for(parts, ENCODER, batch, 2, rows=rows) == capacity_for(
        users.take(rows), ENCODER, batch, 2
    )


def test_a_large_catalogue_is_not_remembered_whole():
    """Memory is that of a batch: the sweep of items ends once they cannot bound the buffers."""
    users = sample_users(400, seed=1, catalogue=5_000)
    table = InParts(users, 10)
    capacity_for(table, ENCODER, 4, 2)
    assert 40 < table.seen <= 45
    small = InParts(sample_users(400, seed=1, catalogue=5), 10)
    assert capacity_for(small, ENCODER, 4, 2).items <= 10
    assert small.seen > 45


def test_loads_are_of_capped_items_and_the_newest_behaviours():
    users = sample_users(30, seed=2)
    loads = user_loads(users, ENCODER)
    for n in range(len(users)):
        one = users.take([n])
        seen = np.minimum(one.counts(), 5).sum()
        tokens = np.minimum(np.diff(one.token_offsets), 6).sum()
        layers = ENCODER.item.num_layers + 1, ENCODER.service.num_layers + 1
        share = seen / max(1, one.counts().sum())
        assert loads[n] == pytest.approx(tokens * share * layers[0] + seen * layers[1])


def test_of_no_users_there_is_a_smallest_capacity():
    none = sample_users(3).take([])
    assert list(none.outlines()) == []
    assert capacity_for(none, ENCODER, 1, 2).items == 1
    assert len(eligible_users(none, SamplingConfig())) == 0


def test_a_selection_of_an_outline_is_the_outline_of_a_selection():
    users, rows = sample_users(20, seed=3), np.array([3, 4, 11, 19])
    (part,), (chosen,) = users.outlines(), users.take(rows).outlines()
    for name, values in vars(part.take(rows)).items():
        if name != "rows":
            np.testing.assert_array_equal(values, getattr(chosen, name))
    assert part.take(rows).rows.tolist() == rows.tolist()
    assert isinstance(part, Outline)
