"""What devices send each other about parameters and activations, inside `shard_map`.

Every value is typed as varying over all axes, whether it is equal on some devices or not; so the
same functions serve with the check of these types (`check_vma`) on and off, and each says itself
what its way back is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from clue_jax.parallel.mesh import FSDP, TENSOR, USERS, over_all
from clue_jax.parallel.rules import Rule, path_of, rule_for

Tree = Any


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def copied(x: jax.Array, axis: str) -> jax.Array:
    """Copies enter a computation that is parted over `axis`; their gradient is the parts' sum."""
    return x


def _copied_backward(axis: str, _: None, x_bar: jax.Array) -> tuple[jax.Array]:
    return (_total(x_bar, axis),)


copied.defvjp(lambda x, axis: (x, None), _copied_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def summed(x: jax.Array, axis: str) -> jax.Array:
    """The sum of the parts over `axis`, copies of which leave; each part's gradient is theirs."""
    return _total(x, axis)


summed.defvjp(lambda x, axis: (_total(x, axis), None), lambda axis, _, x_bar: (x_bar,))


def _total(x: jax.Array, axis: str) -> jax.Array:
    return jax.lax.pcast(jax.lax.psum(x, axis), axis, to="varying")


@dataclass(frozen=True)
class Shards:
    """Parameters that lie in shards: whole while they are computed with, gradients in shards again.

    Gathered in the compute type and once a step, their gradients are rounded to it for each chunk
    and added up in float32: 6 bytes a parameter in bfloat16, and half the traffic of float32.
    """

    mesh: Mesh
    dtype: jnp.dtype  # of operands

    def gather(self, tree: Tree) -> Tree:
        """The leaves as a device computes with them."""
        return jax.tree_util.tree_map_with_path(lambda path, x: self._gather(x, _rule(path)), tree)

    def scatter(self, gradients: Tree) -> Tree:
        """Float32 gradients of gathered leaves -> of this device's shards, summed over `fsdp`."""
        return jax.tree_util.tree_map_with_path(
            lambda path, x: self._scatter(x, _rule(path)), gradients
        )

    def _gather(self, shard: jax.Array, rule: Rule) -> jax.Array:
        for dim, axes in rule.gathered():
            used = self._used(axes)
            if used:
                shard = shard.astype(self.dtype) if rule.operand else shard
                shard = jax.lax.all_gather(shard, used, axis=dim, tiled=True)
        return shard

    def _scatter(self, whole: jax.Array, rule: Rule) -> jax.Array:
        for dim, axes in rule.gathered():
            used = self._used(axes)
            if FSDP in used:
                whole = self._summed_share(whole, dim)
            if TENSOR in used:  # all devices of a group have the same gradient
                size = whole.shape[dim] // self.mesh.shape[TENSOR]
                start = jax.lax.axis_index(TENSOR) * size
                whole = jax.lax.dynamic_slice_in_dim(whole, start, size, dim)
        return whole

    def _summed_share(self, whole: jax.Array, dim: int) -> jax.Array:
        # Shares in a dimension of their own, and two more: of that the TPU compiler makes a
        # reduce-scatter for every leaf, and otherwise an all-reduce of twice the bytes for some.
        shares = jnp.stack(jnp.split(whole, self.mesh.shape[FSDP], dim))
        _, *share = shares.shape
        flat = shares.reshape(len(shares), -1, share[-1])
        return jax.lax.psum_scatter(flat, FSDP).reshape(share)

    def _used(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(axis for axis in axes if self.mesh.shape[axis] > 1)


def own_copies(params: Tree, mesh: Mesh) -> Tree:
    """Parameters as `partition_specs` deals them, typed as varying over all axes."""
    return jax.tree_util.tree_map_with_path(lambda path, x: over_all(x, _axes(path, mesh)), params)


def sum_over_users(gradients: Tree, mesh: Mesh) -> Tree:
    """Adds up what devices found for their users; typed as `partition_specs` deals parameters.

    What lies in shards over `fsdp` has been added up over it already (`Shards.scatter`).
    """

    def total(path: tuple[Any, ...], gradient: jax.Array) -> jax.Array:
        used = _axes(path, mesh)
        gradient = jax.lax.psum(gradient, tuple(axis for axis in USERS if axis not in used))
        # Copies over `tensor` are equal: this is for their type.
        return gradient if TENSOR in used else jax.lax.pmean(gradient, TENSOR)

    return jax.tree_util.tree_map_with_path(total, gradients)


def _rule(path: tuple[Any, ...]) -> Rule:
    return rule_for(path_of(path))


def _axes(path: tuple[Any, ...], mesh: Mesh) -> tuple[str, ...]:
    """The axes that a leaf lies over."""
    return tuple(axis for axis in _rule(path).axes if mesh.shape[axis] > 1)
