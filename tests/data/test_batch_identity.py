"""A batch is a function of (seed, step, dataset): not of processes, hosts, order or restarts."""

import hashlib
import os
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from clue_jax.data.sampling import batch_users
from tests.data.test_batches import CONFIG, FINGERPRINT, batches_on, users_of

STEPS = 0, 3, 11


def share_of(host, hosts, groups, step):
    """What one of several hosts makes by itself, with objects of its own."""
    batches = batches_on(groups)
    batches.groups = batches.groups[host * groups // hosts : (host + 1) * groups // hosts]
    return batches.host_batch(step)


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_shares_of_hosts_together_are_the_batch_of_one(hosts):
    for step in STEPS:
        whole, stats = batches_on(8).host_batch(step)
        shares = [share_of(host, hosts, 8, step) for host in range(hosts)]
        for name in whole._fields:
            parts = [getattr(packed, name) for packed, _ in shares]
            np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))
        for key in ("views", "behaviours", "tokens", "block_slots"):
            assert sum(share[key] for _, share in shares) == stats[key]


def test_a_host_that_makes_another_share_is_told_apart():
    """The control of the test above."""
    whole, _ = batches_on(8).host_batch(0)
    first, second = (share_of(host, 2, 8, 0)[0].tokens_CRL for host in range(2))
    assert not np.array_equal(np.concatenate([second, first]), whole.tokens_CRL)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_the_global_batch_is_the_same_after_any_change_of_hosts(groups):
    """A run that goes on with other hosts sees the users and views it would have seen."""
    for step in STEPS:
        alone, dealt = users_of(batches_on(1), step), users_of(batches_on(groups), step)
        assert dealt == alone and len(alone) == CONFIG.train.batch_users


def digest(batches, step):
    packed, _ = batches.host_batch(step)
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in packed)).hexdigest()


@pytest.mark.parametrize("order", [STEPS, STEPS[::-1]])
def test_another_process_makes_the_same_bits_in_any_order(order):
    program = (
        "from tests.data.test_batch_identity import *\n"
        f"batches = batches_on(4)\nprint(*(digest(batches, step) for step in {order}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    output = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    assert output.split() == [digest(batches_on(4), step) for step in order]
    other = batches_on(4, fingerprint=FINGERPRINT[::-1])
    assert digest(other, STEPS[0]) != digest(batches_on(4), STEPS[0])


@hypothesis.given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**40))
@hypothesis.settings(max_examples=60, deadline=None)
def test_epochs_and_batches_hold_nobody_twice(count, batch, seed):
    """What does not fill a batch is left out of an epoch, fewer than a batch, others each time."""
    hypothesis.assume(batch <= count)
    eligible = np.arange(count) * 3 + 1
    per_epoch = count // batch
    for epoch in range(4):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        drawn = [batch_users(eligible, batch, seed, step) for step in steps]
        assert all(len(set(users.tolist())) == batch for users in drawn)
        visited = np.concatenate(drawn)
        assert len(set(visited.tolist())) == len(visited) == count - count % batch
        assert np.isin(visited, eligible).all()


def test_whom_one_epoch_leaves_out_another_visits():
    eligible = np.arange(100)
    epochs = [
        np.concatenate([batch_users(eligible, 30, 0, 3 * epoch + k) for k in range(3)])
        for epoch in range(40)
    ]
    missed = [frozenset(set(range(100)) - set(epoch.tolist())) for epoch in epochs]
    assert {len(users) for users in missed} == {10} and len(set(missed)) > 35
    visits = np.bincount(np.concatenate(epochs), minlength=100)
    assert visits.min() > 25  # of 40, 36 on average
