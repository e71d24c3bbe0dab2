"""Service Transformer: packed histories of item vectors -> one unit vector per view."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from clue_jax.config import AttentionKernel, EncoderConfig
from clue_jax.model.layers import Norm, Skips, Stack, compute_dtype, segment_mean, unit


class ServiceEncoder(nnx.Module):
    """Item vectors in order -> Transformer inside each view -> mean pool -> projection."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.config = config
        self.stack = Stack(config, config.service, rngs)
        if config.project:
            self.norm = Norm(config.width)
            init = jax.nn.initializers.normal(config.width**-0.5)
            shape = (config.width, config.embedding_width)
            self.projection = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def __call__(
        self,
        items_RTD: jax.Array,
        view_RT: jax.Array,
        views: int,
        kernel: AttentionKernel = AttentionKernel.DENSE,
        skips: Skips | None = None,
        tensor: str = "",
        weight_RT: jax.Array | None = None,
    ) -> jax.Array:
        """Encodes packed histories.

        Args:
            items_RTD: item vectors, oldest first in each view.
            view_RT: number of the view that each slot belongs to; `views` where padding.
            views: number of views.
            kernel: of attention.
            skips: blocks that views leave out.
            tensor: mesh axis over which heads and hidden units are dealt; empty: none.
            weight_RT: of slots in the mean; None: all weigh alike.

        Returns:
            [views, E] float32 unit vectors; views that no slot belongs to are meaningless.
        """
        x_RTD = items_RTD.astype(compute_dtype(self.config.precision))
        x_RTD = self.stack(x_RTD, view_RT, kernel, skips, tensor)
        pooled_VD = segment_mean(x_RTD, view_RT, views, weight_RT)
        if self.config.project:
            pooled_VD = jnp.einsum("VD,DE->VE", self.norm(pooled_VD), self.projection[...])
        return unit(pooled_VD)
