"""Capacities, loads and who takes part, swept in parts: the same as over all users at once."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from clue_jax.config import EncoderConfig, PairWeight, PretrainConfig, SamplingConfig
from clue_jax.data import capacity as capacities
from clue_jax.data.candidates import candidates
from clue_jax.data.capacity import Extremes, capacity_for, capacity_of, extremes
from clue_jax.data.outline import Outline
from tests.samples import sample_users

ENCODER = EncoderConfig(max_history=5, max_item_tokens=6, row_tokens=16, row_behaviours=8)


def swept_for(users, batch=4, services=None, **sampling):
    config = PretrainConfig(encoder=ENCODER, sampling=SamplingConfig(**sampling))
    return candidates(users, services or users.services, config, batch)


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
    found = Extremes()
    for part in parts.outlines():
        found = found.merge(extremes(part, ENCODER), batch)
    heaviest = [int(loads.sum()) for loads in found.heaviest]
    distinct, tokens = capacities._catalogue(
        parts.outlines(), ENCODER.max_item_tokens, *heaviest[:2]
    )
    items = min(heaviest[0], distinct)
    bounds = items, min(heaviest[1], items * found.longest, tokens), heaviest[2]
    assert bounds == at_once(users, ENCODER, batch)
    swept, whole = (swept_for(table, batch, min_behaviours=2) for table in (parts, users))
    for one, other in zip(vars(swept).values(), vars(whole).values(), strict=True):
        if one is parts or isinstance(one, Extremes):
            continue
        np.testing.assert_array_equal(one, other)
    sizes = ENCODER, batch, 2
    assert capacity_of(swept.extremes, swept.outlines(), *sizes) == capacity_for(
        users.take(whole.members["row"]), *sizes
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
    members = swept_for(users).members
    assert 10 < len(members) < 30
    for n, load in members.tolist():
        one = users.take([n])
        seen = np.minimum(one.counts(), 5).sum()
        tokens = np.minimum(np.diff(one.token_offsets), 6).sum()
        layers = ENCODER.item.num_layers + 1, ENCODER.service.num_layers + 1
        share = seen / max(1, one.counts().sum())
        assert load == pytest.approx(tokens * share * layers[0] + seen * layers[1])


def test_of_no_users_there_is_a_smallest_capacity():
    none = sample_users(3).take([])
    assert list(none.outlines()) == []
    assert capacity_for(none, ENCODER, 1, 2).items == 1
    found = swept_for(none)
    assert len(found.members) == 0 and not found.pairs and list(found.outlines()) == []


def test_of_no_more_than_so_many_users_the_heaviest_are_fewer():
    users = sample_users(40, seed=5)
    (whole,) = users.outlines()
    found = extremes(whole, ENCODER)
    most = found.merge(Extremes(), 7).of(3)
    for loads, all_loads in zip(most.heaviest, found.heaviest, strict=True):
        assert loads.tolist() == sorted(all_loads.tolist(), reverse=True)[:3]
    assert (most.longest, most.widest) == (found.longest, found.widest)


# ------------------------------------------------------------------------------------ who is drawn

USERS = sample_users(60, seed=1)


def rows_of(users, **sampling):
    return swept_for(users, **sampling).members["row"].tolist()


@pytest.mark.parametrize("least", [1, 3])
def test_those_may_be_drawn_who_have_a_positive_pair(least):
    enough = USERS.counts() >= least
    rows = rows_of(USERS, min_behaviours=least)
    assert rows == np.flatnonzero(enough.all(axis=1)).tolist()
    one_service = (enough & (USERS.counts() >= 2)).any(axis=1)
    assert (
        rows_of(USERS, min_behaviours=least, within_service_weight=0.5)
        == np.flatnonzero(enough.all(axis=1) | one_service).tolist()
    )
    assert not one_service.all() and one_service.any()


def test_no_more_than_so_many_are_drawn_and_each_number_is_of_the_next():
    everyone = rows_of(USERS)
    for most in (1, 5, len(everyone) - 1):
        assert rows_of(USERS, most_users=most) == everyone[:most]
        assert rows_of(InParts(USERS, 4), most_users=most) == everyone[:most]
    for most in (0, len(everyone), 1_000):
        assert rows_of(USERS, most_users=most) == everyone
    # Nor are they counted where nobody else has a pair.
    services = sample_users(60, ("search", "shop", "news"), seed=1, empty=0.6)
    (first,) = rows_of(services, most_users=1)
    present = services.counts()[first] > 0
    found = swept_for(services, most_users=1).pairs
    assert found == {(a, b) for a, b in swept_for(services).pairs if present[a] and present[b]}


def test_who_has_but_pairs_of_no_weight_is_not_drawn():
    users = sample_users(60, ("search", "shop", "news"), seed=1, empty=0.4)
    has = users.counts() > 0
    with_shop = has[:, 1] & (has[:, 0] | has[:, 2])
    rows = rows_of(users, pair_weights=(PairWeight("news", "search", 0.0),))
    assert rows == np.flatnonzero(with_shop).tolist()
    assert len(rows_of(users)) > with_shop.sum()


def test_pairs_that_somebody_has_are_found():
    """Numbered as in the run, whose services the dataset has but some of."""
    services = ("books", "search", "news", "shop")
    found = swept_for(USERS, services=services, within_service_weight=0.5)
    assert found.pairs == {(1, 3), (6, 7), (10, 11)}
    first = USERS.counts()[:, 0] > 0
    apart = [USERS.take(np.flatnonzero(first == has)) for has in (True, False)]
    assert swept_for(apart[0]).pairs == {(0, 1)} and not swept_for(apart[1]).pairs


def test_items_are_counted_for_each_user_and_the_long_ones_among_them():
    found = swept_for(USERS)
    assert found.items == len(USERS.item_ids)
    assert found.cut == (np.diff(USERS.token_offsets) > ENCODER.max_item_tokens).sum() > 0


def test_a_selection_of_an_outline_is_the_outline_of_a_selection():
    users, rows = sample_users(20, seed=3), np.array([3, 4, 11, 19])
    (part,), (chosen,) = users.outlines(), users.take(rows).outlines()
    for name, values in vars(part.take(rows)).items():
        if name != "rows":
            np.testing.assert_array_equal(values, getattr(chosen, name))
    assert part.take(rows).rows.tolist() == rows.tolist()
    assert isinstance(part, Outline)
