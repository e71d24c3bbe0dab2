"""The device mesh: what its axes are for, and how arrays lie on it.

data    users; parameters are copies. Across slices and nodes, where only gradients travel.
fsdp    users as well; parameters and optimizer state lie in shards, whole only during a step
tensor  heads and hidden units of one group of users; the devices of a group encode together
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clue_jax.config import MeshConfig
from clue_jax.errors import ConfigError

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
USERS = (DATA, FSDP)  # users are dealt over these, one group of devices after the other
DEVICES = (DATA, FSDP, TENSOR)
# The same with the fastest links first: of what is scattered in this order, only a part is left by
# the time it crosses slices.
INNER_FIRST = DEVICES[::-1]


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices, or over those given.

    Raises:
        ConfigError: the axes do not multiply to the number of devices, or do not part slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = _sizes(config, len(devices))
    # Elsewhere a "slice" may be a mere node, whose links nobody has described to XLA.
    on_tpu = devices[0].platform == "tpu"
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if on_tpu else 1
    if sizes[DATA] % slices:
        raise ConfigError(
            f"config.mesh.data: {sizes[DATA]} does not part {slices} slices, between which only"
            f" gradients should travel; it needs to be a multiple of {slices}, so that fsdp and"
            " tensor lie inside a slice"
        )
    shape = tuple(sizes.values())
    if slices > 1:
        inside, across = (shape[0] // slices, *shape[1:]), (slices, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(
            inside, across, devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, DEVICES, axis_types=(AxisType.Auto,) * 3)


def _sizes(config: MeshConfig, devices: int) -> dict[str, int]:
    sizes = {DATA: config.data, FSDP: config.fsdp, TENSOR: config.tensor}
    open_axes = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) > 1 or min(sizes.values()) < -1 or fixed == 0:
        raise ConfigError(f"config.mesh: {sizes}: sizes are positive, and -1 at most once")
    if open_axes and devices % fixed == 0:
        sizes[open_axes[0]] = devices // fixed
    if math.prod(sizes.values()) != devices:
        raise ConfigError(
            f"config.mesh: {sizes} needs {'a multiple of ' if open_axes else ''}{fixed} devices,"
            f" but there are {devices}; {_way_out(sizes, devices)}"
        )
    return sizes


def _way_out(sizes: dict[str, int], devices: int) -> str:
    """Overrides that fit: those that keep fsdp and tensor where these divide the devices."""
    inside = abs(sizes[FSDP] * sizes[TENSOR])
    if devices % inside == 0 and min(sizes[FSDP], sizes[TENSOR]) > 0:
        return f"for example --config.mesh.data={devices // inside}"
    kept = max(n for n in range(1, devices + 1) if devices % n == 0 and n <= max(sizes[FSDP], 1))
    return (
        f"for example --config.mesh.data={devices // kept} --config.mesh.fsdp={kept}"
        " --config.mesh.tensor=1"
    )


def axes_text(shape: Mapping[str, int]) -> str:
    """Axes of more than one device: `data 4 x fsdp 2`."""
    return " x ".join(f"{axis} {n}" for axis, n in shape.items() if n > 1) or f"{DATA} 1"


def single_device_mesh() -> Mesh:
    """A mesh of this process's first device."""
    return make_mesh(MeshConfig(), jax.local_devices()[:1])


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading dimension, one entry a group of users, is dealt over the groups."""
    return NamedSharding(mesh, P(USERS))


def user_groups(mesh: Mesh) -> int:
    """Groups of devices that encode users of their own."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


@functools.cache
def local_groups(mesh: Mesh) -> tuple[int, ...]:
    """Groups with a device of this process, ascending."""
    process = jax.process_index()
    by_group = mesh.devices.reshape(user_groups(mesh), -1)
    return tuple(
        g for g, group in enumerate(by_group) if any(d.process_index == process for d in group)
    )


def users_per_group(batch_users: int, mesh: Mesh) -> int:
    """b, from B.

    Raises:
        ConfigError: B is not a multiple of the devices, each of which takes as many users into
            the loss; names the nearest that are.
    """
    per_device, rest = divmod(batch_users, mesh.size)
    if rest:
        nearest = {max(1, per_device) * mesh.size, (per_device + 1) * mesh.size}
        raise ConfigError(
            f"config.train.batch_users: {batch_users} users do not divide over {mesh.size} devices;"
            f" nearest: {' or '.join(map(str, sorted(nearest)))}"
        )
    return per_device * mesh.shape[TENSOR]


def deal_to_devices(stacked: Any, mesh: Mesh) -> Any:
    """Global arrays with a leading dimension of groups, copies on the devices of a group.

    Args:
        stacked: a tree of NumPy arrays, one entry for each of `local_groups`.
        mesh: the devices.
    """
    sharding, place = sharded(mesh), {g: k for k, g in enumerate(local_groups(mesh))}

    def whole(local: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # only devices of this process are asked for
            return local[place[index[0].start or 0]][None]

        shape = (user_groups(mesh), *local.shape[1:])
        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(whole, stacked)


def to_host(array: jax.Array) -> np.ndarray:
    """The whole array in every process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def varying(tree: Any, like: jax.Array) -> Any:
    """Lets leaves vary over the mesh axes that an integer scalar varies over; values stay.

    Inside `shard_map` a loop's carry must keep its type, and a constant is the same on all devices.
    Adding a zero computed from `like` says otherwise in every version of JAX; of what varies
    already it changes nothing, and of copies gradients are summed where they were made. It takes an
    integer, since zero times a float need not be zero.
    """
    zero = like - like
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), tree)


def over_all(array: jax.Array, axes: Iterable[str]) -> jax.Array:
    """Inside `shard_map`: lets an array that varies over `axes` vary over all axes; values stay."""
    missing = tuple(axis for axis in DEVICES if axis not in set(axes))
    return jax.lax.pcast(array, missing, to="varying") if missing else array
