"""The train step on batches that a log may well hold: next to nothing, or always the same."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from clue_jax.data.packing import Draws, PackedViews, pack_views
from clue_jax.data.sampling import training_views
from clue_jax.parallel.mesh import sharded
from tests.samples import users_with
from tests.training.test_step import Trial, config_of

DEVICES, USERS_EACH = 8, 4
# Item n: n % 20 + 1 tokens, the last ones longer than encoder.max_item_tokens.
TEXTS = [[5 + n, *range(20, 20 + n % 20)] for n in range(40)]
NOTHING, ONE_TOKEN, LONG = [[], []], 0, 15
DEALT = {
    "nobody did anything": [NOTHING] * 4,
    "one behaviour in all": [[[3], []], NOTHING, NOTHING, NOTHING],
    "one behaviour in each service": [[[3], [4]], NOTHING, NOTHING, NOTHING],
    "one item again and again": [[[7] * 12, [8] * 12]] * 4,
    "items of one token": [[[ONE_TOKEN] * 3, [ONE_TOKEN + 20]]] * 4,
    "items beyond the cap": [[[LONG, LONG + 1], [LONG + 2] * 12], *[NOTHING] * 3],
    "everybody the same": [[[1, 2, 3], [4, 5, 6]]] * 4,
    "an ordinary user": [[[1, 2, 9], [12, 5]], [[6, 1], [11]], [[2], [3, 4]], [[10], [11, 12]]],
}
# Of these, all users hold the same items in one view of every pair, whatever is drawn: nobody is a
# negative of anybody, and there is nothing to learn.
ALL_ALIKE = {"one behaviour in each service", "items of one token"}


@pytest.fixture(scope="module")
def trial():
    return Trial(config_of(), DEVICES)


def packed_on(trial, device, histories):
    users = users_with(histories, TEXTS)
    config, identities = trial.batches.config, USERS_EACH * device + np.arange(USERS_EACH)
    length = config.encoder.max_history
    views = training_views(users, identities, config.sampling, length, seed=0, step=9)
    draws = Draws(config.sampling, 0, 9, identities)
    return pack_views(users, views, trial.batches.capacity, config.encoder, draws)


def step_on(trial, dealt):
    """Metrics of a step and the parameters after it."""
    packed = [packed_on(trial, device, histories)[0] for device, histories in enumerate(dealt)]
    stacked = PackedViews(*(np.stack(arrays) for arrays in zip(*packed, strict=True)))
    batch = jax.device_put(stacked, sharded(trial.batches.mesh))
    trial.state, metrics = trial.step(trial.state, batch)
    return jax.device_get((metrics, trial.state.params))


def assert_finite(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


def test_what_a_device_holds_may_be_next_to_nothing_or_always_the_same(trial):
    packed = [
        packed_on(trial, device, histories)[0] for device, histories in enumerate(DEALT.values())
    ]
    assert len(DEALT) == DEVICES and packed[0].num_item_chunks == 0
    metrics, params = step_on(trial, DEALT.values())
    assert_finite((metrics, params))
    assert metrics["loss"] > 0 and metrics["gradient_norm"] > 0


@pytest.mark.parametrize("name", DEALT)
def test_all_devices_may_hold_the_same(trial, name):
    metrics, params = step_on(trial, [DEALT[name]] * DEVICES)
    assert_finite((metrics, params))
    a_negative = all(DEALT[name][0]) and name not in ALL_ALIKE
    assert (metrics["loss"] > 0) == (metrics["gradient_norm"] > 0) == a_negative


def test_a_nan_would_be_seen(trial):
    """Control: a parameter that is not a number does reach the loss."""
    embedding = trial.state.params["encoder"]["embedding"]
    broken = trial.state.params["encoder"] | {"embedding": embedding * np.nan}
    kept = jax.tree.map(np.asarray, trial.state)
    trial.state = replace(trial.state, params=trial.state.params | {"encoder": broken})
    metrics, _ = step_on(trial, DEALT.values())
    trial.state = jax.device_put(kept, trial.state.step.sharding)
    assert np.isnan(metrics["loss"])


def test_items_beyond_the_cap_are_cut_and_counted(trial):
    cap = trial.batches.config.encoder.max_item_tokens
    for device, (name, histories) in enumerate(DEALT.items()):
        _, stats = packed_on(trial, device, histories)
        items = {item for user in histories for history in user for item in history}
        longer = sum(len(TEXTS[item]) > cap for item in items)
        if name == "items beyond the cap":
            assert stats["truncated"] == longer == 3 and stats["tokens"] <= 3 * cap
        else:
            assert stats["truncated"] <= longer
