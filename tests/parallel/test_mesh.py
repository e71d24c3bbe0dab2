"""Meshes: sizes that multiply to the devices, and errors that name the way out."""

import jax
import pytest

from clue_jax.config import MeshConfig
from clue_jax.errors import ConfigError
from clue_jax.parallel.mesh import (
    make_mesh,
    replicated,
    sharded,
    single_device_mesh,
    users_per_group,
)


@pytest.mark.parametrize("data", [-1, 8])
def test_users_are_dealt_over_all_devices(data):
    mesh = make_mesh(MeshConfig(data=data))
    assert (
        dict(mesh.shape) == {"data": 8, "fsdp": 1, "tensor": 1} and users_per_group(64, mesh) == 8
    )
    assert dict(single_device_mesh().shape) == {"data": 1, "fsdp": 1, "tensor": 1}


def test_shardings_replicate_or_deal():
    mesh = make_mesh(MeshConfig())
    array = jax.numpy.arange(16)
    assert {s.data.size for s in jax.device_put(array, sharded(mesh)).addressable_shards} == {2}
    assert {s.data.size for s in jax.device_put(array, replicated(mesh)).addressable_shards} == {16}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (MeshConfig(data=3), "needs 3 devices, but there are 8; .*mesh.data=8"),
        (MeshConfig(data=-1, fsdp=-1), "-1 at most once"),
        (MeshConfig(data=0), "sizes are positive"),
        (MeshConfig(data=-1, fsdp=3), "there are 8"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(config, problem):
    with pytest.raises(ConfigError, match=problem):
        make_mesh(config)


def test_a_batch_that_does_not_divide_names_its_neighbours():
    with pytest.raises(ConfigError, match="30 users do not divide over 8 devices; nearest: 24 or"):
        users_per_group(30, make_mesh(MeshConfig()))
    with pytest.raises(ConfigError, match="nearest: 8$"):
        users_per_group(5, make_mesh(MeshConfig()))
