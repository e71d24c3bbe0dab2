"""What the clouds call the chips of `clue_jax/parallel/chips.py`, and how many hosts a job has.

Names are those of docs.cloud.google.com (tpu/docs, kubernetes-engine/docs/concepts/plan-tpus,
compute/docs/tpus) and of the xpk tool, read in 2026.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from clue_jax.errors import ConfigError
from clue_jax.parallel.chips import EXAMPLES, GPUS, TPUS, check_topology, sides_of

HOST_CHIPS = 4  # of the machine types below


@dataclass(frozen=True)
class TpuNames:
    """One kind of TPU; an empty name: it is not to be had there."""

    accelerator: str  # of the Cloud TPU API, followed by a number
    cores: int  # that the number counts of each chip
    runtime: str  # the API's image
    machine_type: str  # of Compute Engine and GKE, with four chips
    gke: str  # label cloud.google.com/gke-tpu-accelerator
    image_family: str  # of Compute Engine


_IMAGE = "ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e"
IMAGE_PROJECT = "ubuntu-os-accelerator-images"
TPU_NAMES = {
    "v4": TpuNames("v4", 2, "tpu-ubuntu2204-base", "ct4p-hightpu-4t", "tpu-v4-podslice", ""),
    "v5e": TpuNames(
        "v5litepod", 1, "v2-alpha-tpuv5-lite", "ct5lp-hightpu-4t", "tpu-v5-lite-podslice", ""
    ),
    "v5p": TpuNames("v5p", 2, "v2-alpha-tpuv5", "ct5p-hightpu-4t", "tpu-v5p-slice", _IMAGE),
    "v6e": TpuNames("v6e", 1, "v2-alpha-tpuv6e", "ct6e-standard-4t", "tpu-v6e-slice", _IMAGE),
    "tpu7x": TpuNames("", 2, "", "tpu7x-standard-4t", "tpu7x", "ubuntu-accel-2404-amd64-tpu-tpu7x"),
}
# Label cloud.google.com/gke-accelerator.
GPU_LABELS = {"a100": "nvidia-tesla-a100", "h100": "nvidia-h100-80gb", "h200": "nvidia-h200-141gb"}
ANY_GPU = "gpu"


@dataclass(frozen=True)
class Slice:
    """TPU chips that are linked to each other, and how many such slices there are."""

    chip: str  # v5e
    topology: str  # 4x4
    slices: int

    @property
    def names(self) -> TpuNames:
        return TPU_NAMES[self.chip]

    @property
    def chips(self) -> int:
        """Of one slice."""
        return math.prod(sides_of(f"{self.chip}:{self.topology}"))

    @property
    def hosts(self) -> int:
        """Of one slice."""
        return self.chips // HOST_CHIPS

    @property
    def all_hosts(self) -> int:
        return self.hosts * self.slices

    @property
    def all_chips(self) -> int:
        return self.chips * self.slices

    @property
    def accelerator_type(self) -> str:
        """Name of one slice in the Cloud TPU API, such as v5litepod-16."""
        return f"{self.names.accelerator}-{self.chips * self.names.cores}"

    def __str__(self) -> str:
        each = f"{self.chips} {self.chip} chips ({self.topology}) on {self.hosts} hosts"
        return each if self.slices == 1 else f"{self.slices} slices of {each}"


@dataclass(frozen=True)
class Gpus:
    """GPUs of equal nodes."""

    kind: str  # h100; gpu: whatever is there
    of_node: int
    nodes: int

    @property
    def all_hosts(self) -> int:
        return self.nodes

    @property
    def all_chips(self) -> int:
        return self.of_node * self.nodes

    def __str__(self) -> str:
        kind = "GPUs" if self.kind == ANY_GPU else f"{self.kind} GPUs"
        return f"{self.of_node} {kind} on {'one node' if self.nodes == 1 else 'each node'}" + (
            "" if self.nodes == 1 else f", {self.nodes} nodes"
        )


@dataclass(frozen=True)
class Cpus:
    """Nodes without accelerators."""

    nodes: int
    all_chips = 0

    @property
    def all_hosts(self) -> int:
        return self.nodes

    def __str__(self) -> str:
        return f"CPUs of {self.nodes} node{'s' if self.nodes > 1 else ''}"


def machines_of(accelerator: str, slices: int = 1, nodes: int = 1) -> Slice | Gpus | Cpus:
    """What `accelerator` names: "v5e:4x4", "h100:8", "gpu:4", or nothing for CPUs.

    Raises:
        ConfigError: there is no such chip or topology; names those known.
    """
    if not accelerator:
        return Cpus(nodes)
    kind, _, shape = accelerator.partition(":")
    gpus = [chip.name for chip in GPUS] + [ANY_GPU]
    if kind in gpus:
        if not re.fullmatch(r"[1-9]\d?", shape):
            raise ConfigError(
                f"job.accelerator: {accelerator!r}: how many GPUs has a node? For example {kind}:8"
            )
        return Gpus(kind, int(shape), nodes)
    if kind not in [chip.name for chip in TPUS]:
        raise ConfigError(
            f"job.accelerator: no chip {kind!r}; known are topologies of TPUs such as"
            f" {', '.join(EXAMPLES)}, and GPUs of a node: {', '.join(f'{g}:8' for g in gpus)}"
        )
    check_topology(accelerator, slices, "job.accelerator")
    return Slice(kind, shape, slices)
