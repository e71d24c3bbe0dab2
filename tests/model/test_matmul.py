"""Matrix products: the derivatives of an einsum, in the types that the module promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.model.matmul import contract, linear
from tests.model.jaxprs import equations

# Float32 sums in another order, relative to the largest of the array.
TOLERANCE = 1e-6
SUMMING = 5e-6  # of thousands of products: machines differ in how they add
# One rounding to bfloat16, likewise: 8 bits of mantissa.
ROUNDING = 2.0**-8

# x, weight, and the einsum that says what `linear` computes
LINEAR = {
    "rows": ((5, 6), (6, 4), "ND,DF->NF"),
    "packed rows": ((3, 5, 6), (6, 4), "RLD,DF->RLF"),
    "queries, keys and values": ((3, 5, 6), (6, 3, 2, 4), "RLD,DqHK->RLqHK"),
}
CONTRACT = {
    "logits": ("RHLK,RHMK->RHLM", (2, 3, 5, 4), (2, 3, 5, 4)),
    "mix": ("RHLM,RHMK->RHLK", (2, 3, 5, 5), (2, 3, 5, 4)),
}


def plain(spec, x, weight):
    """What a layer would say without a derivative of its own."""
    out = jnp.einsum(spec, x, weight.astype(x.dtype), preferred_element_type=jnp.float32)
    return out.astype(x.dtype)


def drawn(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def with_gradients(function, a, b):
    """The result, and the gradients of a weighted sum of it."""
    out, pull = jax.vjp(function, a, b)
    (weights,) = drawn(out.shape, seed=1)
    return out, pull(jnp.asarray(weights, out.dtype))


def off_by(given, expected):
    """Largest difference, relative to the largest of what is expected."""
    given, expected = (np.asarray(a, np.float64) for a in (given, expected))
    return np.abs(given - expected).max() / np.abs(expected).max()


def operand_types(function, *arrays):
    """Types of the operands of every product in a function, and of its result."""
    products = [
        eqn
        for eqn in equations(jax.make_jaxpr(function)(*arrays).jaxpr)
        if eqn.primitive.name == "dot_general"
    ]
    assert len(products) == 3, "one there, two on the way back"
    return {tuple(str(v.aval.dtype) for v in (*eqn.invars, *eqn.outvars)) for eqn in products}


@pytest.mark.parametrize(("x", "weight", "spec"), LINEAR.values(), ids=LINEAR)
def test_linear_is_an_einsum_in_value_and_gradient(x, weight, spec):
    arrays = drawn(x, weight)
    given = with_gradients(linear, *arrays)
    expected = with_gradients(lambda x, weight: jnp.einsum(spec, x, weight), *arrays)
    for a, b in zip(*map(jax.tree.leaves, (given, expected)), strict=True):
        assert a.shape == b.shape and off_by(a, b) < TOLERANCE


@pytest.mark.parametrize(("spec", "a", "b"), CONTRACT.values(), ids=CONTRACT)
def test_contract_is_an_einsum_in_value_and_gradient(spec, a, b):
    arrays = drawn(a, b)
    given = with_gradients(lambda a, b: contract(spec, a, b, jnp.float32), *arrays)
    expected = with_gradients(lambda a, b: jnp.einsum(spec, a, b), *arrays)
    for ours, theirs in zip(*map(jax.tree.leaves, (given, expected)), strict=True):
        assert ours.shape == theirs.shape and off_by(ours, theirs) < TOLERANCE


def test_the_weight_gradient_of_bfloat16_activations_is_never_rounded():
    x, weight = drawn((8, 256, 16), (16, 3, 2, 4))
    x, spec = jnp.asarray(x, jnp.bfloat16), "RLD,DqHK->RLqHK"
    out, (x_bar, weight_bar) = with_gradients(linear, x, weight)
    _, (_, plain_bar) = with_gradients(lambda x, weight: plain(spec, x, weight), x, weight)
    assert (out.dtype, x_bar.dtype, weight_bar.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    cotangent = jnp.asarray(drawn(out.shape, seed=1)[0], jnp.bfloat16)
    truth = np.einsum("RLD,RLqHK->DqHK", *(np.asarray(a, np.float64) for a in (x, cotangent)))
    assert off_by(weight_bar, truth) < SUMMING
    # Control: plain differentiation rounds it.
    assert off_by(plain_bar, truth) > 0.1 * ROUNDING


def test_bfloat16_results_and_gradients_are_off_by_one_rounding():
    x, weight = drawn((3, 40, 16), (16, 24))
    half = jnp.asarray(x, jnp.bfloat16)
    out, (x_bar, _) = with_gradients(linear, half, weight)
    rounded = np.asarray(jnp.asarray(weight, jnp.bfloat16), np.float64)
    cotangent = np.asarray(jnp.asarray(drawn(out.shape, seed=1)[0], jnp.bfloat16), np.float64)
    assert off_by(out, np.asarray(half, np.float64) @ rounded) < ROUNDING
    assert off_by(x_bar, cotangent @ rounded.T) < ROUNDING


@pytest.mark.parametrize(("spec", "a", "b"), CONTRACT.values(), ids=CONTRACT)
def test_bfloat16_contractions_are_close_to_float32_and_keep_their_types(spec, a, b):
    arrays = drawn(a, b)
    halves = [jnp.asarray(array, jnp.bfloat16) for array in arrays]
    given = with_gradients(lambda a, b: contract(spec, a, b, jnp.float32), *halves)
    expected = with_gradients(
        lambda a, b: jnp.einsum(spec, a, b), *(half.astype(jnp.float32) for half in halves)
    )
    out, gradients = given
    assert out.dtype == jnp.float32 and off_by(out, expected[0]) < TOLERANCE
    for ours, theirs in zip(gradients, expected[1], strict=True):
        # The cotangent is rounded, and the sum once more.
        assert ours.dtype == jnp.bfloat16 and off_by(ours, theirs) < 2 * ROUNDING


def test_every_product_has_operands_of_the_compute_type():
    """Hardware multiplies float32 by bfloat16 at the rate of float32."""
    x, weight = drawn((2, 3, 4), (4, 5))
    half = jnp.asarray(x, jnp.bfloat16)
    a, b = (jnp.asarray(array, jnp.bfloat16) for array in drawn((2, 3, 5, 4), (2, 3, 5, 4)))
    spec = CONTRACT["logits"][0]
    wanted = {("bfloat16", "bfloat16", "float32")}
    assert operand_types(lambda *both: with_gradients(linear, *both), half, weight) == wanted
    logits = lambda a, b: contract(spec, a, b, jnp.float32)  # noqa: E731
    assert operand_types(lambda *both: with_gradients(logits, *both), a, b) == wanted
    # Control: plain differentiation mixes them.
    mixed = lambda x, weight: plain("RLD,DF->RLF", x, weight)  # noqa: E731
    types = operand_types(lambda *both: with_gradients(mixed, *both), half, weight)
    assert any({"float32", "bfloat16"} <= set(product[:2]) for product in types)
