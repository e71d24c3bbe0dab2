"""What one accelerator can do: memory, arithmetic, bandwidth, from the vendors' public pages.

Google's pages are docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, read in 2026. They speak
of chips; this table speaks of what jax calls a device where it says so, because a TPU7x chip is two
devices (one per TensorCore). What no page states is None.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from clue_jax.errors import ConfigError

GiB = 2**30


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator. Bandwidths are in bytes per second, and in one direction."""

    name: str  # what stands before the colon of a topology ("v5e" in "v5e:16x16")
    kinds: tuple[str, ...]  # how jax's `device_kind` may begin
    bf16_flops: float  # dense peak of one device in FLOP/s
    hbm_bytes: int | None  # of one device
    # What the compiler lets one device's program occupy: less than hbm_bytes by its own reserve.
    # As its refusals of a too large program state it (libtpu of jax 0.10.2).
    usable_hbm_bytes: int | None
    hbm_bandwidth: float | None  # of one device
    links: int  # of one chip to its neighbours in the slice: ICI, or NVLink
    link_bandwidth: float  # of one such link
    # One chip's share of its host's data-centre network, which is what connects slices.
    network_bandwidth: float | None = None
    devices_per_chip: int = 1
    torus: int | None = None  # dimensions of its topologies
    pod_chips: int | None = None  # the largest slice that there can be
    # Chips of one host along each dimension of the topology; None: no topology can be asked for.
    host_bounds: tuple[int, int, int] | None = None
    # A value of TPU_ACCELERATOR_TYPE. Any will do, the topology's own name decides what is compiled
    # for; without one libtpu complains that it cannot tell what machine it is on.
    accelerator_type: str | None = None
    # v4 joins its two TensorCores to one device on real machines, but not unless told here.
    megacore: bool = False

    @property
    def chip_link_bandwidth(self) -> float:
        """What one chip can send to all of its neighbours together."""
        return self.links * self.link_bandwidth


# Bandwidth of a link: the page's bidirectional figure per chip / 2 / links, where it has one; the
# page of v5e states 1600 Gbit/s per chip over 4 links in one direction.
TPUS = (
    Chip(
        "v4",
        ("TPU v4",),
        bf16_flops=275e12,
        hbm_bytes=32 * GiB,
        usable_hbm_bytes=int(30.75 * GiB),
        hbm_bandwidth=1200e9,
        links=6,
        # Jouppi et al., TPU v4 (arXiv:2304.01433), table 4: 6 links at 50 GB/s.
        link_bandwidth=50e9,
        torus=3,
        pod_chips=4096,
        host_bounds=(2, 2, 1),
        accelerator_type="v4-8",
        megacore=True,
    ),
    Chip(
        "v5e",
        ("TPU v5 lite", "TPU v5e"),
        bf16_flops=197e12,
        hbm_bytes=16 * GiB,
        usable_hbm_bytes=int(15.75 * GiB),
        hbm_bandwidth=819e9,
        links=4,
        link_bandwidth=50e9,
        network_bandwidth=200e9 / 8 / 8,  # 2 x 100 Gbit/s per host of 8 chips
        torus=2,
        pod_chips=256,
        host_bounds=(2, 2, 1),
        accelerator_type="v5litepod-4",
    ),
    Chip(
        "v5p",
        ("TPU v5", "TPU v5p"),
        bf16_flops=459e12,
        hbm_bytes=95 * GiB,
        usable_hbm_bytes=int(95.74 * GiB),  # more than the page states; so does the compiler
        hbm_bandwidth=2765e9,
        links=6,
        link_bandwidth=100e9,
        network_bandwidth=50e9 / 8,
        torus=3,
        pod_chips=8960,
        host_bounds=(2, 2, 1),
        accelerator_type="v5p-8",
    ),
    Chip(
        "v6e",
        ("TPU v6 lite", "TPU v6e"),
        bf16_flops=918e12,
        hbm_bytes=32 * GiB,
        usable_hbm_bytes=int(31.25 * GiB),
        hbm_bandwidth=1638e9,
        links=4,
        link_bandwidth=100e9,
        network_bandwidth=100e9 / 8,
        torus=2,
        pod_chips=256,
        host_bounds=(2, 2, 1),
        accelerator_type="v6e-4",
    ),
    Chip(
        "tpu7x",
        ("TPU7x", "TPU v7x"),
        bf16_flops=2307e12 / 2,
        hbm_bytes=192 * GiB // 2,
        usable_hbm_bytes=int(94.75 * GiB),
        hbm_bandwidth=7380e9 / 2,
        links=6,
        link_bandwidth=100e9,
        network_bandwidth=100e9 / 8,
        devices_per_chip=2,
        torus=3,
        pod_chips=9216,
        host_bounds=(2, 2, 1),
        accelerator_type="tpu7x-8",
    ),
)
# NVIDIA's data sheets. NVLink is 25 GB/s per link and direction in both generations; memory is left
# out where one device_kind prefix covers several sizes.
GPUS = (
    Chip("a100", ("NVIDIA A100",), 312e12, None, None, None, links=12, link_bandwidth=25e9),
    Chip("h100", ("NVIDIA H100",), 989e12, None, None, None, links=18, link_bandwidth=25e9),
    Chip("h200", ("NVIDIA H200",), 989e12, int(141e9), None, 4.8e12, links=18, link_bandwidth=25e9),
)


def chip_of_kind(device_kind: str) -> Chip | None:
    """The chip with the longest of `kinds` that `device_kind` begins with, so that "TPU v5 lite"
    is no "TPU v5"; None for what is not in the table (a CPU)."""
    matches = [
        (len(kind), chip)
        for chip in TPUS + GPUS
        for kind in chip.kinds
        if device_kind.startswith(kind)
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def chip_of_topology(name: str) -> Chip | None:
    """The chip of a topology such as "v5e:16x16"."""
    return next((chip for chip in TPUS if chip.name == name.partition(":")[0]), None)


# A topology of each TPU of the table.
EXAMPLES = ("v4:4x4x4", "v5e:16x16", "v5p:8x8x8", "v6e:16x16", "tpu7x:4x4x4")


def check_topology(name: str, slices: int = 1, setting: str = "--topology") -> Chip:
    """The chip of a topology that there can be, such as "v5e:16x16".

    Raises:
        ConfigError: no chip has that name or shape, or there are not so many; names `setting`.
    """
    chip, shape = chip_of_topology(name), name.partition(":")[2]
    said = f"{setting}={name}"
    if chip is None:
        raise ConfigError(
            f"{said}: no chip of that name; there are"
            f" {', '.join(chip.name for chip in TPUS)}, for example {setting}={EXAMPLES[1]}"
        )
    example = next(other for other in EXAMPLES if chip_of_topology(other) is chip)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or shape.count("x") + 1 != chip.torus:
        raise ConfigError(
            f"{said}: a {chip.name} topology is {chip.torus} numbers of chips,"
            f" for example {example}"
        )
    sides = sides_of(name)
    assert chip.host_bounds and chip.pod_chips  # every TPU of the table has them
    if any(side % bound for side, bound in zip(sides, chip.host_bounds, strict=False)):
        host = "x".join(map(str, chip.host_bounds[: len(sides)]))
        raise ConfigError(f"{said}: a host has {host} chips; the sides are multiples")
    if math.prod(sides) > chip.pod_chips:
        raise ConfigError(
            f"{said}: {math.prod(sides)} chips, but a {chip.name} pod has"
            f" {chip.pod_chips}; use --slices for more"
        )
    if slices < 1:
        raise ConfigError(f"--slices={slices}: at least 1")
    return chip


def sides_of(topology: str) -> tuple[int, ...]:
    """Chips along each dimension of a topology."""
    return tuple(int(side) for side in topology.partition(":")[2].split("x"))
