"""What a train step is compiled for when there is no data yet: users of an assumed kind."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from clue_jax.config import PretrainConfig, Remat
from clue_jax.data.capacity import Capacity
from clue_jax.data.mixture import union_of
from clue_jax.data.packing import PackedViews, empty_views
from clue_jax.data.pairs import ViewPair, num_views, view_pairs
from clue_jax.data.records import UserTable
from clue_jax.data.source import Dataset
from clue_jax.errors import ConfigError
from clue_jax.model.clue import HISTORIES, ITEMS
from clue_jax.model.sizes import parameter_count, step_flops
from clue_jax.parallel.mesh import sharded, user_groups, users_per_group
from clue_jax.training.state import TrainState, init_state, state_shardings

# A batch of the heaviest users needs more than one of average users; rows are not filled wholly.
_HEADROOM, _FILL = 1.5, 0.95


@dataclass(frozen=True)
class UserProfile:
    """An average user; buffers have room for batches of half as much again."""

    services: int = 2
    behaviours: int = 64  # in one view
    items: int = 96  # distinct, over all views
    tokens: int = 16  # of an item
    vocabulary: int = 50_258

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ConfigError(f"--{name}={value}: at least 1")


def profile_of(datasets: Sequence[Dataset], config: PretrainConfig) -> UserProfile:
    """The average training user of datasets, as they are mixed; numbers are rounded up."""
    totals_DK = np.array([_totals(dataset.table("train", config.data)) for dataset in datasets])
    users_D = totals_DK[:, 0]
    weights_D = np.array(config.sampling.dataset_weights or users_D)
    users, behaviours, histories, items, tokens = (weights_D / users_D) @ totals_DK
    return UserProfile(
        services=len(union_of([dataset.services for dataset in datasets])),
        behaviours=math.ceil(behaviours / histories),
        items=math.ceil(items / users),
        tokens=math.ceil(tokens / items),
        vocabulary=datasets[0].tokenizer.vocab_size,
    )


def _totals(users: UserTable) -> list[int]:
    """Users, behaviours, histories, items and tokens."""
    behaviours = histories = items = tokens = 0
    for part in users.outlines():
        behaviours += int(part.counts.sum())
        histories += int((part.counts > 0).sum())
        items += len(part.item_ids)
        tokens += int(part.item_lengths.sum())
    return [len(users), behaviours, histories, items, tokens]


@dataclass(frozen=True)
class Workload:
    """One step of a run: its shapes, and what it computes on average."""

    config: PretrainConfig
    mesh: Mesh
    profile: UserProfile
    capacity: Capacity  # of one group of devices
    item_chunks: int  # that a group computes
    view_chunks: int

    @property
    def pairs(self) -> tuple[ViewPair, ...]:
        services = [f"service-{number}" for number in range(self.profile.services)]
        return view_pairs(services, self.config.sampling)

    @property
    def parameters(self) -> int:
        return parameter_count(self.config.encoder, self.profile.vocabulary)

    def useful_flops(self) -> float:
        """Of the whole step, of real tokens and behaviours, as MFU counts."""
        users, profile, config = self.config.train.batch_users, self.profile, self.config
        length, behaviours = _within_caps(config, profile)
        tokens, whole = profile.items * length, profile.services * behaviours
        # Two parts of each history have its behaviours once more, and half its pairs.
        parts = config.sampling.within_service_weight > 0
        counts = {
            "tokens": users * tokens,
            "token_pairs": users * tokens * length,
            "behaviours": users * whole * (2 if parts else 1),
            "behaviour_pairs": users * whole * behaviours * (1.5 if parts else 1),
            "views": users * self.capacity.views,
        }
        return step_flops(config, counts, len(self.pairs))

    def executed_flops(self) -> float:
        """Of the whole step with what is computed once more on the way back, attention aside."""
        # Forward, and twice that for gradients; a chunk's forward again, and its blocks' once more.
        again = 2 if self.config.encoder.remat is Remat.FULL else 1
        return self.useful_flops() * (3 + again) / 3

    def state(self) -> TrainState:
        """Shapes of the state, lying as on the mesh."""
        shapes = jax.eval_shape(lambda: init_state(self.config, self.profile.vocabulary))
        return jax.tree.map(
            lambda a, lies: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lies),
            shapes,
            state_shardings(self.config, self.mesh),
        )

    def batch(self) -> PackedViews:
        """Shapes of a batch."""
        skips = self.config.sampling.layer_dropout > 0
        groups, lies = user_groups(self.mesh), sharded(self.mesh)
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((groups, *a.shape), a.dtype, sharding=lies),
            empty_views(self.capacity, self.config.encoder, skips=skips),
        )

    def chunks(self, op_name: str) -> int | None:
        """Expected trips of the loop over chunks that an instruction comes from, if it is one."""
        counts = {ITEMS: self.item_chunks, HISTORIES: self.view_chunks}
        # The way back is named transpose(jvp(items)).
        return next((n for level, n in counts.items() if re.search(rf"\b{level}\b", op_name)), None)


def assume(config: PretrainConfig, mesh: Mesh, profile: UserProfile) -> Workload:
    """The step of a config on a mesh, for batches of such users.

    Raises:
        ConfigError: batch or parameters do not divide over the mesh.
    """
    encoder = config.encoder
    users = users_per_group(config.train.batch_users, mesh)
    views = num_views(profile.services, config.sampling)
    length, per_view = _within_caps(config, profile)
    parts = 2 if config.sampling.within_service_weight > 0 else 1
    tokens, behaviours = users * profile.items * length, users * profile.services * per_view * parts
    item_chunks = _chunks(tokens, encoder.item_rows * encoder.row_tokens)
    view_chunks = _chunks(behaviours, encoder.history_rows * encoder.row_behaviours)
    capacity = Capacity(
        users=users,
        views=views,
        items=math.ceil(_HEADROOM * users * profile.items),
        item_chunks=math.ceil(_HEADROOM * item_chunks) + 1,
        view_chunks=math.ceil(_HEADROOM * view_chunks) + 1,
    )
    return Workload(config, mesh, profile, capacity, item_chunks, view_chunks)


def _within_caps(config: PretrainConfig, profile: UserProfile) -> tuple[int, int]:
    """Tokens of an item and behaviours of a view."""
    encoder = config.encoder
    return (
        min(profile.tokens, encoder.max_item_tokens),
        min(profile.behaviours, encoder.max_history),
    )


def _chunks(units: int, slots: int) -> int:
    return math.ceil(units / (_FILL * slots))
