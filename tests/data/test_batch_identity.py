"""A batch is a function of (seed, step, datasets): not of processes, hosts, order or restarts."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.data.test_batches import CONFIG, ONE, TWO, batches_on, users_of

STEPS = 0, 3, 11
SOURCES = {"one dataset": ONE, "two": TWO}


@pytest.fixture(params=SOURCES)
def sources(request):
    return SOURCES[request.param]


def share_of(host, hosts, groups, step, sources):
    """What one of several hosts makes by itself, with objects of its own."""
    batches = batches_on(groups, sources=sources)
    batches.groups = batches.groups[host * groups // hosts : (host + 1) * groups // hosts]
    return batches.host_batch(step)


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_shares_of_hosts_together_are_the_batch_of_one(hosts, sources):
    for step in STEPS:
        whole, stats = batches_on(8, sources=sources).host_batch(step)
        shares = [share_of(host, hosts, 8, step, sources) for host in range(hosts)]
        for name in whole._fields:
            parts = [getattr(packed, name) for packed, _ in shares]
            np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))
        for key in ("views", "behaviours", "tokens", "block_slots"):
            assert sum(share[key] for _, share in shares) == stats[key]


def test_a_host_that_makes_another_share_is_told_apart(sources):
    """The control of the test above."""
    whole, _ = batches_on(8, sources=sources).host_batch(0)
    first, second = (share_of(host, 2, 8, 0, sources)[0].tokens_CRL for host in range(2))
    assert not np.array_equal(np.concatenate([second, first]), whole.tokens_CRL)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_the_global_batch_is_the_same_after_any_change_of_hosts(groups, sources):
    """A run that goes on with other hosts sees the users and views it would have seen."""
    for step in STEPS:
        alone, dealt = (users_of(batches_on(count, sources=sources), step) for count in (1, groups))
        assert dealt == alone and len(alone) == CONFIG.train.batch_users


def digest(batches, step):
    arrays = batches.host_batch(step)[0]._asdict()
    # Only exports weigh behaviours; batches had no such buffer when the digests below were taken.
    assert (arrays.pop("history_weight_CRT") == 1).all()
    contents = (np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return hashlib.sha256(b"".join(contents)).hexdigest()


@pytest.mark.parametrize("order", [STEPS, STEPS[::-1]])
@pytest.mark.parametrize("mixed", ["ONE", "TWO"])
def test_another_process_makes_the_same_bits_in_any_order(order, mixed):
    program = (
        "from tests.data.test_batch_identity import *\n"
        f"batches = batches_on(4, sources={mixed})\n"
        f"print(*(digest(batches, step) for step in {order}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    output = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    sources = globals()[mixed]
    assert output.split() == [digest(batches_on(4, sources=sources), step) for step in order]
    other = batches_on(4, sources=[s._replace(fingerprint=s.fingerprint[5:]) for s in sources])
    assert digest(other, STEPS[0]) != digest(batches_on(4, sources=sources), STEPS[0])


def test_batches_of_one_dataset_are_what_they_always_were():
    """A run begun with an earlier revision goes on with the batches it would have had."""
    digests = [digest(batches_on(4), step) for step in STEPS]
    assert [text[:16] for text in digests] == [
        "a3729ebe8e73cce7",
        "9fd1851ffd9fc1cc",
        "5c5ac4f42d1ff7f3",
    ]
