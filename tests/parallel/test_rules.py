"""How parameters lie on meshes: every leaf by a rule, or an error that names the way out."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clue_jax.config import EncoderConfig, LossForm, MeshConfig, PretrainConfig, TransformerConfig
from clue_jax.errors import ConfigError
from clue_jax.model.sizes import PRESETS, preset
from clue_jax.parallel.mesh import make_mesh
from clue_jax.parallel.rules import partition_specs, path_of, rule_for, shardings
from clue_jax.training.state import init_state, state_shardings

LAYER = TransformerConfig(2, 2, 16)
SMALL = PretrainConfig(
    encoder=EncoderConfig(width=16, embedding_width=8, item=LAYER, service=LAYER)
)


def specs_of(tree, **axes):
    mesh = make_mesh(MeshConfig(**axes), jax.devices())
    flat = jax.tree_util.tree_leaves_with_path(
        partition_specs(tree, mesh), is_leaf=lambda leaf: isinstance(leaf, P)
    )
    return {path_of(path): spec for path, spec in flat}


@pytest.mark.parametrize("form", LossForm)
@pytest.mark.parametrize("size", PRESETS)
def test_every_leaf_of_every_size_has_a_rule_and_divides(size, form):
    config = PretrainConfig(encoder=preset(size))
    config.loss.form = form
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2), jax.devices())
    lies = jax.tree.leaves(state_shardings(config, mesh))
    leaves = jax.tree.leaves(jax.eval_shape(lambda: init_state(config, 50_258)))
    copies = sum(x.size for x, s in zip(leaves, lies, strict=True) if s.is_fully_replicated)
    assert len(lies) == len(leaves)
    assert copies < 0.01 * sum(leaf.size for leaf in leaves)


def test_moments_lie_as_their_parameters():
    specs = specs_of(jax.eval_shape(lambda: init_state(SMALL, 50)), fsdp=2, tensor=2)
    up = "encoder/item/stack/blocks/mlp/up"
    assert specs[f"params/{up}"] == P(None, "fsdp", None, "tensor")
    assert specs[f"opt_state/1/0/mu/{up}"] == specs[f"params/{up}"]
    assert specs["params/encoder/embedding"] == P(None, ("fsdp", "tensor"))
    assert specs["step"] == specs["params/encoder/item/norm/scale"] == P()


def test_axes_of_one_device_are_not_named():
    specs = specs_of(jax.eval_shape(lambda: init_state(SMALL, 50)), data=8)
    assert all(axis is None for spec in specs.values() for axis in spec)


def test_a_path_without_a_rule_is_an_error():
    with pytest.raises(ConfigError, match="encoder/novelty: no rule of .*rules.py"):
        rule_for("encoder/novelty")
    with pytest.raises(ConfigError, match="qkv: shape .* its rule has 5 dimensions"):
        specs_of({"attention": {"qkv": jax.ShapeDtypeStruct((4, 4), np.float32)}}, data=8)


@pytest.mark.parametrize(
    ("axes", "problem"),
    [
        ({"tensor": 8}, "config.mesh.tensor: .*out has 2 in dimension 1.* over 8 devices; .*: 2$"),
        ({"fsdp": 8, "width": 12}, "config.mesh.fsdp: .* has 12 .*; nearest: 4$"),
    ],
)
def test_a_dimension_that_does_not_divide_names_what_would(axes, problem):
    config = PretrainConfig(
        encoder=EncoderConfig(width=axes.pop("width", 16), item=LAYER, service=LAYER)
    )
    with pytest.raises(ConfigError, match=problem):
        state_shardings(config, make_mesh(MeshConfig(**axes), jax.devices()))


def test_a_fresh_state_has_the_same_bits_on_every_mesh():
    alone = init_state(SMALL, 50)
    for axes in ({"data": 8}, {"fsdp": 8}, {"fsdp": 2, "tensor": 2}):
        mesh = make_mesh(MeshConfig(**axes), jax.devices())
        dealt = jax.jit(lambda: init_state(SMALL, 50), out_shardings=state_shardings(SMALL, mesh))()
        jax.tree.map(np.testing.assert_array_equal, dealt.params, alone.params)
        assert shardings(dealt, mesh) == jax.tree.map(lambda leaf: leaf.sharding, dealt)
