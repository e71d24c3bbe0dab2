"""Preset sizes, and closed-form counts of parameters and FLOPs.

The paper names 4M, 15M, 65M, 110M and 160M parameters for its scaling study and 725M for the
largest model, without layers and widths; those below are ours, within 5 % of the name at the
vocabulary of 50,258 that the authors' follow-up states (LMRec, arXiv 2212.03760).
"""

from __future__ import annotations

from collections.abc import Mapping

from clue_jax.config import (
    Activation,
    EncoderConfig,
    Precision,
    PretrainConfig,
    TransformerConfig,
)

# name: width D, embedding width E, heads H, MLP width F, item layers, service layers
_SHAPES = {
    "4M": (64, 256, 4, 512, 4, 4),
    "15M": (192, 256, 6, 768, 6, 6),
    "65M": (512, 256, 8, 2_048, 6, 6),
    "110M": (640, 512, 10, 2_560, 8, 8),
    "160M": (768, 512, 12, 3_072, 9, 8),
    "725M": (1_536, 512, 16, 6_144, 12, 11),
}
PRESETS = tuple(_SHAPES)


def preset(name: str) -> EncoderConfig:
    """The encoder of a named size, in bfloat16, with the paper's longest histories (256)."""
    width, embedding_width, heads, mlp_width, item_layers, service_layers = _SHAPES[name]
    return EncoderConfig(
        width=width,
        embedding_width=embedding_width,
        item=TransformerConfig(item_layers, heads, mlp_width),
        service=TransformerConfig(service_layers, heads, mlp_width),
        precision=Precision.BFLOAT16,
        max_item_tokens=64,
        max_history=256,
        row_tokens=128,
        row_behaviours=256,
        item_rows=64,
        history_rows=32,
    )


def parameter_count(config: EncoderConfig, vocab_size: int) -> int:
    """Parameters of the encoder, the token embedding included."""
    total = vocab_size * config.width
    for stack in (config.item, config.service):
        total += stack.num_layers * (_matrix_parameters(config, stack) + 2 * config.width)
    if not config.normalize_items:
        total += config.width
    if config.project:
        total += config.width + config.width * config.embedding_width
    return total


def forward_flops(config: EncoderConfig, counts: Mapping[str, float]) -> float:
    """FLOPs (2 per multiply-add) of encoding real tokens and behaviours; padding is not counted.

    Args:
        config: of the encoder.
        counts: `tokens` and `behaviours` encoded, `token_pairs` and `behaviour_pairs` that attend
            to each other (sums of squared lengths), and `views`.
    """
    total = 0.0
    for stack, units, pairs in (
        (config.item, counts["tokens"], counts["token_pairs"]),
        (config.service, counts["behaviours"], counts["behaviour_pairs"]),
    ):
        dense = 2.0 * _matrix_parameters(config, stack) * units
        attention = 4.0 * config.width * pairs
        total += stack.num_layers * (dense + attention)
    if config.project:
        total += 2.0 * config.width * config.embedding_width * counts["views"]
    return total


def loss_flops(config: PretrainConfig, pairs: int) -> float:
    """Forward FLOPs of the similarities of a global batch for each pair of views."""
    widths = config.loss.matryoshka or (config.encoder.embedding_width,)
    return pairs * 2.0 * config.train.batch_users**2 * sum(widths)


def step_flops(config: PretrainConfig, counts: Mapping[str, float], pairs: int) -> float:
    """Useful FLOPs of a train step: what MFU and compute budgets count.

    Backward costs twice the forward; recomputation is the price of memory, not useful work.

    Args:
        config: of the run.
        counts: as `forward_flops`, of the whole global batch.
        pairs: pairs of views in the loss.
    """
    return 3.0 * (forward_flops(config.encoder, counts) + loss_flops(config, pairs))


def dense_counts(counts: Mapping[str, float]) -> dict[str, float]:
    """Counts as for an encoder that reads every behaviour anew, whatever repeats in a batch.

    How much repeats depends on the data; budgets of different data are compared by these.
    """
    dense = {"tokens": counts["dense_tokens"], "token_pairs": counts["dense_token_pairs"]}
    return {**counts, **dense}


def _matrix_parameters(config: EncoderConfig, stack: TransformerConfig) -> int:
    matrices = 3 if config.activation is Activation.SWIGLU else 2
    return 4 * config.width**2 + matrices * config.width * stack.mlp_width
