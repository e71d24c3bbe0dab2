"""Parameters and users -> embeddings, on any mesh: what evaluation, export and training share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from clue_jax.config import AttentionKernel, EncoderConfig, PretrainConfig
from clue_jax.data.capacity import Capacity, capacity_for
from clue_jax.data.packing import PackedViews, pack_views
from clue_jax.data.records import Users
from clue_jax.data.sampling import full_views
from clue_jax.errors import NonFiniteError
from clue_jax.model import clue
from clue_jax.model.attention import choose_kernels
from clue_jax.parallel.collectives import own_copies
from clue_jax.parallel.mesh import (
    TENSOR,
    USERS,
    deal_to_devices,
    local_groups,
    over_all,
    single_device_mesh,
    to_host,
    user_groups,
)
from clue_jax.parallel.rules import partition_specs


class BatchEncoder:
    """Encodes batches of users in buffers of one size, with one compilation.

    Args:
        config: of the encoder.
        capacity: of the buffers of one group of devices.
        mesh: devices that share a batch.
    """

    def __init__(self, config: EncoderConfig, capacity: Capacity, mesh: Mesh):
        # A run may have asked for a kernel that this machine lacks; all compute the same.
        self.config = dataclasses.replace(config, attention=AttentionKernel.AUTO)
        self.capacity, self.mesh = capacity, mesh
        self.batch_users = capacity.users * user_groups(mesh)
        self._encode = _encode_step(self.config, mesh, capacity.items)

    def __call__(self, params: clue.Params, users: Users) -> tuple[np.ndarray, np.ndarray]:
        """Embeds at most `batch_users` users.

        Returns:
            z_NSE float32 unit vectors (zero where a user lacks the service), present_NS bool.
        """
        packed = []
        for group in local_groups(self.mesh):
            first = group * self.capacity.users
            some = users.take(np.arange(len(users))[first:][: self.capacity.users])
            views = full_views(some, self.config.max_history)
            packed.append(pack_views(some, views, self.capacity, self.config)[0])
        stacked = PackedViews(*(np.stack(arrays) for arrays in zip(*packed, strict=True)))
        z_SNE, present_SN = self._encode(params, deal_to_devices(stacked, self.mesh))
        z_NSE, present_NS = to_host(z_SNE).swapaxes(0, 1), to_host(present_SN).T
        return z_NSE[: len(users)], present_NS[: len(users)]


class Embedder:
    """Encodes users batch by batch with one compilation.

    Args:
        config: of the encoder.
        users: every user that will be encoded; buffers are sized for any batch of them.
        batch_users: users per batch, over all devices.
        mesh: devices that share a batch; None: this process's first device.
    """

    def __init__(
        self, config: EncoderConfig, users: Users, batch_users: int = 512, mesh: Mesh | None = None
    ):
        mesh = mesh or single_device_mesh()
        per_group = max(1, min(batch_users, len(users)) // user_groups(mesh))
        capacity = capacity_for(users, config, per_group, len(users.services))
        self.users = users
        self._batches = BatchEncoder(config, capacity, mesh)

    def __call__(
        self,
        params: clue.Params,
        rows: np.ndarray | None = None,
        advance: Callable[[float], None] = lambda count: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embeds users.

        Args:
            params: of the encoder.
            rows: indices of the N users to embed; None: all.
            advance: told the number of users after each batch.

        Returns:
            z_NSE float32 unit vectors (zero where a user lacks the service), present_NS bool.

        Raises:
            NonFiniteError: names the first user with a NaN or infinity.
        """
        services = len(self.users.services)
        vectors = [np.zeros((0, services, self._batches.config.embedding_width), np.float32)]
        presences = [np.zeros((0, services), bool)]
        rows = np.arange(len(self.users)) if rows is None else rows
        size = self._batches.batch_users
        for first in range(0, len(rows), size):
            z_NSE, present_NS = self._batches(params, self.users.take(rows[first : first + size]))
            vectors.append(z_NSE)
            presences.append(present_NS)
            advance(len(z_NSE))
        z_NSE, present_NS = np.concatenate(vectors), np.concatenate(presences)
        bad = np.flatnonzero(~np.isfinite(z_NSE).all(axis=(1, 2)))
        if len(bad):
            row = rows[bad[0]]
            raise NonFiniteError(
                f"row {row} ({self.users.user_ids[row]}): its embedding is not finite ({len(bad)}"
                " such rows); the parameters are damaged or the precision overflows"
            )
        return z_NSE, present_NS


def embed_users(
    params: clue.Params,
    config: PretrainConfig,
    users: Users,
    batch_users: int = 512,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeds users once; see `Embedder`."""
    return Embedder(config.encoder, users, batch_users, mesh)(params)


def combine(z_NSE: np.ndarray, present_NS: np.ndarray) -> np.ndarray:
    """One vector per user: the mean of its services' embeddings, scaled to length one."""
    total_NE = (z_NSE * present_NS[:, :, None]).sum(axis=1)
    return total_NE / np.maximum(np.linalg.norm(total_NE, axis=1, keepdims=True), 1e-12)


def narrowed(z_NSE: np.ndarray, width: int) -> np.ndarray:
    """The first `width` dimensions of vectors, scaled to length one again; zeros stay."""
    if width == z_NSE.shape[-1]:
        return z_NSE
    first_NSE = z_NSE[..., :width]
    return first_NSE / np.maximum(np.linalg.norm(first_NSE, axis=-1, keepdims=True), 1e-12)


def _encode_step(config: EncoderConfig, mesh: Mesh, max_items: int) -> Any:
    """jit of (params, packed over groups) -> z_VBE, present_VB."""

    def device(params: clue.Params, packed: PackedViews) -> tuple[jax.Array, jax.Array]:
        present_Vb = packed.view_slot_Vb[0] >= 0
        own = jax.tree.map(lambda a: over_all(a[0], USERS), packed)
        z_VbE, _ = clue.encode(own_copies(params, mesh), config, own, max_items, mesh=mesh)
        # The devices of a group have the same vectors: this is for their type.
        return jax.lax.pmean(z_VbE, TENSOR), present_Vb

    def run(params: clue.Params, packed: PackedViews) -> tuple[jax.Array, jax.Array]:
        return jax.shard_map(
            device,
            mesh=mesh,
            in_specs=(partition_specs(params, mesh), P(USERS)),
            out_specs=(P(None, USERS), P(None, USERS)),
            check_vma=choose_kernels(config, clue.backend_of(mesh)).typed,
        )(params, packed)

    return jax.jit(run)
