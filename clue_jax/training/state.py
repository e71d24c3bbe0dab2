"""What a step reads and writes, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from clue_jax.config import PretrainConfig
from clue_jax.model import clue
from clue_jax.parallel.rules import shardings
from clue_jax.training.optim import make_optimizer
from clue_jax.training.spikes import Recent, no_updates


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters (`encoder`, `log_scale`), optimizer state, and what the steps taken were like."""

    step: jax.Array  # taken, skipped ones included
    params: clue.Params
    opt_state: optax.OptState
    recent: Recent

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"params": self.params, "optimizer": self.opt_state, "recent": self.recent}


def state_of(step: jax.Array, parts: dict[str, Any]) -> TrainState:
    """A state from a checkpoint's parts."""
    return TrainState(step, parts["params"], parts["optimizer"], parts["recent"])


def init_state(config: PretrainConfig, vocab_size: int) -> TrainState:
    """A fresh state, a pure function of the config's seed."""
    params = clue.init_run(config, vocab_size)
    optimizer = make_optimizer(config).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer, no_updates())


def state_shardings(config: PretrainConfig, mesh: Mesh) -> TrainState:
    """How each leaf of the state lies on a mesh (NamedSharding); the same for every vocabulary.

    Raises:
        ConfigError: a dimension does not divide over its axes; names the key and what would.
    """
    return shardings(jax.eval_shape(lambda: init_state(config, 1)), mesh)
