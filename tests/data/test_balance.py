"""Users are dealt to devices so that none waits for a busier one."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from clue_jax.config import EncoderConfig, TransformerConfig
from clue_jax.data.balance import block_slots, deal, user_loads
from clue_jax.data.records import Users
from tests.samples import sample_users

CASES = st.tuples(st.integers(1, 8), st.integers(1, 12)).flatmap(
    lambda sizes: st.tuples(
        st.just(sizes[0]),
        st.lists(
            st.floats(0, 1e4, allow_subnormal=False),
            min_size=sizes[0] * sizes[1],
            max_size=sizes[0] * sizes[1],
        ).map(np.array),
    )
)


def unevenness(loads, shares):
    """Largest sum of a device's loads, relative to the mean."""
    sums = loads[shares].sum(axis=1)
    return sums.max() / sums.mean()


@given(CASES)
@settings(deadline=None, max_examples=100)
def test_every_user_is_dealt_once_and_every_device_gets_as_many(case):
    devices, loads = case
    shares = deal(loads, devices)
    assert shares.shape == (devices, len(loads) // devices)
    assert sorted(shares.ravel().tolist()) == list(range(len(loads)))
    assert (np.diff(shares, axis=1) > 0).all()
    assert (deal(loads, devices) == shares).all()


@given(CASES)
@settings(deadline=None, max_examples=100)
def test_no_two_devices_differ_by_more_than_the_heaviest_user(case):
    devices, loads = case
    sums = loads[deal(loads, devices)].sum(axis=1)
    assert np.ptp(sums) <= loads.max() * (1 + 1e-9)


def test_the_heaviest_left_goes_to_the_lightest_device():
    shares = deal(np.array([1.0, 9.0, 5.0, 2.0, 4.0, 8.0]), 2)
    # 9 and 8; 5 to the 8 and 4 to the 9; 13 each, so the first gets 2.
    assert shares.tolist() == [[1, 3, 4], [0, 2, 5]]


def test_equal_loads_are_dealt_in_order():
    assert deal(np.ones(6), 3).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_log_normal_loads_come_out_even():
    for seed in range(10):
        loads = np.random.default_rng(seed).lognormal(sigma=1.0, size=8 * 32)
        assert unevenness(loads, deal(loads, 8)) <= 1.02
        # Control: the users in the order they were drawn are far from even.
        assert unevenness(loads, np.arange(8 * 32).reshape(8, 32)) > 1.1


CONFIG = EncoderConfig(
    item=TransformerConfig(num_layers=3),
    service=TransformerConfig(num_layers=1),
    max_item_tokens=4,
    max_history=2,
)


def test_loads_are_tokens_and_behaviours_through_their_blocks():
    users = Users(
        user_ids=np.array(["one item", "nothing", "long"], object),
        services=("a", "b"),
        item_ids=np.arange(4, dtype=np.uint64),
        item_offsets=np.array([0, 1, 1, 4]),
        tokens=np.ones(3 + 4 + 9 + 1, np.int32),
        token_offsets=np.cumsum([0, 3, 4, 9, 1]),
        behaviour_items=np.array([0, 0, 1, 2, 0], np.int32),
        behaviour_times=np.arange(5),
        behaviour_offsets=np.array([0, 1, 1, 1, 1, 4, 5]),
    )
    one = 3 * (3 + 1) + 1 * (1 + 1)
    # Texts of 4, 4 of 9, and 1; 2 of 3 behaviours and 1 of 1 are within the cap.
    long = (4 + 4 + 1) * 3 / 4 * (3 + 1) + 3 * (1 + 1)
    np.testing.assert_allclose(user_loads(outline(users), CONFIG), [one, 0, long])


def outline(users):
    (whole,) = users.outlines()
    return whole


def test_loads_of_users_taken_are_those_of_the_users():
    users = sample_users(30, seed=0)
    chosen = np.array([3, 17, 4])
    taken = user_loads(outline(users.take(chosen)), CONFIG)
    np.testing.assert_array_equal(taken, user_loads(outline(users), CONFIG)[chosen])


def test_work_counts_what_is_computed_padding_included():
    counts = {"token_slots": 100, "behaviour_slots": 30, "tokens": 7, "behaviours": 5}
    assert block_slots(counts, CONFIG) == 100 * 4 + 30 * 2
    bag = EncoderConfig(item=TransformerConfig(0), service=TransformerConfig(0))
    assert block_slots(counts, bag) == 130
