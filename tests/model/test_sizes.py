"""Presets have the sizes of their names, and counts in closed form are true."""

import jax
import pytest

from clue_jax.config import Activation, EncoderConfig, TransformerConfig
from clue_jax.model import clue
from clue_jax.model.sizes import PRESETS, forward_flops, loss_flops, parameter_count, preset

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
    assert loss_flops(config, batch=8, pairs=3) == 3 * 2 * 64 * 6
