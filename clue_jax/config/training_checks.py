"""What a training config must keep to, checked before anything is read or compiled."""

from __future__ import annotations

import math
import re

from clue_jax.config.checks import require
from clue_jax.config.training import (
    MAX_LAYERS,
    MAX_SCALE,
    EncoderConfig,
    LossConfig,
    PairWeight,
    PretrainConfig,
    TrainConfig,
    TransformerConfig,
)


def validate_pretrain(config: PretrainConfig) -> None:
    """Refuses a training config that cannot work, before anything is read or compiled.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    sampling, train = config.sampling, config.train
    _validate_encoder(config.encoder)
    for name in ("behaviours_kept", "token_dropout", "layer_dropout", "generic_guide"):
        value = getattr(sampling, name)
        require(0.0 <= value <= 1.0, f"sampling.{name}", f"{value} is not a probability")
    require(sampling.layer_dropout < 1, "sampling.layer_dropout", "1 leaves no block to learn")
    require(sampling.behaviours_kept > 0, "sampling.behaviours_kept", "must be above 0")
    require(sampling.within_service_weight >= 0, "sampling.within_service_weight", "is negative")
    _validate_pair_weights(sampling.pair_weights)
    for number, weight in enumerate(sampling.dataset_weights):
        key = f"sampling.dataset_weights[{number}]"
        require(0 < weight < math.inf, key, f"{weight} is no weight; leave out --data instead")
    require(sampling.min_behaviours >= 1, "sampling.min_behaviours", "must be at least 1")
    require(sampling.most_users >= 0, "sampling.most_users", "must not be negative; 0: all")
    require(config.init_step >= -2, "init_step", "a step, -1 (newest) or -2 (best)")
    _validate_train(train)
    require(
        0 <= sampling.item_steps <= train.steps,
        "sampling.item_steps",
        f"{sampling.item_steps} is not within train.steps={train.steps}",
    )
    require(config.data.in_memory_mb >= 0, "data.in_memory_mb", "is negative")
    _validate_history_schedule(config)
    _validate_loss(config.loss, config.encoder.embedding_width)
    require(config.optim.learning_rate > 0, "optim.learning_rate", "must be above 0")
    for name in ("every_steps", "keep"):
        require(getattr(config.checkpoint, name) >= 1, f"checkpoint.{name}", "must be at least 1")
    for name in ("every_minutes", "keep_every", "keep_best"):
        require(getattr(config.checkpoint, name) >= 0, f"checkpoint.{name}", "is negative")


def _validate_train(train: TrainConfig) -> None:
    require(train.steps >= 1, "train.steps", f"{train.steps} is not a number of steps")
    require(
        train.batch_users >= 2,
        "train.batch_users",
        f"{train.batch_users}: a contrastive batch needs at least 2 users",
    )
    require(train.max_skipped >= 1, "train.max_skipped", "must be at least 1")
    require(train.log_every >= 1, "train.log_every", "must be at least 1")
    for name in ("eval_every", "spike_deviations", "divergence_every", "hang_seconds"):
        require(getattr(train, name) >= 0, f"train.{name}", "is negative")
    batch_ranges(train.skip_batches)
    profiled = batch_ranges(train.profile, "train.profile")
    require(len(profiled) <= 1, "train.profile", f"{train.profile!r} is more than one range")
    for first, _ in profiled:
        problem = f"no step of {train.profile!r} is among the {train.steps} of the run"
        require(first < train.steps, "train.profile", problem)


def batch_ranges(text: str, key: str = "train.skip_batches") -> list[tuple[int, int]]:
    """The ranges [A, B) of steps in a setting.

    Raises:
        ConfigError: it is not of the form A:B,C:D.
    """
    found = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"(\d+):(\d+)", part.strip())
        require(
            match is not None and int(match[1]) < int(match[2]),
            key,
            f"{part!r} is no range A:B of steps, with A below B; several are parted by commas",
        )
        assert match is not None
        found.append((int(match[1]), int(match[2])))
    return found


def _validate_history_schedule(config: PretrainConfig) -> None:
    schedule, most = config.sampling.history_schedule, config.encoder.max_history
    require(
        1 <= schedule.start and (schedule.steps == 0 or schedule.start <= most),
        "sampling.history_schedule.start",
        f"{schedule.start} is not between 1 and encoder.max_history={most}",
    )
    require(
        0 <= schedule.steps <= config.train.steps,
        "sampling.history_schedule.steps",
        f"{schedule.steps} is not within train.steps={config.train.steps}",
    )


def _validate_loss(loss: LossConfig, width: int) -> None:
    require(loss.temperature > 0, "loss.temperature", f"{loss.temperature} must be above 0")
    widths = loss.matryoshka
    require(
        not widths
        or (0 < widths[0] and sorted(set(widths)) == list(widths) and widths[-1] == width),
        "loss.matryoshka",
        f"{widths}: ascending numbers of dimensions, encoder.embedding_width={width} last",
    )
    require(loss.tile >= 1, "loss.tile", "must be at least 1")
    require(abs(loss.bias) <= MAX_SCALE, "loss.bias", f"{loss.bias}: {MAX_SCALE:g} at most")
    require(
        1.0 <= loss.temperature * loss.max_logit_scale,
        "loss.max_logit_scale",
        f"{loss.max_logit_scale} is below the initial scale, 1 / {loss.temperature}",
    )
    problem = f"{loss.max_logit_scale}: {MAX_SCALE:g} at most, beyond which rounding decides"
    require(loss.max_logit_scale <= MAX_SCALE, "loss.max_logit_scale", problem)


def _validate_pair_weights(pair_weights: tuple[PairWeight, ...]) -> None:
    """Whether the dataset has such services is known only once it is opened (data/pairs.py)."""
    seen: set[frozenset[str]] = set()
    for number, named in enumerate(pair_weights):
        key, services = f"sampling.pair_weights[{number}]", frozenset((named.first, named.second))
        require(
            len(services) == 2,
            key,
            f"pairs {named.first!r} with itself; sampling.within_service_weight weighs its parts",
        )
        require(
            services not in seen, key, f"{' and '.join(sorted(services))} have a weight already"
        )
        require(0 <= named.weight < math.inf, f"{key}.weight", f"{named.weight} is no weight")
        seen.add(services)


def _validate_encoder(encoder: EncoderConfig) -> None:
    sizes = "row_tokens", "item_rows", "row_behaviours", "history_rows"
    for name in ("max_item_tokens", "max_history", *sizes):
        require(getattr(encoder, name) >= 1, f"encoder.{name}", "must be at least 1")
    for level in ("item", "service"):
        stack: TransformerConfig = getattr(encoder, level)
        require(
            0 <= stack.num_layers <= MAX_LAYERS,
            f"encoder.{level}.num_layers",
            f"{stack.num_layers} is not between 0 and {MAX_LAYERS}",
        )
        require(
            stack.num_layers == 0 or encoder.width % (2 * max(stack.num_heads, 1)) == 0,
            f"encoder.{level}.num_heads",
            f"{stack.num_heads} heads do not part the width {encoder.width} into even widths",
        )
    require(
        encoder.project or encoder.embedding_width == encoder.width,
        "encoder.embedding_width",
        f"must equal encoder.width ({encoder.width}) when encoder.project is off",
    )
    require(
        encoder.max_item_tokens <= encoder.row_tokens,
        "encoder.max_item_tokens",
        f"{encoder.max_item_tokens} does not fit a row of encoder.row_tokens={encoder.row_tokens}",
    )
    require(
        encoder.max_history <= encoder.row_behaviours,
        "encoder.max_history",
        f"{encoder.max_history} does not fit a row of"
        f" encoder.row_behaviours={encoder.row_behaviours}",
    )
