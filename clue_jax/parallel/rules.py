"""Which parameter lies how on the mesh: one ordered table of path -> axes.

The first rule whose expression is found in a path decides, for parameters and for the optimizer's
moments of them alike. A path without a rule is an error, never a silent copy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clue_jax.errors import ConfigError
from clue_jax.parallel.mesh import FSDP, TENSOR

Tree = Any
Axes = tuple[str, ...]
_BOTH = (FSDP, TENSOR)


@dataclass(frozen=True)
class Rule:
    """How one kind of leaf lies.

    A dimension over `tensor` alone stays so while it is computed with: a device has its heads or
    hidden units. All others are gathered for a step, in the compute type if `operand`.
    """

    path: str
    dims: tuple[Axes, ...] = ()  # axes of each dimension
    operand: bool = False  # products take it in the compute type anyway

    @property
    def axes(self) -> Axes:
        return tuple(axis for dim in self.dims for axis in dim)

    def gathered(self) -> list[tuple[int, Axes]]:
        """Dimensions that are whole during a step, and the axes they are gathered over."""
        return [(d, axes) for d, axes in enumerate(self.dims) if axes and axes != (TENSOR,)]


# Attention and MLP as in Megatron-LM (Shoeybi et al., arXiv 1909.08053, section 3): a device has
# whole heads and whole hidden units, so a block needs one sum over `tensor` each. The leading
# dimension of blocks is their number. Vocabularies divide by nothing, so embeddings part the width.
RULES = (
    Rule(r"attention/qkv$", ((), (FSDP,), (), (TENSOR,), ()), operand=True),
    Rule(r"attention/out$", ((), (TENSOR,), (), (FSDP,)), operand=True),
    Rule(r"mlp/up$", ((), (FSDP,), (), (TENSOR,)), operand=True),
    Rule(r"mlp/down$", ((), (TENSOR,), (FSDP,)), operand=True),
    Rule(r"(^|/)embedding$", ((), _BOTH), operand=True),
    Rule(r"(^|/)projection$", ((), _BOTH)),
    Rule(r"norm/scale$"),
    Rule(r"(^|/)(log_scale|bias|step|count)$"),
    Rule(r"recent/(values_2W|updates)$"),
)


def path_of(path: tuple[Any, ...]) -> str:
    """A leaf's place in its tree: `params/encoder/embedding`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def rule_for(path: str) -> Rule:
    """The rule of a path.

    Raises:
        ConfigError: it has none.
    """
    for rule in RULES:
        if re.search(rule.path, path):
            return rule
    raise ConfigError(f"{path}: no rule of clue_jax/parallel/rules.py says how it lies on a mesh")


def partition_specs(tree: Tree, mesh: Mesh) -> Tree:
    """PartitionSpec of every leaf (arrays or shapes); axes of one device are left out.

    Raises:
        ConfigError: a leaf has no rule, or a dimension does not divide by its axes.
    """

    def spec(path: tuple[Any, ...], leaf: Any) -> P:
        name = path_of(path)
        dims = rule_for(name).dims
        if dims and len(dims) != len(leaf.shape):
            raise ConfigError(
                f"{name}: shape {leaf.shape}, but its rule has {len(dims)} dimensions"
            )
        used = [tuple(axis for axis in dim if mesh.shape[axis] > 1) for dim in dims]
        for number, axes in enumerate(used):
            _check_divides(name, number, leaf.shape[number], axes, mesh)
        return P(*(axes if len(axes) > 1 else axes[0] if axes else None for axes in used))

    return jax.tree_util.tree_map_with_path(spec, tree)


def _check_divides(name: str, number: int, size: int, axes: Axes, mesh: Mesh) -> None:
    parts = 1
    for axis in axes:
        parts *= mesh.shape[axis]
    if size % parts:
        # Of what divides, only what parts the devices as well is of use.
        valid = [n for n in range(1, size + 1) if size % n == 0 and mesh.size % n == 0]
        below = max(n for n in valid if n < parts or n == 1)
        nearest = {below, min((n for n in valid if n > parts), default=below)}
        keys = " x ".join(f"config.mesh.{axis}" for axis in axes)
        raise ConfigError(
            f"{keys}: {name} has {size} in dimension {number}, which do not divide over"
            f" {parts} devices; nearest: {' or '.join(map(str, sorted(nearest)))}"
        )


def shardings(tree: Tree, mesh: Mesh) -> Tree:
    """NamedSharding of every leaf; see `partition_specs`."""
    specs = partition_specs(tree, mesh)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=_is_spec)


def _is_spec(value: Any) -> bool:
    return isinstance(value, P)
