"""A host's share of each global batch, packed ahead of time and put onto its devices."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from clue_jax.config import PretrainConfig
from clue_jax.data.balance import block_slots, deal, user_loads
from clue_jax.data.capacity import capacity_for
from clue_jax.data.keyed import hash64
from clue_jax.data.packing import Draws, PackedViews, pack_views
from clue_jax.data.pairs import num_views
from clue_jax.data.records import UserTable
from clue_jax.data.sampling import (
    batch_users,
    eligible_users,
    history_length,
    training_views,
)
from clue_jax.parallel.mesh import deal_to_devices, local_groups, user_groups, users_per_group


class Batch(NamedTuple):
    """What the step of this number computes."""

    step: int
    packed: PackedViews  # global arrays, leading dimension: group of users
    stats: dict[str, int]  # of this host: tokens, token_slots, items, behaviours ...


class TrainBatches:
    """Batches as a pure function of (seed, step, dataset fingerprint).

    Args:
        users: the training split.
        config: of the run.
        fingerprint: of the dataset.
        mesh: users are dealt over its groups.

    Raises:
        ConfigError: the batch does not divide over the devices, or exceeds the eligible users.
    """

    def __init__(self, users: UserTable, config: PretrainConfig, fingerprint: str, mesh: Mesh):
        self.users, self.config, self.mesh = users, config, mesh
        self.seed = int(hash64(config.seed, int(fingerprint[:15], 16)) >> np.uint64(1))
        self.per_group = users_per_group(config.train.batch_users, mesh)
        self.eligible = eligible_users(users, config.sampling)
        batch_users(self.eligible, config.train.batch_users, self.seed, 0)
        sampling = config.sampling
        self.views = num_views(len(users.services), sampling)
        self.loads = user_loads(users, config.encoder)
        self.capacity = capacity_for(
            users,
            config.encoder,
            self.per_group,
            self.views,
            rows=self.eligible,
            parts=sampling.within_service_weight > 0,
        )
        self.groups = local_groups(mesh)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.eligible) // self.config.train.batch_users

    def drawn(self, step: int) -> np.ndarray:
        """Rows of the users of the global batch of a step, [B]."""
        return batch_users(self.eligible, self.config.train.batch_users, self.seed, step)

    def host_batch(self, step: int) -> tuple[PackedViews, dict[str, int]]:
        """Packed views of the groups with a device of this host, and the sums of their counts."""
        drawn = self.drawn(step)
        shares = deal(self.loads[drawn], user_groups(self.mesh))
        packed, counts = zip(
            *(self._group_share(drawn[shares[group]], step) for group in self.groups), strict=True
        )
        stats = {key: sum(count[key] for count in counts) for key in counts[0]}
        work = [block_slots(count, self.config.encoder) for count in counts]
        stats |= {"block_slots": sum(work), "busiest_slots": max(work), "groups": len(work)}
        return PackedViews(*(np.stack(arrays) for arrays in zip(*packed, strict=True))), stats

    def _group_share(self, indices: np.ndarray, step: int) -> tuple[PackedViews, dict[str, int]]:
        config = self.config
        users = self.users.take(indices)
        # Buffers are sized for the longest histories, so that a schedule compiles nothing anew.
        length = history_length(config.sampling, config.encoder.max_history, step)
        views = training_views(users, indices, config.sampling, length, self.seed, step)
        draws = Draws(config.sampling, self.seed, step, indices)
        return pack_views(users, views, self.capacity, config.encoder, draws)

    def global_batch(self, step: int) -> Batch:
        """The batch of a step, on the devices."""
        packed, stats = self.host_batch(step)
        return Batch(step, deal_to_devices(packed, self.mesh), stats)

    def prefetch(
        self, first: int, last: int, ahead: int = 2
    ) -> Generator[tuple[Batch, float], None, None]:
        """Yields the batches of steps [first, last), and the seconds the caller waited for each.

        A thread packs and transfers `ahead` batches in advance; its errors are raised here.
        """
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=ahead)
        stop = threading.Event()

        def put(value: Batch | BaseException) -> bool:
            while not stop.is_set():
                try:
                    ready.put(value, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def produce() -> None:
            try:
                for step in range(first, last):
                    if not put(self.global_batch(step)):
                        return
            except BaseException as error:
                put(error)

        producer = threading.Thread(target=produce, name="batches", daemon=True)
        producer.start()
        try:
            for _ in range(first, last):
                asked = time.perf_counter()
                batch = ready.get()
                if isinstance(batch, BaseException):
                    raise batch
                yield batch, time.perf_counter() - asked
        finally:
            stop.set()
            producer.join()
