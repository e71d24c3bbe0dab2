"""What a person wants to know before a run has taken its first step."""

from __future__ import annotations

import jax

from clue_jax.config import EncoderConfig, PretrainConfig
from clue_jax.console import size_text
from clue_jax.data.batches import Batch, TrainBatches
from clue_jax.data.pairs import view_pairs
from clue_jax.model.attention import choose_kernels
from clue_jax.model.sizes import parameter_count
from clue_jax.parallel.mesh import axes_text


def run_lines(config: PretrainConfig, batches: TrainBatches, vocab_size: int) -> list[str]:
    """Devices, model, batch, epoch and buffers of a run.

    Raises:
        ConfigError: the attention kernel asked for cannot run here.
    """
    train, capacity = config.train, batches.capacity
    return [
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, mesh"
        f" {axes_text(batches.mesh.shape)};"
        f" {parameter_count(config.encoder, vocab_size):,} parameters,"
        f" {config.encoder.precision.value}; attention: {_kernels(config.encoder)}",
        f"{train.batch_users} users a batch ({train.batch_users - 1} negatives per anchor),"
        f" {train.steps} steps",
        *_datasets(batches),
        f"room per device for {capacity.items:,} items in {capacity.item_chunks} chunks of"
        f" {config.encoder.item_rows} x {config.encoder.row_tokens} tokens, and"
        f" {capacity.view_chunks} chunks of {config.encoder.history_rows} x"
        f" {config.encoder.row_behaviours} behaviours; {_truncated(batches, config.encoder)}",
    ]


def _kernels(config: EncoderConfig) -> str:
    """The kernel of each level that has blocks."""
    kernels = choose_kernels(config, jax.default_backend())
    levels = ("items", config.item, kernels.items), ("histories", config.service, kernels.histories)
    chosen = [f"{kernel.value} in {name}" for name, stack, kernel in levels if stack.num_layers]
    return ", ".join(chosen) or "none"


def _datasets(batches: TrainBatches) -> list[str]:
    strata = batches.strata
    lines = [
        f"{stratum.name}: {float(share):.1%} of a batch, {stratum.size:,} of"
        f" {len(found.users):,} training users have a positive pair; {per_epoch:,} steps an epoch"
        for stratum, share, found, per_epoch in zip(
            strata.strata, strata.shares, batches.candidates, strata.steps_per_epoch, strict=True
        )
    ]
    return lines + ([f"left out of the loss: {unused}"] if (unused := _unused(batches)) else [])


def _unused(batches: TrainBatches) -> str:
    """Pairs of services that count, but that nobody has."""
    services, had = batches.users.services, {pair[:2] for pair in batches.pairs}
    missing = [
        f"{services[pair.first]} and {services[pair.second]}"
        for pair in view_pairs(services, batches.config.sampling)
        if pair.second < len(services) and pair[:2] not in had
    ]
    return ", ".join(missing) + " (no training user has both)" if missing else ""


def _truncated(batches: TrainBatches, config: EncoderConfig) -> str:
    # Once for each user that has it: which are the same would take remembering all of them.
    longer = sum(found.cut for found in batches.candidates)
    items = sum(found.items for found in batches.candidates)
    return (
        f"{longer:,} of the {items:,} items that users have are cut to encoder.max_item_tokens="
        f"{config.max_item_tokens}"
    )


def compiled_line(compiled: jax.stages.Compiled, seconds: float, batch: Batch) -> str:
    """Time to compile, bytes per device, and how full the first batch is."""
    line = f"compiled the step in {seconds:.1f} s"
    memory = compiled.memory_analysis()
    if memory is not None:
        # The batch is not donated, so what is aliased is the state.
        state = memory.alias_size_in_bytes
        line += (
            f"; per device {size_text(state)} of state,"
            f" {size_text(memory.argument_size_in_bytes - state)} of batch,"
            f" {size_text(memory.temp_size_in_bytes)} of temporaries"
        )
    stats = batch.stats
    return line + (
        f"; first batch: {stats['tokens']:,} tokens of {stats['items']:,} items for"
        f" {stats['behaviours']:,} behaviours, {_share(stats['tokens'], stats['token_slots'])} and"
        f" {_share(stats['behaviours'], stats['behaviour_slots'])} of the computed slots"
    )


def _share(real: int, slots: int) -> str:
    return f"{real / max(1, slots):.0%}"
