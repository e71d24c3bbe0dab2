"""Topologies: mistakes are named before any compiler is asked; the real ones need libtpu."""

import importlib.util
import os

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clue_jax.compilation.collectives import collectives
from clue_jax.compilation.topology import ENVIRONMENT, describe_topology
from clue_jax.errors import ConfigError
from clue_jax.parallel.chips import EXAMPLES, TPUS, chip_of_kind, chip_of_topology


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a test adds to the environment is gone after it."""
    for name in (*ENVIRONMENT, "TPU_ACCELERATOR_TYPE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.mark.parametrize(
    ("name", "slices", "message"),
    [
        ("v9:4x4", 1, "no chip of that name; there are v4, v5e, .* --topology=v5e:16x16"),
        ("v5e", 1, "a v5e topology is 2 numbers of chips, for example v5e:16x16"),
        ("v5e:4x4x4", 1, "2 numbers of chips"),
        ("v5p:16x16", 1, "a v5p topology is 3 numbers of chips, for example v5p:8x8x8"),
        ("v5e:4x-4", 1, "2 numbers"),
        ("v5e:0x4", 1, "2 numbers"),
        ("v5e:3x4", 1, "a host has 2x2 chips"),
        ("v5e:32x32", 1, "1024 chips, but a v5e pod has 256; use --slices"),
        ("v5e:4x4", 0, "--slices=0: at least 1"),
    ],
)
def test_impossible_topologies_are_refused(name, slices, message):
    with pytest.raises(ConfigError, match=message):
        describe_topology(name, slices)


def test_a_missing_compiler_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(ConfigError, match=r"libtpu.*pip install '\.\[tpu\]'"):
        describe_topology("v5e:4x4")


def test_what_the_compiler_refuses_is_passed_on(monkeypatch):
    def refuse(**_):
        raise IndexError("list index out of range")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(jax.experimental.topologies, "get_topology_desc", refuse)
    with pytest.raises(ConfigError, match="refuses this topology: list index out of range; known"):
        describe_topology("v5e:4x4")


def test_each_chip_has_an_example():
    assert [chip_of_topology(name) for name in EXAMPLES] == list(TPUS)


@pytest.mark.parametrize(("name", "slices"), [*((name, 1) for name in EXAMPLES), ("v6e:4x4", 2)])
def test_real_topologies_have_their_devices(name, slices):
    pytest.importorskip("libtpu")
    devices, chip = describe_topology(name, slices)
    chips = np.prod([int(side) for side in name.partition(":")[2].split("x")])
    assert devices.shape == (slices * chips * chip.devices_per_chip,)
    assert chip_of_kind(devices[0].device_kind) is chip
    # Slice by slice, so that a device's place divided by a slice's size is its slice.
    assert [getattr(d, "slice_index", 0) or 0 for d in devices] == sorted(
        list(range(slices)) * (len(devices) // slices)
    )


@pytest.mark.parametrize("slices", [1, 2])
def test_a_real_program_is_compiled_and_read(slices):
    pytest.importorskip("libtpu")
    devices, _ = describe_topology("v5e:4x4", slices)
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    x = jax.ShapeDtypeStruct((1024, 128), np.float32, sharding=NamedSharding(mesh, P("data")))
    total = jax.shard_map(
        lambda x_bE: jax.lax.psum(x_bE, "data"), mesh=mesh, in_specs=P("data"), out_specs=P()
    )
    found = collectives(jax.jit(total).lower(x).compile().as_text(), devices_per_slice=16)
    within = [c for c in found if not c.crosses_slices]
    assert {c.group_size for c in within} == {16} and {c.times for c in found} == {1}
    assert [c.group_size for c in found if c.crosses_slices] == [2] * (slices - 1)


def test_a_real_scatter_is_one_only_along_the_torus():
    """Along one side of the torus it is a reduce-scatter, over both at once an all-reduce."""
    pytest.importorskip("libtpu")
    devices, _ = describe_topology("v5e:4x4")
    mesh = jax.make_mesh((4, 4), ("x", "y"), devices=list(devices), axis_types=(AxisType.Auto,) * 2)
    x = jax.ShapeDtypeStruct((2**14, 512), np.float32, sharding=NamedSharding(mesh, P()))

    def kinds(*scatters):
        def scatter(x_bE):
            for axes in scatters:
                x_bE = jax.lax.psum_scatter(x_bE, axes, tiled=True)
            return x_bE

        rows = P(("x", "y"))
        mapped = jax.shard_map(scatter, mesh=mesh, in_specs=P(), out_specs=rows, check_vma=False)
        found = collectives(jax.jit(mapped).lower(x).compile().as_text())
        return {c.kind for c in found} - {"collective-permute"}  # which only moves padding

    assert kinds("x", "y") == {"reduce-scatter"} and kinds(("x", "y")) == {"all-reduce"}
