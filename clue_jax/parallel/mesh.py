"""The device mesh, and the start-up of a process that is one of several."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clue_jax.config import MeshConfig
from clue_jax.errors import ConfigError

DATA = "data"


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh over all devices; users are sharded over its `data` axis.

    Raises:
        ConfigError: the axes do not multiply to the number of devices.
    """
    sizes = {"data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
    devices = jax.device_count()
    open_axes = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) > 1 or min(size for size in sizes.values()) < -1 or fixed == 0:
        raise ConfigError(f"config.mesh: {sizes}: sizes are positive, and -1 at most once")
    if open_axes and devices % fixed == 0:
        sizes[open_axes[0]] = devices // fixed
    if math.prod(sizes.values()) != devices:
        raise ConfigError(
            f"config.mesh: {sizes} needs {abs(math.prod(sizes.values()))} devices, but there are"
            f" {devices}; for example --config.mesh.data={devices // sizes['fsdp']}"
        )
    return jax.make_mesh((sizes["data"],), (DATA,), axis_types=(AxisType.Auto,))


def single_device_mesh() -> Mesh:
    """A mesh of this process's first device."""
    return Mesh(np.array(jax.local_devices()[:1]), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading dimension is dealt over the data axis."""
    return NamedSharding(mesh, P(DATA))


def users_per_device(batch_users: int, mesh: Mesh) -> int:
    """b, from B.

    Raises:
        ConfigError: B is not a multiple of the devices; names the nearest that are.
    """
    devices = mesh.shape[DATA]
    per_device, rest = divmod(batch_users, devices)
    if rest:
        nearest = {max(1, per_device) * devices, (per_device + 1) * devices}
        raise ConfigError(
            f"config.train.batch_users: {batch_users} users do not divide over {devices} devices;"
            f" nearest: {' or '.join(map(str, sorted(nearest)))}"
        )
    return per_device


def varying(tree: Any, like: jax.Array) -> Any:
    """Lets leaves vary over the mesh axes that an integer scalar varies over; values stay.

    Inside `shard_map` a loop's carry must keep its type, and a constant is the same on all devices.
    Adding a zero computed from `like` says otherwise in every version of JAX; of what varies
    already it changes nothing, and of copies gradients are summed where they were made. It takes an
    integer, since zero times a float need not be zero.
    """
    zero = like - like
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), tree)
