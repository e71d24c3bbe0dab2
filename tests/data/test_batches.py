"""Batches: equal on any number of devices, in order, from any step, errors passed on."""

import threading

import jax
import numpy as np
import pytest

from clue_jax.config import EncoderConfig, PretrainConfig, SamplingConfig, TrainConfig
from clue_jax.data.batches import TrainBatches
from clue_jax.errors import ConfigError
from clue_jax.parallel.mesh import DATA
from tests.data.test_packing import unpack
from tests.samples import sample_users

USERS = sample_users(60, seed=4)
CONFIG = PretrainConfig(
    encoder=EncoderConfig(max_history=6, max_items=64, row_tokens=32, row_behaviours=16),
    sampling=SamplingConfig(
        behaviours_kept=0.7, token_dropout=0.2, within_service_weight=0.5, generic_guide=0.1
    ),
    train=TrainConfig(batch_users=16),
)
FINGERPRINT = "0123456789abcdef" * 4


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DATA,))


def batches_on(devices, config=CONFIG, fingerprint=FINGERPRINT):
    return TrainBatches(USERS, config, fingerprint, mesh_of(devices))


def views_of(packed):
    """[user][view] of a stacked batch, whatever its number of devices."""
    devices = len(packed.num_groups)
    users = range(CONFIG.train.batch_users // devices)
    parts = [type(packed)(*(array[d] for array in packed)) for d in range(devices)]
    return [row for part in parts for row in unpack(part, CONFIG.encoder, users)]


@pytest.mark.parametrize("devices", [2, 8])
def test_the_global_batch_does_not_depend_on_the_devices(devices):
    for step in (0, 5):
        alone, _ = batches_on(1).host_batch(step)
        dealt, _ = batches_on(devices).host_batch(step)
        assert views_of(dealt) == views_of(alone)
        assert dealt.tokens_CRL.shape[0] == devices


def test_batches_follow_seed_step_and_dataset():
    first = views_of(batches_on(1).host_batch(0)[0])
    assert first == views_of(batches_on(1).host_batch(0)[0])
    assert first != views_of(batches_on(1).host_batch(1)[0])
    other = batches_on(1, fingerprint="f" * 64).host_batch(0)[0]
    assert first != views_of(other)


def test_prefetch_gives_the_steps_in_order_wherever_it_starts():
    batches = batches_on(8)
    steps = {batch.step: batch for batch, _ in batches.prefetch(0, 5)}
    assert list(steps) == [0, 1, 2, 3, 4]
    for batch, waited in batches.prefetch(3, 5):
        same = jax.tree.map(np.array_equal, batch.packed, steps[batch.step].packed)
        assert all(same) and waited >= 0


def test_a_batch_lies_sharded_on_its_devices():
    batch = batches_on(8).global_batch(0)
    assert batch.packed.tokens_CRL.sharding.spec == jax.sharding.PartitionSpec(DATA)
    assert len(batch.packed.tokens_CRL.addressable_shards) == 8


def test_an_error_while_packing_reaches_the_caller(monkeypatch):
    batches = batches_on(1)
    whole = batches.global_batch

    def failing(step):
        if step == 2:
            raise ValueError("broken record")
        return whole(step)

    monkeypatch.setattr(batches, "global_batch", failing)
    seen = []
    with pytest.raises(ValueError, match="broken record"):
        for batch, _ in batches.prefetch(0, 5):
            seen.append(batch.step)
    assert seen == [0, 1]


def test_closing_early_ends_the_thread():
    batches = batches_on(1).prefetch(0, 1_000)
    next(batches)
    assert "batches" in {thread.name for thread in threading.enumerate()}
    batches.close()
    assert "batches" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("batch_users", "problem"),
    [(12, "12 users do not divide over 8 devices"), (80, "80 users in a batch, but only")],
)
def test_a_batch_that_cannot_be_made_is_refused(batch_users, problem):
    config = PretrainConfig(train=TrainConfig(batch_users=batch_users))
    with pytest.raises(ConfigError, match=problem):
        batches_on(8, config)
