"""Item Transformer: packed tokens -> one vector per distinct item."""

from __future__ import annotations

import jax
from flax import nnx

from clue_jax.config import AttentionKernel, EncoderConfig
from clue_jax.model.layers import Norm, Skips, Stack, compute_dtype, segment_mean, unit


def token_embedding(config: EncoderConfig, vocab_size: int, rngs: nnx.Rngs) -> nnx.Param:
    """[vocabulary, D]. Rows of length one: with unit variance small encoders learn far slower."""
    init = jax.nn.initializers.normal(config.width**-0.5)
    return nnx.Param(init(rngs.params(), (vocab_size, config.width)))


class ItemEncoder(nnx.Module):
    """Embedded tokens -> Transformer inside each item -> mean pool -> norm."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.config = config
        self.stack = Stack(config, config.item, rngs)
        if not config.normalize_items:
            self.norm = Norm(config.width)

    def __call__(
        self,
        x_RLD: jax.Array,
        item_RL: jax.Array,
        items: int,
        kernel: AttentionKernel = AttentionKernel.DENSE,
        skips: Skips | None = None,
        tensor: str = "",
    ) -> jax.Array:
        """Encodes packed items.

        Args:
            x_RLD: embedded tokens.
            item_RL: number of the item that each slot belongs to; `items` where padding.
            items: U.
            kernel: of attention.
            skips: blocks that items leave out.
            tensor: mesh axis over which heads and hidden units are dealt; empty: none.

        Returns:
            [U, D] float32; items that no slot belongs to are meaningless.
        """
        x_RLD = x_RLD.astype(compute_dtype(self.config.precision))
        pooled_UD = segment_mean(self.stack(x_RLD, item_RL, kernel, skips, tensor), item_RL, items)
        return unit(pooled_UD) if self.config.normalize_items else self.norm(pooled_UD)
