"""What a run says before its first step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import (
    AttentionKernel,
    EncoderConfig,
    MeshConfig,
    PretrainConfig,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.console import size_text
from clue_jax.data.batches import Batch, Source, TrainBatches
from clue_jax.errors import ConfigError
from clue_jax.model.sizes import parameter_count
from clue_jax.parallel.mesh import make_mesh
from clue_jax.training.banner import compiled_line, run_lines
from tests.samples import VOCABULARY, sample_users

USERS = sample_users(60, seed=4)
LAYER, BAG = TransformerConfig(1, 2, 16), TransformerConfig(0, 2, 16)
CONFIG = PretrainConfig(
    encoder=EncoderConfig(
        width=16,
        embedding_width=16,
        item=LAYER,
        service=LAYER,
        max_item_tokens=6,
        max_history=6,
        row_tokens=32,
        item_rows=3,
        row_behaviours=16,
        history_rows=5,
    ),
    train=TrainConfig(steps=70, batch_users=16),
)


def lines_of(*others, **encoder):
    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(CONFIG.encoder, **encoder))
    source = Source("users", "0123456789abcdef", USERS)
    batches = TrainBatches([source, *others], config, make_mesh(MeshConfig()))
    return batches, run_lines(config, batches, VOCABULARY)


def test_it_names_devices_model_batch_and_buffers():
    batches, (model, batch, data, buffers) = lines_of()
    assert model.startswith(f"8 x {jax.devices()[0].device_kind}, mesh data 8;")
    assert f"{parameter_count(CONFIG.encoder, VOCABULARY):,} parameters, float32" in model
    assert model.endswith("attention: dense in items, dense in histories")
    both = int((USERS.counts() > 0).all(axis=1).sum())
    assert batch == "16 users a batch (15 negatives per anchor), 70 steps"
    assert data == (
        f"users: 100.0% of a batch, {both} of 60 training users have a positive pair;"
        f" {both // 16} steps an epoch"
    )
    room = batches.capacity
    assert buffers.startswith(
        f"room per device for {room.items} items in {room.item_chunks} chunks of 3 x 32 tokens, and"
        f" {room.view_chunks} chunks of 5 x 16 behaviours; "
    )


def test_each_dataset_has_a_line_and_services_that_never_meet_are_named():
    news = Source("news", "fedcba9876543210", sample_users(30, ("shop", "news", "books"), seed=5))
    batches, (_, _, first, second, unused, buffers) = lines_of(news)
    sizes = [len(found.members) for found in batches.candidates]
    assert first.startswith(f"users: {sizes[0] / sum(sizes):.1%} of a batch, {sizes[0]} of 60 ")
    assert second.startswith(f"news: {sizes[1] / sum(sizes):.1%} of a batch, {sizes[1]} of 30 ")
    assert unused == (
        "left out of the loss: search and news, search and books (no training user has both)"
    )
    assert buffers.startswith("room per device")


def test_it_counts_the_items_that_are_cut_for_each_user():
    longer, items = int((np.diff(USERS.token_offsets) > 6).sum()), len(USERS.item_ids)
    assert 0 < longer < items
    have = f"of the {items} items that users have are cut to encoder.max_item_tokens"
    assert lines_of()[1][-1].endswith(f"; {longer} {have}=6")
    assert f"; 0 {have}=9" in lines_of(max_item_tokens=9)[1][-1]


@pytest.mark.parametrize(
    ("changes", "kernels"),
    [
        (dict(item=BAG), "dense in histories"),
        (dict(service=BAG), "dense in items"),
        (dict(item=BAG, service=BAG), "none"),
    ],
)
def test_levels_without_blocks_have_no_kernel(changes, kernels):
    assert lines_of(**changes)[1][0].endswith(f"attention: {kernels}")


def test_a_kernel_that_cannot_run_here_is_refused():
    with pytest.raises(ConfigError, match="config.encoder.attention: cudnn needs an NVIDIA GPU"):
        lines_of(attention=AttentionKernel.CUDNN)


STATS = {
    "tokens": 12_345,
    "items": 678,
    "behaviours": 1_234,
    "token_slots": 13_000,
    "behaviour_slots": 2_468,
}


def test_the_compiled_step_is_told_with_its_bytes_and_the_first_batch():
    # 4,000 bytes that are donated, as the state is; 2,000 that are not.
    state, packed = jnp.zeros(1_000), jnp.zeros((10, 50))
    step = jax.jit(lambda state, packed: (state + packed.sum(), packed.sum()), donate_argnums=0)
    compiled = step.lower(state, packed).compile()
    line = compiled_line(compiled, 3.21, Batch(0, None, STATS))
    temporaries = size_text(compiled.memory_analysis().temp_size_in_bytes)
    assert line == (
        f"compiled the step in 3.2 s; per device 4 kB of state, 2 kB of batch, {temporaries} of"
        " temporaries; first batch: 12,345 tokens of 678 items for 1,234 behaviours,"
        " 95% and 50% of the computed slots"
    )


def test_a_backend_that_does_not_know_its_memory_says_nothing_of_it():
    class Silent:
        def memory_analysis(self):
            return None

    line = compiled_line(Silent(), 1.0, Batch(0, None, dict.fromkeys(STATS, 1)))
    assert line == (
        "compiled the step in 1.0 s; first batch: 1 tokens of 1 items for 1 behaviours, 100% and"
        " 100% of the computed slots"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (1_234, "1.23 kB"),
        (123_456, "123 kB"),
        (12_300_000, "12.3 MB"),
        (80_000_000_000, "80 GB"),
    ],
)
def test_sizes_have_three_digits_and_a_unit(count, text):
    assert size_text(count) == text


def test_no_size_is_told_in_powers_of_ten():
    told = {size_text(10**digits - rest) for digits in range(12) for rest in (0, 1)}
    assert not [text for text in told if "e+" in text]
