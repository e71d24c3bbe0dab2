"""Presets have the sizes of their names, and counts in closed form are true."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from clue_jax.config import (
    Activation,
    EncoderConfig,
    LossConfig,
    PretrainConfig,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.data.capacity import capacity_for
from clue_jax.data.packing import pack_views
from clue_jax.data.records import Users
from clue_jax.data.sampling import full_views
from clue_jax.model import clue
from clue_jax.model.sizes import PRESETS, forward_flops, loss_flops, parameter_count, preset
from tests.model import padded
from tests.model.jaxprs import equations

PAPER_VOCABULARY = 50_258  # LMRec, arXiv 2212.03760
OTHERS = {
    "small": EncoderConfig(),
    "swiglu": EncoderConfig(activation=Activation.SWIGLU, width=64, embedding_width=96),
    "bag": EncoderConfig(
        item=TransformerConfig(0),
        service=TransformerConfig(0),
        normalize_items=True,
        project=False,
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_size_of_its_name(name):
    count = parameter_count(preset(name), PAPER_VOCABULARY)
    assert count == pytest.approx(float(name.removesuffix("M")) * 1e6, rel=0.05)


@pytest.mark.parametrize("name", [*PRESETS, *OTHERS])
def test_parameters_are_counted_exactly(name):
    config = OTHERS.get(name) or preset(name)
    shapes = jax.eval_shape(lambda: clue.init(config, 1_000, jax.random.key(0)))
    assert parameter_count(config, 1_000) == sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_flops_are_two_a_multiply_and_add():
    config = EncoderConfig(
        width=4,
        embedding_width=6,
        item=TransformerConfig(3, 2, 8),
        service=TransformerConfig(1, 2, 16),
    )
    counts = {"tokens": 10, "token_pairs": 40, "behaviours": 5, "behaviour_pairs": 9, "views": 2}
    item = 3 * (10 * 2 * (4 * 16 + 2 * 32) + 40 * 4 * 4)
    service = 5 * 2 * (4 * 16 + 2 * 64) + 9 * 4 * 4
    assert forward_flops(config, counts) == item + service + 2 * 2 * 24
    run = PretrainConfig(encoder=config, train=TrainConfig(batch_users=8))
    assert loss_flops(run, pairs=3) == 3 * 2 * 64 * 6
    nested = dataclasses.replace(run, loss=LossConfig(matryoshka=(2, 6)))
    assert loss_flops(nested, pairs=3) == 3 * 2 * 64 * (2 + 6)


@pytest.mark.parametrize("activation", Activation)
def test_flops_are_those_of_the_products_that_the_mathematics_needs(activation):
    """Counted in the padded form, on users of whom nothing repeats and nothing is padding."""
    count, services, behaviours, tokens = 2, 2, 3, 5
    config = EncoderConfig(
        width=8,
        embedding_width=6,
        item=TransformerConfig(2, 2, 12),
        service=TransformerConfig(1, 4, 20),
        activation=activation,
        max_item_tokens=tokens,
        max_history=behaviours,
    )
    items = count * services * behaviours
    users = Users(
        user_ids=np.array([f"user-{n}" for n in range(count)], object),
        services=tuple(f"service-{s}" for s in range(services)),
        item_ids=np.arange(items, dtype=np.uint64),
        item_offsets=np.arange(count + 1) * services * behaviours,
        tokens=np.ones(items * tokens, np.int32),
        token_offsets=np.arange(items + 1) * tokens,
        behaviour_items=np.tile(np.arange(services * behaviours, dtype=np.int32), count),
        behaviour_times=np.arange(items),
        behaviour_offsets=np.arange(count * services + 1) * behaviours,
    )
    views = full_views(users, behaviours)
    _, stats = pack_views(users, views, capacity_for(users, config, count, services), config)
    params = jax.eval_shape(lambda: clue.init(config, 10, jax.random.key(0)))
    arrays = padded.pad(users, views, config)
    assert arrays[1].all()
    jaxpr = jax.make_jaxpr(lambda params: padded.encode(params, config, *arrays))(params).jaxpr
    products = [eqn for eqn in equations(jaxpr) if eqn.primitive.name == "dot_general"]
    assert forward_flops(config, stats) == sum(map(product_flops, products))


def product_flops(eqn):
    """Two for each term of each sum of a dot_general."""
    (summed, _), _ = eqn.params["dimension_numbers"]
    terms = math.prod(eqn.invars[0].aval.shape[axis] for axis in summed)
    return 2 * terms * math.prod(eqn.outvars[0].aval.shape)
