"""Which steps are not learnt from, decided on the device."""

import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import TrainConfig, batch_ranges
from clue_jax.errors import ConfigError
from clue_jax.training.spikes import (
    WINDOW,
    Reason,
    left_out_before,
    no_updates,
    noted,
    skip_reason,
)

generator = np.random.default_rng(0)


def after(updates):
    """What is remembered of updates with a loss about 4 and a gradient norm about 1."""
    recent = no_updates()
    for loss, norm in generator.normal((4.0, 1.0), (0.1, 0.05), (updates, 2)):
        recent = noted(recent, jnp.float32(loss), jnp.float32(norm))
    return recent


def reason(recent, loss=4.0, norm=1.0, step=0, **settings):
    found = skip_reason(
        TrainConfig(**settings), jnp.int32(step), recent, jnp.float32(loss), jnp.float32(norm)
    )
    return Reason(int(found))


@pytest.mark.parametrize("values", [{"loss": jnp.nan}, {"norm": jnp.inf}, {"loss": -jnp.inf}])
def test_what_is_not_finite_is_always_skipped(values):
    assert reason(no_updates(), **values) is Reason.NOT_FINITE
    assert reason(after(WINDOW), spike_deviations=6.0, **values) is Reason.NOT_FINITE


def test_spikes_stand_out_from_the_last_updates():
    recent = after(WINDOW + 10)
    for ordinary in ({}, {"loss": 4.3}, {"norm": 1.15}, {"loss": 1.0}, {"norm": 0.1}):
        assert reason(recent, spike_deviations=6.0, **ordinary) is Reason.NONE
    for spike in ({"loss": 5.5}, {"norm": 2.0}):
        assert reason(recent, spike_deviations=6.0, **spike) is Reason.SPIKE
        assert reason(recent, **spike) is Reason.NONE  # not asked to look
        # Nothing is ordinary before there were so many.
        assert reason(after(WINDOW - 1), spike_deviations=6.0, **spike) is Reason.NONE


def test_the_oldest_updates_are_forgotten():
    recent = after(WINDOW)
    for _ in range(WINDOW):
        recent = noted(recent, jnp.float32(9.0), jnp.float32(3.0))
    assert reason(recent, loss=8.9, norm=2.9, spike_deviations=6.0) is Reason.NONE
    assert reason(recent, loss=9.5, spike_deviations=6.0) is Reason.SPIKE


def test_batches_are_left_out_as_told():
    left_out = [
        step
        for step in range(12)
        if reason(no_updates(), step=step, skip_batches="2:4, 9:10") is Reason.ASKED
    ]
    assert left_out == [2, 3, 9]


@pytest.mark.parametrize("text", ["3", "4:4", "5:2", "a:b", "1:2;3:4", "-1:3", "1:2:3"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ConfigError, match=r"config.train.skip_batches: .* is no range A:B"):
        batch_ranges(text)


@pytest.mark.parametrize(
    ("step", "said"),
    [(0, ""), (2, ""), (3, "2:3"), (4, "2:4"), (5, "2:5"), (7, "2:6"), (11, "2:6,9:10")],
)
def test_what_was_left_out_so_far_has_one_form(step, said):
    assert left_out_before(TrainConfig(skip_batches="9:10,2:5,4:6,20:30"), step) == said
