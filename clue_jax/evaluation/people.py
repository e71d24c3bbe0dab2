"""Who takes part in downstream tasks: the users of an export, and which of them heads may use."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from clue_jax.config import EvaluateConfig
from clue_jax.data.records import Users, concatenate
from clue_jax.data.source import Dataset
from clue_jax.embeddings.reader import Embeddings
from clue_jax.evaluation.exported import (
    dataset_of,
    rows_of_splits,
    seen_by,
    taken,
    users_of,
    whole_users_of,
)


@dataclass(frozen=True)
class People:
    """The users of an export; those of the chosen splits, N of them, are held out of training.

    The dataset is opened when something needs it: labels and embeddings alone do not.
    """

    config: EvaluateConfig
    export: Embeddings

    @functools.cached_property
    def held_N(self) -> np.ndarray:
        """Rows of the export that are of the chosen splits.

        Raises:
            DataError: a split that was not exported, or nobody in them.
        """
        return rows_of_splits(self.export, self.config.downstream.splits)

    @functools.cached_property
    def place_of(self) -> dict[str, int]:
        """User id -> place among the N held-out users; -1: exported, but not held out."""
        places = np.full(len(self.export), -1)
        places[self.held_N] = np.arange(len(self.held_N))
        return dict(zip(self.export.user_ids.tolist(), places.tolist(), strict=True))

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The dataset the export was made from; see `dataset_of`."""
        return dataset_of(self.export, self.config.data)

    @functools.cached_property
    def dataset_ids(self) -> frozenset[str]:
        """Ids of all users of the dataset, exported or not."""
        splits = self.dataset.manifest["splits"]
        return frozenset(i for split in splits for i in self.dataset.users(split).user_ids.tolist())

    @functools.cached_property
    def seen(self) -> Users:
        """The N users with the behaviours that the export could see."""
        return users_of(self.held, self.dataset, self.config.downstream.splits)

    @functools.cached_property
    def whole(self) -> Users:
        """The N users with all their behaviours, those that the export could not see included."""
        return whole_users_of(self.held, self.dataset, self.config.downstream.splits)

    @functools.cached_property
    def everyone(self) -> Users:
        """The N users first, then all others of the dataset, with what the export could see.

        What needs no labels, such as the popularity of items, may be learnt from all of them, as
        the encoder was.
        """
        held = set(self.export.user_ids[self.held_N].tolist())
        parts = [self.seen]
        for split in self.dataset.manifest["splits"]:
            users = self.dataset.users(split)
            others = [n for n, user_id in enumerate(users.user_ids.tolist()) if user_id not in held]
            parts.append(seen_by(self.export, users.take(others)))
        return concatenate(parts, self.dataset.services)

    @functools.cached_property
    def behaviours_N(self) -> np.ndarray:
        """Behaviours that the export could see of each held-out user, over all services."""
        total_N: np.ndarray = self._counts_NS.sum(axis=1)
        return total_N

    @functools.cached_property
    def _counts_NS(self) -> np.ndarray:
        counts = [self.export.counts[service][self.held_N] for service in self.export.services]
        return np.stack(counts, axis=1)

    @functools.cached_property
    def services_N(self) -> np.ndarray:
        """Services on which each held-out user has a behaviour that the export could see."""
        services_N: np.ndarray = (self._counts_NS > 0).sum(axis=1)
        return services_N

    @functools.cached_property
    def held(self) -> Embeddings:
        """The export of the N held-out users alone."""
        return taken(self.export, self.held_N)
