"""Batches: the same views on any number of devices, in order, from any step, errors passed on."""

import contextlib
import dataclasses
import threading

import jax
import numpy as np
import pytest

from clue_jax.config import (
    EncoderConfig,
    HistorySchedule,
    MeshConfig,
    PretrainConfig,
    SamplingConfig,
    TrainConfig,
)
from clue_jax.data.balance import deal
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.packing import PackedViews
from clue_jax.data.sampling import history_length
from clue_jax.errors import ConfigError
from clue_jax.parallel.mesh import USERS as USER_AXES
from clue_jax.parallel.mesh import make_mesh
from tests.data.test_packing import unpack
from tests.samples import sample_users

USERS = sample_users(60, seed=4)
CONFIG = PretrainConfig(
    encoder=EncoderConfig(max_history=6, row_tokens=32, row_behaviours=16),
    sampling=SamplingConfig(
        behaviours_kept=0.7,
        token_dropout=0.2,
        within_service_weight=0.5,
        generic_guide=0.1,
        layer_dropout=0.3,
    ),
    train=TrainConfig(batch_users=16),
)
FINGERPRINT = "0123456789abcdef" * 4


def mesh_of(devices):
    return make_mesh(MeshConfig(), jax.devices()[:devices])


ONE = (Source("users", FINGERPRINT, USERS),)
# Another dataset with users of the same ids, and services in another order.
TWO = (
    *ONE,
    Source("others", FINGERPRINT[::-1], sample_users(50, ("news", "shop", "search"), seed=9)),
)


def batches_on(devices, config=CONFIG, sources=ONE):
    return TrainBatches(sources, config, mesh_of(devices))


def users_of(batches, step):
    """{user: (its views, with the blocks that items and views skip; their keys)} of a step."""
    packed, _ = batches.host_batch(step)
    devices = batches.mesh.size
    drawn, loads = batches.drawn(step)
    shares = deal(loads, devices)
    parts = [PackedViews(*(array[device] for array in packed)) for device in range(devices)]
    views = []
    for share, part in zip(shares, parts, strict=True):
        keyed = zip(unpack(part, share, skips=True), part.keys_Kb.T.tolist(), strict=True)
        views.append(dict(zip(drawn[share], keyed, strict=True)))
    assert sum(map(len, views)) == CONFIG.train.batch_users
    return {user: row for part in views for user, row in part.items()}


def test_a_group_packs_its_own_share():
    for devices in (1, 2, 8):
        assert batches_on(devices).host_batch(5)[0].tokens_CRL.shape[0] == devices


def test_batches_follow_seed_step_and_dataset():
    first = users_of(batches_on(1), 0)
    assert first == users_of(batches_on(1), 0)
    assert first != users_of(batches_on(1), 1)
    assert first != users_of(batches_on(1, sources=[ONE[0]._replace(fingerprint="f" * 64)]), 0)
    assert first != users_of(batches_on(1, dataclasses.replace(CONFIG, seed=1)), 0)


def test_a_schedule_shortens_views_and_nothing_else():
    schedule = HistorySchedule(start=2, steps=8)

    def scheduled(chosen):
        return dataclasses.replace(
            CONFIG.sampling, behaviours_kept=1.0, within_service_weight=0.0, history_schedule=chosen
        )

    def of_items(views):
        return [list(view[1]) if view else [] for view in views]

    whole, short = (
        dataclasses.replace(CONFIG, sampling=scheduled(chosen))
        for chosen in (HistorySchedule(), schedule)
    )
    on = {name: batches_on(2, config) for name, config in (("whole", whole), ("short", short))}
    assert on["short"].capacity == on["whole"].capacity
    for step in (0, 4, 7, 8, 20):
        length = history_length(short.sampling, CONFIG.encoder.max_history, step)
        seen = {name: users_of(batches, step) for name, batches in on.items()}
        shapes = [[array.shape for array in batches.host_batch(step)[0]] for batches in on.values()]
        assert shapes[0] == shapes[1] and seen["short"].keys() == seen["whole"].keys()
        for user, (views, _) in seen["short"].items():
            # The newest stay, and are told as in the whole view.
            assert [view[-length:] for view in of_items(seen["whole"][user][0])] == of_items(views)
    assert users_of(on["short"], 0) != users_of(on["whole"], 0)
    assert users_of(on["short"], 8) == users_of(on["whole"], 8)


def test_counts_are_summed_over_devices_and_the_busiest_is_known():
    """Work: slots times blocks of their level, pooling one of them."""
    batches = batches_on(8)
    packed, stats = batches.host_batch(0)
    alone = batches_on(1).host_batch(0)[1]
    for key in ("behaviours", "behaviour_pairs", "views"):
        assert stats[key] == alone[key]
    assert stats["items"] > alone["items"]  # users of other devices share none of them
    encoder = CONFIG.encoder
    slots = packed.num_item_chunks * encoder.item_rows * encoder.row_tokens
    work = slots * (encoder.item.num_layers + 1)
    slots = packed.num_view_chunks * encoder.history_rows * encoder.row_behaviours
    work = work + slots * (encoder.service.num_layers + 1)
    assert stats["block_slots"] == work.sum() and stats["busiest_slots"] == work.max()
    assert alone["block_slots"] == alone["busiest_slots"] and (
        stats["groups"],
        alone["groups"],
    ) == (8, 1)


def test_prefetch_gives_the_steps_in_order_wherever_it_starts():
    batches = batches_on(8)
    steps = {batch.step: batch for batch, _ in batches.prefetch(0, 5)}
    assert list(steps) == [0, 1, 2, 3, 4]
    for batch, waited in batches.prefetch(3, 5):
        same = jax.tree.map(np.array_equal, batch.packed, steps[batch.step].packed)
        assert all(same) and waited >= 0


def test_the_next_batches_are_made_while_one_is_computed(monkeypatch):
    """Whoever holds a batch sees the two after it made without asking for them."""
    batches, made = batches_on(1), threading.Semaphore(0)
    whole = batches.global_batch

    def counting(step):
        batch = whole(step)
        made.release()
        return batch

    monkeypatch.setattr(batches, "global_batch", counting)
    for _, waited in batches.prefetch(0, 4):
        # One more each time than was asked for; at the end of the run there are none left.
        assert waited >= 0 and made.acquire(timeout=30)
    with contextlib.closing(batches.prefetch(0, 9)) as ahead:
        next(ahead)
        assert all(made.acquire(timeout=30) for _ in range(3))


def test_a_batch_lies_sharded_on_its_devices():
    batch = batches_on(8).global_batch(0)
    assert batch.packed.tokens_CRL.sharding.spec == jax.sharding.PartitionSpec(USER_AXES)
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
    [
        (12, "12 users do not divide over 8 devices"),
        (80, "80 users in a batch, 80 of them of users, but only"),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused(batch_users, problem):
    config = PretrainConfig(train=TrainConfig(batch_users=batch_users))
    with pytest.raises(ConfigError, match=problem):
        batches_on(8, config)
