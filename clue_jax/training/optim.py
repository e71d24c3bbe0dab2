"""AdamW with linear warm-up and cosine decay."""

from __future__ import annotations

import jax
import optax

from clue_jax.config import PretrainConfig
from clue_jax.model.clue import Params


def make_schedule(config: PretrainConfig) -> optax.Schedule:
    """Learning rate by step; single-item steps and the rest each warm up and decay."""
    item_steps = config.sampling.item_steps
    main = _warmup_cosine(config, config.optim.learning_rate, config.train.steps - item_steps)
    if not item_steps:
        return main
    peak = config.optim.item_learning_rate or config.optim.learning_rate
    return optax.join_schedules([_warmup_cosine(config, peak, item_steps), main], [item_steps])


def _warmup_cosine(config: PretrainConfig, peak: float, steps: int) -> optax.Schedule:
    warmup = min(max(1, round(config.optim.warmup_fraction * steps)), max(1, steps - 1))
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / warmup,
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=peak * config.optim.final_fraction,
    )


def make_optimizer(config: PretrainConfig) -> optax.GradientTransformation:
    """Global-norm clipping, AdamW, schedule; weight decay on matrices only."""
    optim = config.optim
    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm),
        optax.adamw(
            make_schedule(config),
            b1=optim.b1,
            b2=optim.b2,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            mask=is_matrix,
        ),
    )


def updates_made(opt_state: optax.OptState) -> int:
    """Updates that the optimizer has made, which the schedule goes by: skipped steps make none."""
    return int(jax.device_get(optax.tree.get_all_with_path(opt_state, "count")[0][1]))


def is_matrix(params: Params) -> Params:
    """True for parameters that multiply: norm scales, logit scale and bias are left alone."""

    def decays(path: tuple[jax.tree_util.DictKey, ...], _: jax.Array) -> bool:
        return path[-1].key not in ("scale", "log_scale", "bias")

    return jax.tree_util.tree_map_with_path(decays, params)
