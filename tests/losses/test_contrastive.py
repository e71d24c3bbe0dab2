"""The sharded loss against the dense one, and the dense one against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clue_jax.losses.contrastive import dense_pair_loss, sharded_pair_loss

TOLERANCE = 1e-5  # relative, of float32 sums in another order
BATCH, WIDTH = 32, 12


def unit_pair(seed=0, batch=BATCH, alike=0.7):
    rng = np.random.default_rng(seed)
    x_BE = rng.normal(size=(batch, WIDTH))
    y_BE = alike * x_BE + (1 - alike) * rng.normal(size=(batch, WIDTH))
    return tuple(
        (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32) for z in (x_BE, y_BE)
    )


def masks():
    rng = np.random.default_rng(1)
    some = rng.random(BATCH) < 0.6
    one_device_empty = np.arange(BATCH) >= BATCH // 8
    return {
        "all": np.ones(BATCH, bool),
        "some": some,
        "a device without users": one_device_empty,
        "two": np.isin(np.arange(BATCH), [3, 30]),
        "none": np.zeros(BATCH, bool),
    }


def by_hand(x_BE, y_BE, valid_B, scale):
    """InfoNCE in float64, user by user, over those that have both views."""
    x, y = (z[valid_B].astype(np.float64) for z in (x_BE, y_BE))
    logits = scale * x @ y.T
    loss = hits = 0.0
    for rows in (logits, logits.T):
        for i, row in enumerate(rows):
            loss += (np.log(np.exp(row - row.max()).sum()) + row.max() - row[i]) / 2
            hits += (row[i] > np.delete(row, i).max(initial=-np.inf)) / 2
    return loss, hits


def sharded(devices):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))

    def shares(x_bE, y_bE, valid_b, scale):
        return jax.lax.psum(sharded_pair_loss(x_bE, y_bE, valid_b, scale, "data"), "data")

    return jax.shard_map(
        shares, mesh=mesh, in_specs=(P("data"), P("data"), P("data"), P()), out_specs=P()
    )


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("mask", masks())
def test_the_dense_form_is_the_formula(mask, scale):
    x_BE, y_BE = unit_pair()
    valid_B = masks()[mask]
    found = dense_pair_loss(x_BE, y_BE, valid_B, scale)
    loss, hits = by_hand(x_BE, y_BE, valid_B, scale)
    assert float(found.loss) == pytest.approx(loss, rel=TOLERANCE, abs=TOLERANCE)
    assert (float(found.hits), float(found.users)) == (hits, valid_B.sum())


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("mask", masks())
def test_the_sharded_form_is_the_dense_one_in_value_and_gradient(mask, devices):
    x_BE, y_BE = unit_pair(seed=2)
    arguments = (x_BE, y_BE, masks()[mask], jnp.float32(14.3))
    results = []
    for form in (dense_pair_loss, sharded(devices)):
        run = jax.jit(
            jax.value_and_grad(lambda *a, form=form: (form(*a).loss, form(*a)), (0, 1, 3), True)
        )
        (_, values), gradients = run(*arguments)
        results.append((*values, *gradients))
    for expected, found in zip(*results, strict=True):
        size = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * size)
        assert np.isfinite(found).all()


def test_users_without_the_pair_get_no_gradient():
    x_BE, y_BE = unit_pair()
    valid_B = masks()["some"]
    gradient = jax.grad(lambda x: dense_pair_loss(x, y_BE, valid_B, 10.0).loss)(x_BE)
    assert not gradient[~valid_B].any() and np.abs(gradient[valid_B]).max(axis=1).all()


def test_unrelated_views_cost_the_logarithm_of_the_batch():
    x_BE, y_BE = unit_pair(batch=512, alike=0.0)
    found = dense_pair_loss(x_BE, y_BE, np.ones(512, bool), 1.0)
    assert float(found.loss / found.users) == pytest.approx(np.log(512), abs=0.1)


def test_a_tie_is_no_hit():
    x_BE = np.ones((4, 1), np.float32)
    assert float(dense_pair_loss(x_BE, x_BE, np.ones(4, bool), 5.0).hits) == 0.0
