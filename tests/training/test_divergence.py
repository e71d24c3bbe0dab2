"""A device whose copy of a parameter is none is found and named."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clue_jax.config import MeshConfig
from clue_jax.errors import NonFiniteError
from clue_jax.parallel.mesh import make_mesh
from clue_jax.training.divergence import make_divergence_check


def laid(values, sharding, spoilt=None):
    """An array on the devices; the copy of device `spoilt` has one bit flipped."""
    whole = jax.device_put(values, sharding)
    parts = []
    for shard in whole.addressable_shards:
        part = np.array(shard.data)
        if shard.device.id == spoilt:
            part.view(np.uint32).reshape(-1)[-1] ^= 1
        parts.append(jax.device_put(part, shard.device))
    return jax.make_array_from_single_device_arrays(whole.shape, sharding, parts)


@pytest.mark.parametrize(
    ("axes", "spec", "spoilt", "suspects"),
    [
        ({}, P(), 5, "cpu:5"),
        ({"data": 2, "fsdp": 4}, P("fsdp"), 3, "cpu:3 cpu:7"),
        ({"data": 2, "fsdp": 2, "tensor": 2}, P("tensor"), 6, "cpu:6"),
        ({"data": 1, "fsdp": 4, "tensor": 2}, P(("fsdp", "tensor")), 6, ""),  # no copies
    ],
)
def test_the_device_with_other_bits_is_named(axes, spec, spoilt, suspects):
    mesh = make_mesh(MeshConfig(**axes))
    lies = {"a": NamedSharding(mesh, spec), "b": NamedSharding(mesh, P())}
    values = np.arange(32, dtype=np.float32).reshape(16, 2)
    check = make_divergence_check(lies, mesh)
    sound = {"a": laid(values, lies["a"]), "b": laid(values, lies["b"])}
    check(7, sound)
    spoiled = sound | {"a": laid(values, lies["a"], spoilt)}
    if not suspects:
        check(7, spoiled)
        return
    with pytest.raises(NonFiniteError, match=r"step 7: \['a'\]") as raised:
        check(7, spoiled)
    # Of two copies nobody can say which is wrong.
    assert sorted(re.findall(r"cpu:\d", str(raised.value))) == suspects.split()
