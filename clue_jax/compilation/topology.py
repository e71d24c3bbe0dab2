"""Slices of TPU pods that need not be there: devices to compile for on any machine.

See jax.experimental.topologies and https://openxla.org/xla/aot_compilation.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies

from clue_jax.errors import ConfigError
from clue_jax.parallel.chips import TPUS, Chip, chip_of_topology

EXAMPLES = ("v4:4x4x4", "v5e:16x16", "v5p:8x8x8", "v6e:16x16", "tpu7x:4x4x4")
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
    chip, shape = chip_of_topology(name), name.partition(":")[2]
    if chip is None:
        raise ConfigError(
            f"--topology={name}: no chip of that name; there are"
            f" {', '.join(chip.name for chip in TPUS)}, for example --topology={EXAMPLES[1]}"
        )
    example = next(other for other in EXAMPLES if chip_of_topology(other) is chip)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or shape.count("x") + 1 != chip.torus:
        raise ConfigError(
            f"--topology={name}: a {chip.name} topology is {chip.torus} numbers of chips,"
            f" for example {example}"
        )
    sides = [int(side) for side in shape.split("x")]
    assert chip.host_bounds and chip.pod_chips  # every TPU of the table has them
    if any(side % bound for side, bound in zip(sides, chip.host_bounds, strict=False)):
        host = "x".join(map(str, chip.host_bounds[: len(sides)]))
        raise ConfigError(f"--topology={name}: a host has {host} chips; the sides are multiples")
    if math.prod(sides) > chip.pod_chips:
        raise ConfigError(
            f"--topology={name}: {math.prod(sides)} chips, but a {chip.name} pod has"
            f" {chip.pod_chips}; use --slices for more"
        )
    if slices < 1:
        raise ConfigError(f"--slices={slices}: at least 1")
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise ConfigError(
            f"--topology={name}: the TPU compiler (libtpu) is not installed; in a virtual"
            " environment of its own: pip install 'clue_jax[tpu]'"
        )
    return chip
