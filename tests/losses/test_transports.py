"""What the transports send, read from the compiled program of 8 devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clue_jax.compilation.collectives import collectives
from clue_jax.config import Transport
from clue_jax.losses.contrastive import Sharding, mean_pair_loss
from clue_jax.losses.transports import scatter, scatter_by_groups

GATHER, RING = Transport


@functools.cache
def compiled_text(transport, batch=512, width=128):
    """Optimised HLO of the gradient of the loss of 8 devices, in tiles of 16."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = Sharding("data", 16, transport)
    loss = mean_pair_loss(mesh, sharding)
    vectors = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    return gradients.lower(vectors, vectors, scale, scale).compile().as_text()


@pytest.mark.parametrize("transport", Transport)
def test_no_array_holds_all_similarities(transport):
    # 8 devices x 64 users: [64, 512] of one device, or [512, 512], would be the logits.
    text = compiled_text(transport)
    assert "f32[16,16]" in text.replace("f32[1,16,16]", "f32[16,16]")
    assert not any(f"[{shape}]" in text for shape in ("64,512", "512,64", "512,512"))


def test_gathering_moves_the_vectors_once_and_their_gradients_once():
    sent = [(c.kind, c.times * c.payload_bytes) for c in collectives(compiled_text(GATHER))]
    vectors = 512 * 128 * 4
    large = [(kind, size) for kind, size in sent if size > 512 * 4]
    assert sorted(large) == [("all-gather", vectors), ("reduce-scatter", vectors)]
    # Beside them only scalars of users: their number, places and sums.
    assert sum(size for _, size in sent) <= 1.05 * 2 * vectors


def test_a_ring_sends_half_of_a_devices_block_each_way_at_a_time():
    text = compiled_text(RING)
    sent = [c for c in collectives(text) if c.payload_bytes > 16]
    half = 512 * 128 * 4 // 8 // 2
    assert {c.kind for c in sent} == {"collective-permute"}
    # In a loop over the other devices: vectors there, vectors and their gradients back. Outside:
    # the first step of vectors, which both ways share, and the last of gradients.
    large = [c for c in sent if c.payload_bytes > half // 8]
    assert {c.payload_bytes for c in large} == {half}
    assert sorted(c.times for c in large) == [1] * 4 + [7] * 6
    lines = {line.strip().split(" ")[0].lstrip("%"): line for line in text.splitlines()}
    starts = [lines[c.name].split("source_target_pairs=")[1][:7] for c in large]
    assert sorted(starts) == ["{{0,1},"] * 5 + ["{{0,7},"] * 5


@pytest.mark.parametrize(("shape", "names"), [((8,), "data"), ((2, 2, 2), ("a", "b", "c"))])
def test_scattering_between_groups_and_inside_is_a_reduce_scatter(shape, names):
    axes = (names,) if isinstance(names, str) else names
    mesh = jax.make_mesh(shape, axes, axis_types=(jax.sharding.AxisType.Auto,) * len(axes))
    values = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)

    def run(function):
        spec = P(axes)
        whole = jax.shard_map(
            lambda parts: function(parts, names), mesh=mesh, in_specs=spec, out_specs=spec
        )
        return jax.jit(whole)(values)

    expected = values.reshape(8, 8, 3).sum(0)
    for function in (scatter, scatter_by_groups):
        np.testing.assert_allclose(run(function), expected, rtol=0, atol=1e-5)
