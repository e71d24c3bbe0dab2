"""Matrix products whose operands are of the compute type and whose sums are float32, both ways.

Plain differentiation would multiply a float32 cotangent by a bfloat16 operand, which hardware does
at the rate of float32, or round each chunk's weight gradient to bfloat16 before chunks are summed.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from clue_jax.parallel.collectives import summed

LINEAR = "linear"  # name of the results that a rematerialisation policy may keep

Pair = tuple[jax.Array, jax.Array]


def linear(x: jax.Array, weight: jax.Array, sum_over: str = "") -> jax.Array:
    """`x @ weight` in the type of `x`, summed in float32.

    Args:
        x: [..., D] activations, in the compute type.
        weight: [D, ...] parameters; the gradient of float32 ones is never rounded, that of ones
            gathered in the type of `x` once for each call.
        sum_over: mesh axis over which D is parted; parts are rounded to the type of `x` before
            their sum, which halves what is sent; empty: none.

    Returns:
        [..., ...] in the type of `x`.
    """
    flat = _linear(x, weight)
    if sum_over:
        flat = summed(flat, sum_over)
    # A policy cannot see into a custom derivative, but it sees names.
    flat = checkpoint_name(flat, LINEAR)
    return flat.reshape(*x.shape[:-1], *weight.shape[1:])


@jax.custom_vjp
def _linear(x: jax.Array, weight: jax.Array) -> jax.Array:
    return _float32_sums(x, _matrix(weight, x.dtype), (x.ndim - 1, 0)).astype(x.dtype)


def _linear_forward(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, Pair]:
    return _linear(x, weight), (x, weight)


def _linear_backward(saved: Pair, y_bar: jax.Array) -> Pair:
    x, weight = saved
    rows = x.shape[:-1]
    x_bar = _float32_sums(y_bar, _matrix(weight, x.dtype), (y_bar.ndim - 1, 1))
    if x.dtype == jnp.float32:
        # CPUs are up to 1.7 times faster with one long axis in float32, and 3 times slower in
        # bfloat16; to accelerators both are the same.
        x, y_bar, rows = x.reshape(-1, x.shape[-1]), y_bar.reshape(-1, y_bar.shape[-1]), (0,)
    axes = tuple(range(len(rows)))
    weight_bar = _float32_sums(x, y_bar, (axes, axes))
    return x_bar.astype(x.dtype), weight_bar.reshape(weight.shape).astype(weight.dtype)


_linear.defvjp(_linear_forward, _linear_backward)


def _matrix(weight: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The weight as [D, F]: CPUs are several times slower over more axes than two."""
    return weight.astype(dtype).reshape(len(weight), math.prod(weight.shape[1:]))


def _float32_sums(a: jax.Array, b: jax.Array, axes: tuple) -> jax.Array:
    return jnp.tensordot(a, b, axes, preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def contract(spec: str, a: jax.Array, b: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`einsum(spec, a, b)` of activations of one type, summed in float32.

    Args:
        spec: of two operands; each letter of an operand occurs in the other or in the result.
        a: first operand.
        b: second operand.
        dtype: of the result.
    """
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32).astype(dtype)


def _contract_forward(
    spec: str, a: jax.Array, b: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, Pair]:
    return contract(spec, a, b, dtype), (a, b)


def _contract_backward(spec: str, dtype: jnp.dtype, saved: Pair, out_bar: jax.Array) -> Pair:
    a, b = saved
    operands, out = spec.split("->")
    left, right = operands.split(",")
    out_bar = out_bar.astype(a.dtype)
    a_bar = contract(f"{out},{right}->{left}", out_bar, b, a.dtype)
    return a_bar, contract(f"{left},{out}->{right}", a, out_bar, b.dtype)


contract.defvjp(_contract_forward, _contract_backward)
