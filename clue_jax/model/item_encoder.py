"""Item Transformer: packed tokens -> one vector per distinct item."""

from __future__ import annotations

import jax
from flax import nnx

from clue_jax.config import EncoderConfig
from clue_jax.model.layers import Norm, Stack, compute_dtype, segment_mean, unit


class ItemEncoder(nnx.Module):
    """Token embedding -> Transformer inside each item -> mean pool -> norm."""

    def __init__(self, config: EncoderConfig, vocab_size: int, rngs: nnx.Rngs):
        self.config = config
        # Unit-length rows: with unit variance a small encoder learns several times slower.
        init = jax.nn.initializers.normal(config.width**-0.5)
        self.embedding = nnx.Param(init(rngs.params(), (vocab_size, config.width)))
        self.stack = Stack(config, config.item, rngs)
        if not config.normalize_items:
            self.norm = Norm(config.width)

    def __call__(self, tokens_RL: jax.Array, item_RL: jax.Array, items: int) -> jax.Array:
        """Encodes packed items.

        Args:
            tokens_RL: token ids.
            item_RL: number of the item that each slot belongs to; `items` where padding.
            items: U.

        Returns:
            [U, D] float32; items that no slot belongs to are meaningless.
        """
        x_RLD = self.embedding[...][tokens_RL].astype(compute_dtype(self.config.precision))
        pooled_UD = segment_mean(self.stack(x_RLD, item_RL), item_RL, items)
        return unit(pooled_UD) if self.config.normalize_items else self.norm(pooled_UD)
