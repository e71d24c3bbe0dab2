"""The schedule's shape, and what weight decay leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import OptimConfig, PretrainConfig, SamplingConfig, TrainConfig
from clue_jax.model import clue
from clue_jax.training.optim import is_matrix, make_optimizer, make_schedule


def config_of(item_steps=0, **optim):
    return PretrainConfig(
        optim=OptimConfig(learning_rate=1e-2, warmup_fraction=0.1, final_fraction=0.1, **optim),
        sampling=SamplingConfig(item_steps=item_steps),
        train=TrainConfig(steps=200),
    )


def test_it_warms_up_then_falls_to_its_last_share():
    schedule = make_schedule(config_of())
    rates = np.array([float(schedule(step)) for step in range(200)])
    assert rates[20] == pytest.approx(1e-2) == rates.max()
    assert (np.diff(rates[:21]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    assert 0 < rates[0] < 1e-3 and rates[-1] == pytest.approx(1e-3, rel=0.02)


def test_single_item_steps_have_a_hump_of_their_own():
    schedule = make_schedule(config_of(item_steps=100, item_learning_rate=5e-2))
    rates = np.array([float(schedule(step)) for step in range(200)])
    assert rates[:100].max() == pytest.approx(5e-2) and rates[100:].max() == pytest.approx(1e-2)
    assert rates[99] < 0.2 * 5e-2 and rates[100] < 0.2 * 1e-2
    assert rates[-1] == pytest.approx(1e-3, rel=0.02)
    assert make_schedule(config_of(item_steps=200))(150) > 0


def test_norms_and_temperature_do_not_decay():
    config = config_of(weight_decay=0.5)
    params = clue.init_run(config, 100)
    optimizer = make_optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        free = path[-1].key in ("scale", "log_scale")
        assert (np.abs(update).max() == 0) == free, path
    kept = [
        path[-1].key
        for path, flag in jax.tree_util.tree_leaves_with_path(is_matrix(params))
        if not flag
    ]
    assert kept.count("scale") >= 4 and "log_scale" in kept


def test_a_large_gradient_is_clipped_before_adam():
    config = config_of(clip_norm=1.0)
    params = {"w": jnp.ones((3,))}
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    _, state = optimizer.update({"w": jnp.array([3e6, 0.0, 4e6])}, state, params)
    first_moment = next(
        s.mu for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
    )
    np.testing.assert_allclose(first_moment["w"], [0.06, 0.0, 0.08], rtol=1e-5)
