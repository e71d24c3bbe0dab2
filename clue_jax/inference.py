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
from clue_jax.data.capacity import Capacity, capacity_for, capacity_for_items
from clue_jax.data.packing import PackedViews, pack_histories, pack_items, pack_views
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

ITEMS_EACH = 4_096  # that one group of devices encodes at a time, alone


class BatchEncoder:
    """Encodes batches of users in buffers of one size, with one compilation.

    Args:
        config: of the encoder.
        capacity: of the buffers of one group of devices.
        mesh: devices that share a batch.
        half_life_days: of a behaviour's weight in the mean over a service; 0: all weigh alike.
    """

    def __init__(
        self, config: EncoderConfig, capacity: Capacity, mesh: Mesh, half_life_days: float = 0.0
    ):
        self.half_life_days = half_life_days
        # A run may have asked for a kernel that this machine lacks; all compute the same.
        self.config = dataclasses.replace(config, attention=AttentionKernel.AUTO)
        self.capacity, self.mesh = capacity, mesh
        self.batch_users = capacity.users * user_groups(mesh)
        self._encode = _encode_step(self.config, mesh, self._embed)

    def __call__(self, params: clue.Params, users: Users) -> tuple[np.ndarray, np.ndarray]:
        """Embeds at most `batch_users` users.

        Returns:
            z_NSE float32 unit vectors (zero where a user lacks the service), present_NS bool.
        """
        return self.collect(self.start(params, self.pack(users)), len(users))

    def pack(self, users: Users) -> Any:
        """What the devices need of at most `batch_users` users, on the host."""
        shares = []
        for group in local_groups(self.mesh):
            first = group * self.capacity.users
            some = users.take(np.arange(len(users))[first:][: self.capacity.users])
            shares.append(self._share(some))
        return jax.tree.map(lambda *arrays: np.stack(arrays), *shares)

    def start(self, params: clue.Params, shares: Any) -> tuple[jax.Array, jax.Array]:
        """Has the devices embed what `pack` gave; returns before they are done."""
        return self._encode(params, deal_to_devices(shares, self.mesh))

    def collect(
        self, started: tuple[jax.Array, jax.Array], users: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Waits for what `start` gave: z_NSE and present_NS of the users of the batch."""
        z_SNE, present_SN = started
        return to_host(z_SNE).swapaxes(0, 1)[:users], to_host(present_SN).T[:users]

    def _share(self, users: Users) -> Any:
        """What one group of devices needs of its users; its packed views come first."""
        views = full_views(users, self.config.max_history)
        packed, _ = pack_views(
            users, views, self.capacity, self.config, half_life_days=self.half_life_days
        )
        return (packed,)

    def _embed(self, params: clue.Params, packed: PackedViews, *rest: Any) -> jax.Array:
        """z_VbE of one group, inside `shard_map`."""
        return clue.encode(params, self.config, packed, self.capacity.items, mesh=self.mesh)[0]


def embedding_encoder(
    config: EncoderConfig,
    users: Users,
    batch_users: int,
    mesh: Mesh,
    vectors: Callable[[np.ndarray], np.ndarray] | None = None,
    half_life_days: float = 0.0,
) -> BatchEncoder:
    """An encoder for any batch of at most so many of the users.

    Args:
        config: of the encoder.
        users: every user that will be encoded.
        batch_users: users per batch, over all devices.
        mesh: devices that share a batch.
        vectors: of items, by identity; None: texts are encoded.
        half_life_days: see `BatchEncoder`.
    """
    per_group = max(1, min(batch_users, len(users)) // user_groups(mesh))
    capacity = capacity_for(users, config, per_group, len(users.services))
    if vectors:
        return HistoryEncoder(config, capacity, mesh, vectors, half_life_days)
    return BatchEncoder(config, capacity, mesh, half_life_days)


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
        self.users = users
        self._batches = embedding_encoder(config, users, batch_users, mesh or single_device_mesh())

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


class HistoryEncoder(BatchEncoder):
    """Encodes users from the vectors of their items, which somebody has computed already.

    Args:
        config: of the encoder.
        capacity: of the buffers of one group of devices.
        mesh: devices that share a batch.
        vectors: identities [u] uint64 -> their rows [u, D] float32 of the item encoder.
        half_life_days: see `BatchEncoder`.
    """

    def __init__(
        self,
        config: EncoderConfig,
        capacity: Capacity,
        mesh: Mesh,
        vectors: Callable[[np.ndarray], np.ndarray],
        half_life_days: float = 0.0,
    ):
        self._vectors = vectors
        no_items = dataclasses.replace(capacity, item_chunks=1)
        super().__init__(config, no_items, mesh, half_life_days)

    def _share(self, users: Users) -> Any:
        views = full_views(users, self.config.max_history)
        packed, identities = pack_histories(
            users, views, self.capacity, self.config, self.half_life_days
        )
        items_UD = np.zeros((self.capacity.items, self.config.width), np.float32)
        items_UD[: len(identities)] = self._vectors(identities)
        return packed, items_UD

    def _embed(self, params: clue.Params, packed: PackedViews, *rest: Any) -> jax.Array:
        (items_UD,) = rest
        return clue.encode_views(params, self.config, packed, items_UD, mesh=self.mesh)[0]


class ItemEncoder:
    """Encodes items alone, in buffers of one size, with one compilation.

    Args:
        config: of the encoder.
        longest: tokens of an item at most.
        mesh: devices that share a batch; each takes up to `ITEMS_EACH` items at a time.
    """

    def __init__(self, config: EncoderConfig, longest: int, mesh: Mesh):
        self.config = dataclasses.replace(config, attention=AttentionKernel.AUTO)
        self.capacity = capacity_for_items(config, ITEMS_EACH, longest)
        self.mesh = mesh
        self.batch_items = ITEMS_EACH * user_groups(mesh)
        self._encode = _item_step(self.config, mesh, ITEMS_EACH)

    def __call__(self, params: clue.Params, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Vectors [n, D] float32 of at most `batch_items` items.

        Args:
            params: of the encoder.
            tokens: of the items, end to end.
            offsets: [n + 1] int64 into them.
        """
        shares, rows = [], []
        for group in local_groups(self.mesh):
            first = min(group * ITEMS_EACH, len(offsets) - 1)
            ends = offsets[first : first + ITEMS_EACH + 1]
            some = tokens[ends[0] : ends[-1]]
            packed, row = pack_items(some, np.diff(ends), self.capacity, self.config)
            shares.append(packed)
            rows.append(group * ITEMS_EACH + row)
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *shares)
        items_GUD = to_host(self._encode(params, deal_to_devices(stacked, self.mesh)))
        return items_GUD.reshape(-1, items_GUD.shape[-1])[np.concatenate(rows)]


def _encode_step(config: EncoderConfig, mesh: Mesh, embed: Callable[..., jax.Array]) -> Any:
    """jit of (params, shares of groups) -> z_VBE, present_VB; `embed` is what a group does."""

    def device(params: clue.Params, shares: Any) -> tuple[jax.Array, jax.Array]:
        present_Vb = shares[0].view_slot_Vb[0] >= 0
        own = jax.tree.map(lambda a: over_all(a[0], USERS), shares)
        z_VbE = embed(own_copies(params, mesh), *own)
        # The devices of a group have the same vectors: this is for their type.
        return jax.lax.pmean(z_VbE, TENSOR), present_Vb

    return _on_groups(config, mesh, device, (P(None, USERS), P(None, USERS)))


def _item_step(config: EncoderConfig, mesh: Mesh, max_items: int) -> Any:
    """jit of (params, packed over groups) -> items_GUD."""

    def device(params: clue.Params, packed: PackedViews) -> jax.Array:
        own = jax.tree.map(lambda a: over_all(a[0], USERS), packed)
        items_UD = clue.encode_items(own_copies(params, mesh), config, own, max_items, mesh=mesh)
        return jax.lax.pmean(items_UD, TENSOR)[None]

    return _on_groups(config, mesh, device, P(USERS))


def _on_groups(config: EncoderConfig, mesh: Mesh, device: Callable[..., Any], out: Any) -> Any:
    def run(params: clue.Params, shares: Any) -> Any:
        return jax.shard_map(
            device,
            mesh=mesh,
            in_specs=(partition_specs(params, mesh), P(USERS)),
            out_specs=out,
            check_vma=choose_kernels(config, clue.backend_of(mesh)).typed,
        )(params, shares)

    return jax.jit(run)
