"""A host's share of each global batch, packed ahead of time and put onto its devices."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from clue_jax.config import PretrainConfig
from clue_jax.data.ahead import made_ahead
from clue_jax.data.balance import block_slots, deal
from clue_jax.data.candidates import candidates
from clue_jax.data.capacity import Capacity, Extremes, capacity_of
from clue_jax.data.keyed import hash64
from clue_jax.data.mixture import JoinedUsers, user_keys
from clue_jax.data.packing import Draws, PackedViews, pack_views
from clue_jax.data.pairs import num_views, view_pairs
from clue_jax.data.records import UserTable
from clue_jax.data.sampling import history_length, training_views
from clue_jax.data.strata import Strata, Stratum
from clue_jax.parallel.mesh import deal_to_devices, local_groups, user_groups, users_per_group


class Batch(NamedTuple):
    """What the step of this number computes."""

    step: int
    packed: PackedViews  # global arrays, leading dimension: group of users
    stats: dict[str, int]  # of this host: tokens, token_slots, items, behaviours ...


class Source(NamedTuple):
    """The training users of a dataset."""

    name: str  # of the dataset
    fingerprint: str
    users: UserTable


class TrainBatches:
    """Batches as a pure function of (seed, step, fingerprints of the datasets).

    Args:
        sources: one or more.
        config: of the run.
        mesh: users are dealt over its groups.

    Raises:
        ConfigError: the batch does not divide over the devices, or exceeds those who may be drawn.
    """

    def __init__(self, sources: Sequence[Source], config: PretrainConfig, mesh: Mesh):
        self.config, self.mesh, sampling = config, mesh, config.sampling
        self.users = JoinedUsers([source.users for source in sources])
        self.seed = _seed(config.seed, *(source.fingerprint for source in sources))
        self.per_group = users_per_group(config.train.batch_users, mesh)
        services = self.users.services
        self.candidates = [
            candidates(source.users, services, config, self.per_group) for source in sources
        ]
        self.strata = Strata(
            [
                Stratum(source.name, len(found.members), _seed(config.seed, source.fingerprint))
                for source, found in zip(sources, self.candidates, strict=True)
            ],
            config.train.batch_users,
            sampling.dataset_weights,
        )
        had = frozenset[tuple[int, int]]().union(*(found.pairs for found in self.candidates))
        self.pairs = view_pairs(services, sampling, had)
        self.capacity = self._capacity()
        self.groups = local_groups(mesh)

    def _capacity(self) -> Capacity:
        heaviest = Extremes()
        for found, most in zip(self.candidates, self.strata.most(), strict=True):
            heaviest = heaviest.merge(found.extremes.of(most), self.per_group)
        return capacity_of(
            heaviest,
            chain.from_iterable(found.outlines() for found in self.candidates),
            self.config.encoder,
            self.per_group,
            num_views(len(self.users.services), self.config.sampling),
            parts=self.config.sampling.within_service_weight > 0,
        )

    def drawn(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The users of a global batch: indices [B] in `users`, dataset by dataset, and loads."""
        members = [
            found.members[places]
            for found, places in zip(self.candidates, self.strata.draw(step), strict=True)
        ]
        starts = self.users.starts[:-1]
        rows = [member["row"] + start for member, start in zip(members, starts, strict=True)]
        return np.concatenate(rows), np.concatenate([member["load"] for member in members])

    def progress(self, steps: int) -> dict[str, float]:
        """Epochs of the dataset gone through least, and users and epochs of each of several."""
        epochs, users = self.strata.epochs(steps), self.strata.before(steps)
        found: dict[str, float] = {"epoch": min(epochs)}
        if len(epochs) > 1:
            for stratum, drawn, epoch in zip(self.strata.strata, users, epochs, strict=True):
                found |= {f"users/{stratum.name}": drawn, f"epoch/{stratum.name}": epoch}
        return found

    def host_batch(self, step: int) -> tuple[PackedViews, dict[str, int]]:
        """Packed views of the groups with a device of this host, and the sums of their counts."""
        rows, loads = self.drawn(step)
        shares = deal(loads, user_groups(self.mesh))
        packed, counts = zip(
            *(self._group_share(rows[shares[group]], step) for group in self.groups), strict=True
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
        packed, counts = pack_views(users, views, self.capacity, config.encoder, draws)
        if len(self.candidates) > 1:
            # Somebody in two datasets may be drawn of both.
            keys = np.concatenate([packed.keys_Kb, user_keys(users)[None]])
            packed = packed._replace(keys_Kb=keys)
        return packed, counts

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
        made = map(self.global_batch, range(first, last))
        yield from made_ahead(made, ahead, "batches")


def _seed(seed: int, *fingerprints: str) -> int:
    return int(hash64(seed, *(int(text[:15], 16) for text in fingerprints)) >> np.uint64(1))
