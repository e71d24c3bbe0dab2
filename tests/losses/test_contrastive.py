"""Dense and sharded losses against float64 loops: value, hits and all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clue_jax.config import LossForm, Precision, Transport
from clue_jax.losses.contrastive import Sharding, dense_pair_loss, sharded_pair_loss
from tests.losses.reference import reference

# Of float32 sums in another order, relative to the largest; logits err by scale x 6e-8, and
# gradients by x and y are scale x weights x unit vectors.
TOLERANCE = 1e-5
BATCH, WIDTH = 48, 12
SOFTMAX, SIGMOID = LossForm
GATHER, RING = Transport
BIAS = {SOFTMAX: 0.0, SIGMOID: -3.0}


def unit_pair(seed=0, batch=BATCH, alike=0.7):
    rng = np.random.default_rng(seed)
    x_BE = rng.normal(size=(batch, WIDTH))
    y_BE = alike * x_BE + (1 - alike) * rng.normal(size=(batch, WIDTH))
    return tuple(
        (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32) for z in (x_BE, y_BE)
    )


MASKS = {
    "all": np.ones(BATCH, bool),
    "some": np.random.default_rng(1).random(BATCH) < 0.6,
    "a device without users": np.arange(BATCH) >= BATCH // 8,
    "two": np.isin(np.arange(BATCH), [3, 30]),
    "one": np.arange(BATCH) == 17,
    "none": np.zeros(BATCH, bool),
}
KEYS = np.random.default_rng(2).integers(0, 12, (2, BATCH)).astype(np.int32)
X, Y = unit_pair(seed=2)


@functools.cache
def sharded(shape, sharding, form, keyed=True):
    """jit of the sharded loss, with keys or without, and its gradients by x, y, scale and bias."""
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    axes = ("data", "fsdp", "tensor")[: devices.ndim]
    mesh = jax.sharding.Mesh(devices, axes)

    def device(x_bE, y_bE, scale, bias, valid_b, keys_Kb):
        keys_Kb = keys_Kb if keyed else None
        return sharded_pair_loss(
            x_bE, y_bE, valid_b, scale, sharding, form=form, bias=bias, keys_Kb=keys_Kb
        )

    rows = P(axes)
    whole = jax.shard_map(
        device,
        mesh=mesh,
        in_specs=(rows, rows, P(), P(), rows, P(None, axes)),
        out_specs=P(),
    )
    return _with_gradients(whole)


def _with_gradients(loss):
    def both(*arguments):
        found = loss(*arguments)
        return found.loss, found

    run = jax.jit(jax.value_and_grad(both, (0, 1, 2, 3), has_aux=True))

    def call(*arguments):
        (_, values), gradients = run(*arguments)
        return values, gradients

    return call


@functools.cache
def dense(form):
    return _with_gradients(
        lambda x, y, scale, bias, valid, keys: dense_pair_loss(
            x, y, valid, scale, form=form, bias=bias, keys_KB=keys
        )
    )


def assert_same(found, expected, scale):
    (values, gradients), (true_values, true_gradients) = found, expected
    assert float(values[1]) == true_values[1] and float(values[2]) == true_values[2]
    for a, b in zip((values[0], *gradients), (true_values[0], *true_gradients), strict=True):
        size = max(scale if np.ndim(b) else 1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * size)


def inputs(mask, scale, form, keys=KEYS):
    arrays = X, Y, np.float32(scale), np.float32(BIAS[form]), MASKS[mask], keys
    truth = reference(form, X, Y, MASKS[mask], scale, BIAS[form], keys)
    return arrays, truth


@pytest.mark.parametrize("form", LossForm)
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("mask", MASKS)
def test_the_dense_form_is_the_formula(mask, scale, form):
    arrays, truth = inputs(mask, scale, form)
    values, _ = dense(form)(*arrays)
    assert_same((values, ()), (truth[0], ()), scale)


@pytest.mark.parametrize("form", LossForm)
@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize(("devices", "tile"), [(1, 1_024), (1, 7), (2, 16), (8, 4), (8, 1_024)])
def test_the_sharded_form_is_the_formula_in_value_and_gradients(devices, tile, transport, form):
    run = sharded(devices, Sharding("data", tile, transport), form)
    for mask in MASKS:
        for scale in (1.0, 14.3, 100.0):
            arrays, truth = inputs(mask, scale, form)
            assert_same(run(*arrays), truth, scale)


@pytest.mark.parametrize("form", LossForm)
@pytest.mark.parametrize("transport", Transport)
def test_users_may_be_sharded_over_several_mesh_axes(transport, form):
    run = sharded((2, 2, 2), Sharding(("data", "fsdp", "tensor"), 4, transport), form)
    arrays, truth = inputs("some", 14.3, form)
    assert_same(run(*arrays), truth, 14.3)


@pytest.mark.parametrize("form", LossForm)
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_it_errs_no_more_than_plain_differentiation_of_the_dense_form(scale, form):
    arrays, (_, truth) = inputs("some", scale, form)
    _, ours = sharded(8, Sharding("data", 4), form)(*arrays)
    _, plain = dense(form)(*arrays)
    for a, b, exact in zip(ours[:2], plain[:2], truth[:2], strict=True):
        assert np.abs(a - exact).max() <= 1.5 * np.abs(b - exact).max() + 1e-7 * scale


@pytest.mark.parametrize("form", LossForm)
def test_without_keys_only_the_anchor_itself_is_no_negative(form):
    sharding, distinct = Sharding("data", 4), np.arange(BATCH, dtype=np.int32)[None]
    arrays, truth = inputs("some", 14.3, form, distinct)
    _, without = inputs("some", 14.3, form, ())
    assert truth[0] == without[0]
    for keyed in (True, False):
        assert_same(sharded(8, sharding, form, keyed)(*arrays), truth, 14.3)
    masked, _ = inputs("some", 14.3, form)
    assert sharded(8, sharding, form)(*masked)[0].loss < truth[0][0]


@pytest.mark.parametrize("form", LossForm)
@pytest.mark.parametrize("transport", Transport)
def test_bfloat16_products_change_the_loss_by_little(transport, form):
    half = Sharding("data", 4, transport, Precision.BFLOAT16)
    arrays, (values, gradients) = inputs("all", 14.3, form)
    found, found_gradients = sharded(8, half, form)(*arrays)
    assert float(found.loss) == pytest.approx(values[0], rel=1e-3)
    assert found_gradients[0].dtype == jnp.float32
    for a, b in zip(found_gradients[:2], gradients[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.abs(b).max())
        assert np.abs(a - b).max() > TOLERANCE * np.abs(b).max(), "nothing was rounded"


def test_a_scale_of_a_hundred_between_opposite_vectors_stays_finite_and_exact():
    x_BE = np.tile(np.eye(1, WIDTH, dtype=np.float32), (BATCH, 1))
    x_BE[::2] *= -1
    y_BE = x_BE.copy()
    y_BE[:4] *= -1  # positives at -100 beside negatives at +100
    truth = reference(SOFTMAX, x_BE, y_BE, MASKS["all"], 100.0)
    arguments = np.float32(100.0), np.float32(0.0), MASKS["all"], KEYS
    for transport in Transport:
        run = sharded(8, Sharding("data", 4, transport), SOFTMAX, keyed=False)
        found = run(x_BE, y_BE, *arguments)
        assert_same(found, truth, 100.0)


def test_users_without_the_pair_get_no_gradient():
    arrays, _ = inputs("some", 10.0, SOFTMAX)
    _, (to_x, *_) = sharded(8, Sharding("data", 4), SOFTMAX)(*arrays)
    valid_B = MASKS["some"]
    assert not to_x[~valid_B].any() and np.abs(to_x[valid_B]).max(axis=1).all()


def test_unrelated_views_cost_the_logarithm_of_the_batch():
    x_BE, y_BE = unit_pair(batch=512, alike=0.0)
    found = dense_pair_loss(x_BE, y_BE, np.ones(512, bool), 1.0)
    assert float(found.loss / found.users) == pytest.approx(np.log(512), abs=0.1)


def test_a_tie_is_no_hit():
    x_BE = np.ones((4, 1), np.float32)
    assert float(dense_pair_loss(x_BE, x_BE, np.ones(4, bool), 5.0).hits) == 0.0


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize(("devices", "tile"), [(1, 1), (2, 23), (8, 3), (8, 5), (8, 1)])
def test_tiles_need_not_divide_the_users(devices, tile, transport):
    arrays, truth = inputs("some", 14.3, SOFTMAX)
    assert_same(sharded(devices, Sharding("data", tile, transport), SOFTMAX)(*arrays), truth, 14.3)


@pytest.mark.parametrize("transport", Transport)
def test_a_device_may_hold_a_single_user(transport):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    x_BE, y_BE = unit_pair(batch=8)
    sharding, rows, valid_B = Sharding("data", 4, transport), P("data"), np.ones(8, bool)

    def loss(x_bE, y_bE, scale, bias):
        valid_b = jnp.ones(len(x_bE), bool)
        return sharded_pair_loss(x_bE, y_bE, valid_b, scale, sharding, bias=bias)

    whole = jax.shard_map(loss, mesh=mesh, in_specs=(rows, rows, P(), P()), out_specs=P())
    found = _with_gradients(whole)(x_BE, y_BE, np.float32(14.3), np.float32(0.0))
    assert_same(found, reference(SOFTMAX, x_BE, y_BE, valid_B, 14.3), 14.3)
