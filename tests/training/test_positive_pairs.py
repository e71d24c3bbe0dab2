"""What the step calls positives and negatives, against the definition on all users at once."""

import dataclasses

import jax
import numpy as np
import pytest

from clue_jax.config import (
    LossForm,
    PairWeight,
    Parts,
    SamplingConfig,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.data.packing import PackedViews
from clue_jax.model import clue
from tests.data.test_packing import unpack
from tests.losses.reference import reference
from tests.samples import sample_users
from tests.training.test_step import Trial, config_of

NAMES = ("search", "shop", "news", "books")
# Few items, and one of them in a view: many users hold the same.
CATALOGUE = {"catalogue": 5, "longest_item": 7, "longest_history": 4, "empty": 0.3}
SINGLE_ITEMS = SamplingConfig(within_service_weight=0.5, item_steps=2, generic_guide=0.0)


def trial_of(services=2, sampling=SINGLE_ITEMS, devices=1, others=None, **loss):
    users = sample_users(90, NAMES[:services], 4, **CATALOGUE)
    config = dataclasses.replace(config_of(**loss), sampling=sampling)
    config.encoder.item = config.encoder.service = TransformerConfig(num_layers=0)
    config.train = TrainConfig(steps=4, batch_users=32)
    return Trial(config, devices, users, others)


def defined_loss(trial, *, masked, persons=False):
    """Loss and hits of the first batch by the reference, and negatives that the mask takes away.

    Contents are read from the buffers, as multisets of items' tokens.
    """
    config, capacity = trial.batches.config, trial.batches.capacity
    stacked, stats = trial.batches.host_batch(0)
    packed = PackedViews(*(array[0] for array in stacked))
    z_VBE, _ = clue.encode(trial.state.params["encoder"], config.encoder, packed, capacity.items)
    present_VB = packed.view_slot_Vb >= 0
    numbers, users = {}, unpack(packed, range(capacity.users))
    assert len({item for row in users for view in row for item in view}) == stats["items"]
    contents_VB = np.array(
        [[numbers.setdefault(tuple(sorted(view)), len(numbers)) for view in row] for row in users]
    ).T
    scale, bias = (float(np.exp(trial.state.params["log_scale"])), config.loss.bias)
    rows, loss, hits, taken = trial.batches.drawn(0)[0], 0, 0, 0
    # Of two datasets, who has an id in both is one person.
    ids = trial.batches.users.take(rows).user_ids
    user_KB = np.unique(ids, return_inverse=True)[1][None] if persons else np.zeros((0, len(ids)))
    for first, second, weight in trial.pairs:
        valid_B = present_VB[first] & present_VB[second]
        keys_KB = np.concatenate([contents_VB[[first, second]], user_KB])
        (of_pair, hits_of_pair, count), _ = reference(
            config.loss.form,
            *(np.asarray(z_VBE[view]) for view in (first, second)),
            valid_B,
            scale,
            bias if config.loss.form is LossForm.SIGMOID else 0.0,
            keys_KB if masked else user_KB,
        )
        assert 1 < count < len(valid_B)  # some lack one of the two services
        loss, hits = loss + weight * of_pair / count, hits + weight * hits_of_pair / count
        same_BB = (keys_KB[:, :, None] == keys_KB[:, None, :]).any(0)[valid_B][:, valid_B]
        taken += same_BB.sum() - count
    return loss, hits, taken


@pytest.mark.parametrize("form", LossForm)
@pytest.mark.parametrize("devices", [1, 8])
def test_users_with_the_same_items_in_a_view_are_no_negatives(form, devices):
    trial = trial_of(devices=devices, form=form)
    expected, hits, taken = defined_loss(trial_of(form=form), masked=True)
    (metrics,) = trial.run(1).metrics
    assert taken > 100 and metrics["loss"] == pytest.approx(expected, rel=1e-5)
    # Of equal scores rounding picks one.
    assert metrics["retrieval_at_1"] == pytest.approx(hits, abs=0.02)


def test_they_are_without_the_mask():
    """Control: the mask is what makes the difference."""
    trial = trial_of(mask_duplicates=False)
    (masked, *_), (expected, *_) = (defined_loss(trial, masked=on) for on in (True, False))
    assert trial.run(1).values("loss") == pytest.approx([expected], rel=1e-5)
    assert abs(masked - expected) > 0.01 * expected


@pytest.mark.parametrize("services", [3, 4])
def test_all_pairs_of_services_are_in_the_loss_with_equal_weights(services):
    sampling = SamplingConfig(behaviours_kept=0.7, generic_guide=0.0)
    trial = trial_of(services, sampling)
    count = services * (services - 1) // 2
    assert len(trial.pairs) == count
    assert [pair.weight for pair in trial.pairs] == pytest.approx([1 / count] * count)
    expected, _, _ = defined_loss(trial, masked=True)
    assert trial.run(1).values("loss") == pytest.approx([expected], rel=1e-5)


def test_weights_of_named_pairs_reach_the_loss():
    named = (PairWeight("shop", "search", 3.0), PairWeight("news", "shop", 0.0))
    sampling = dataclasses.replace(SINGLE_ITEMS, within_service_weight=0.0)
    equal, weighed = (
        trial_of(3, dataclasses.replace(sampling, pair_weights=weights)) for weights in ((), named)
    )
    assert len(weighed.pairs) == len(equal.pairs) - 1
    expected, _, _ = defined_loss(weighed, masked=True)
    assert weighed.run(1).values("loss") == pytest.approx([expected], rel=1e-5)
    assert defined_loss(equal, masked=True)[0] != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("parts", Parts)
def test_users_of_a_single_service_train_by_parts_of_their_histories(parts):
    sampling = SamplingConfig(within_service_weight=1.0, parts=parts)
    users = sample_users(60, NAMES[:1], 8, longest_history=12)
    config = dataclasses.replace(config_of(), sampling=sampling)
    config.train = TrainConfig(steps=25, batch_users=32)
    trial = Trial(config, users=users)
    assert [pair[:] for pair in trial.pairs] == [(1, 2, 1.0)]
    losses = trial.run(25, batch=0).values("loss")
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    assert jax.tree.all(jax.tree.map(lambda a: np.isfinite(a).all(), trial.state.params))


@pytest.mark.parametrize(("mask_duplicates", "devices"), [(False, 1), (True, 8)])
def test_a_person_of_two_datasets_is_no_negative_of_themselves(mask_duplicates, devices):
    sampling = SamplingConfig(within_service_weight=0.5, generic_guide=0.0)
    others = sample_users(90, NAMES[:2], 4, **(CATALOGUE | {"longest_history": 3}))
    arguments = {"sampling": sampling, "others": others, "mask_duplicates": mask_duplicates}
    on_one = trial_of(**arguments)
    expected, _, taken = defined_loss(on_one, masked=mask_duplicates, persons=True)
    unaware, _, less = defined_loss(on_one, masked=mask_duplicates)
    assert taken > less and abs(unaware - expected) > 1e-4 * expected
    assert trial_of(devices=devices, **arguments).run(1).values("loss") == pytest.approx(
        [expected], rel=1e-5
    )


def test_a_pair_that_nobody_has_takes_no_weight():
    """search + news meet in neither dataset."""
    sampling = SamplingConfig(generic_guide=0.0)
    others = sample_users(90, NAMES[:2], 4, **(CATALOGUE | {"longest_history": 3}))
    others = dataclasses.replace(others, services=NAMES[1:3])
    trial = trial_of(sampling=sampling, others=others)
    assert [pair[:] for pair in trial.pairs] == [(0, 1, 0.5), (1, 2, 0.5)]
    expected, _, _ = defined_loss(trial, masked=True, persons=True)
    assert trial.run(1).values("loss") == pytest.approx([expected], rel=1e-5)
