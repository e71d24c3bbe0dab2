"""Slices of TPU pods that need not be there: devices to compile for on any machine.

See jax.experimental.topologies and https://openxla.org/xla/aot_compilation.
"""

from __future__ import annotations

import importlib.util
import os

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies

from clue_jax.errors import ConfigError
from clue_jax.parallel.chips import EXAMPLES, Chip, check_topology

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # nothing runs on a TPU here
    "TPU_SKIP_MDS_QUERY": "1",  # ask no metadata server about this machine
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Compiling occupies no chip, so other processes may do so, or train, at the same time.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def describe_topology(name: str, slices: int = 1) -> tuple[np.ndarray, Chip]:
    """Devices of `slices` equal slices, such as "v5e:16x16", and what kind of chip they are.

    The devices, of shape [slices * devices per slice], are in the order in which a mesh of one axis
    takes them: neighbours in the torus are neighbours in the mesh, and a slice follows the other.

    Raises:
        ConfigError: there is no such slice, or libtpu, which knows the slices, is missing.
    """
    chip = _check(name, slices)
    # libtpu reads the environment once, when it is loaded.
    os.environ.update(ENVIRONMENT, TPU_ACCELERATOR_TYPE=str(chip.accelerator_type))
    jax.config.update("jax_platforms", "cpu")  # jax read JAX_PLATFORMS when it was imported
    options = {"chip_config_name": "megacore"} if chip.megacore else {}
    try:
        described = topologies.get_topology_desc(
            topology_name=name,
            platform="tpu",
            chips_per_host_bounds=chip.host_bounds,
            num_slices=slices,
            **options,
        )
        devices: np.ndarray = np.asarray(described.devices).reshape(slices, -1)
    except Exception as error:  # libtpu's own, IndexError and others: it states no set of them
        raise ConfigError(
            f"--topology={name} --slices={slices}: the TPU compiler refuses this topology:"
            f" {str(error).strip() or type(error).__name__}; known are for example"
            f" {', '.join(EXAMPLES)}"
        ) from error
    n = devices.shape[1]
    ordered = [mesh_utils.create_device_mesh((n,), list(slice_)) for slice_ in devices]
    return np.concatenate(ordered), chip


def _check(name: str, slices: int) -> Chip:
    """Finds the chip, and the mistakes that need no compiler to be found."""
    chip = check_topology(name, slices)
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise ConfigError(
            f"--topology={name}: the TPU compiler (libtpu) is not installed; in a virtual"
            " environment of its own: pip install '.[tpu]'"
        )
    return chip
