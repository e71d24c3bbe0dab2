"""Whether the copies of a parameter still are copies: a device that computes wrongly is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from clue_jax.errors import NonFiniteError
from clue_jax.parallel.mesh import DEVICES
from clue_jax.training.fingerprint import words_of

Tree = Any


def make_divergence_check(lies: Tree, mesh: Mesh) -> Callable[[int, Tree], None]:
    """The check of a state that lies as the NamedShardings `lies` say.

    Gives (step, state) -> None, a collective. It compares the bits that every device holds with
    those of the devices that should hold the same; no copy is compared where there is one alone.

    Raises (when called):
        NonFiniteError: a device has other bits; names step, parameter and device, or all devices
            where no bits are those of most.
    """
    specs = jax.tree.map(lambda sharding: sharding.spec, lies)
    leaves = jax.tree_util.tree_leaves_with_path(specs, is_leaf=_is_spec)

    def words(state: Tree) -> jax.Array:
        own_L2 = jnp.stack([jnp.stack(words_of(leaf)) for leaf in jax.tree.leaves(state)])
        return jax.lax.all_gather(own_L2, DEVICES)

    gathered = jax.jit(
        jax.shard_map(words, mesh=mesh, in_specs=(specs,), out_specs=P(), check_vma=False)
    )

    def check(step: int, state: Tree) -> None:
        words_DL2 = np.asarray(jax.device_get(gathered(state)))
        for number, (path, spec) in enumerate(leaves):
            suspects = _suspects(words_DL2[:, number], spec, mesh)
            if not suspects:
                continue
            names = " and ".join(f"{d} (process {d.process_index})" for d in suspects)
            where = f"step {step}: {jax.tree_util.keystr(path)}"
            if len(suspects) == 1:
                raise NonFiniteError(
                    f"{where} on {names} has other bits than its copies; nothing was saved: take"
                    " that device out, and run the same command again"
                )
            raise NonFiniteError(
                f"{where} differs between {names}, so one of them computes wrongly;"
                " nothing was saved: try without one and then without the other, and run the same"
                " command again"
            )

    return check


def _suspects(words_D2: np.ndarray, spec: P, mesh: Mesh) -> list[jax.Device]:
    """A device whose words are not those of most that hold the same part of a leaf.

    One of each kind where there are no such most; none where all words are as they should be.
    """
    used = {axis for axes in spec for axis in _as_tuple(axes)}
    order = [axis for axis in DEVICES if axis in used] + [a for a in DEVICES if a not in used]
    places = [DEVICES.index(axis) for axis in order]
    parts = int(np.prod([mesh.shape[axis] for axis in used], dtype=int))
    devices_PC = mesh.devices.transpose(places).reshape(parts, -1)
    grid = words_D2.reshape(*mesh.devices.shape, 2).transpose(*places, len(places))
    for devices_C, words_C2 in zip(devices_PC, grid.reshape(parts, -1, 2), strict=True):
        each, of_C, counts = np.unique(words_C2, axis=0, return_inverse=True, return_counts=True)
        if len(each) > 1:
            tied = (counts == counts.max()).sum() > 1
            kinds = range(len(each)) if tied else [int(np.argmin(counts))]
            return [devices_C[int((of_C.reshape(-1) == kind).argmax())] for kind in kinds]
    return []


def _as_tuple(axes: Any) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def _is_spec(value: Any) -> bool:
    return isinstance(value, P)
