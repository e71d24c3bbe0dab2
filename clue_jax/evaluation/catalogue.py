"""The items of one service that a retrieval task ranks, and who has which of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from clue_jax.composition import unit
from clue_jax.data.records import Users
from clue_jax.embeddings.reader import read_manifest, read_table
from clue_jax.embeddings.vectors import matrix
from clue_jax.errors import DataError


@dataclass(frozen=True)
class Items:
    """An export of items: J identities, ascending, with their vectors."""

    item_ids: np.ndarray  # [J] uint64
    services: np.ndarray  # [J] str
    source_ids: np.ndarray  # [J] str
    embedding_JE: np.ndarray  # unit vectors

    def rows_of(self, item_ids: np.ndarray) -> np.ndarray:
        """Rows of identities.

        Raises:
            DataError: one that the export lacks.
        """
        rows = np.minimum(np.searchsorted(self.item_ids, item_ids), len(self.item_ids) - 1)
        missing = self.item_ids[rows] != item_ids
        if missing.any():
            raise DataError(
                f"the export of items lacks {len(np.unique(item_ids[missing])):,} items of the"
                " users' dataset; export the items of that dataset"
            )
        return rows


def read_items(path: str, model_version: str) -> Items:
    """An export of items, of the same model as users.

    Raises:
        DataError: it is damaged, of users, or of another model.
    """
    manifest = read_manifest(path)
    table = read_table(path, "items")
    other = manifest.get("model_version")
    if model_version != other:
        raise DataError(
            f"{path}: items of model {other}, but the users are of {model_version}; export both"
            " from one checkpoint"
        )
    identities = table.column("item_id").to_numpy().view(np.uint64)
    table = table.take(pa.array(np.argsort(identities)))
    return Items(
        np.sort(identities),
        np.array(table.column("service").to_pylist(), object),
        np.array(table.column("source_id").to_pylist(), object),
        matrix(table, "embedding")[0],
    )


@dataclass(frozen=True)
class Catalogue:
    """C distinct items of a service: by id at the source, or by identity where one has none.

    An item that was written in several ways has one entry, with the mean direction of its vectors.
    """

    service: str
    names: np.ndarray  # [C] str, sorted
    entry_J: np.ndarray  # of each identity of the items; -1: of another service
    embedding_CE: np.ndarray
    items: Items

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names.tolist())}

    def find(self, names: pa.Array) -> np.ndarray:
        """Entries of ids at the source; -1 where there is none."""
        found = pc.index_in(names.cast(pa.string()), pa.array(self.names.tolist(), pa.string()))
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def counts(self, users: Users) -> sp.csr_array:
        """How often each user has each entry, [N, C]."""
        owner, behaviours = users.in_service(users.services.index(self.service))
        entry = self.entries(users, owner, behaviours)
        matrix_NC = sp.csr_array(
            (np.ones(len(owner)), (owner, entry)), shape=(len(users), len(self))
        )
        matrix_NC.sum_duplicates()
        return matrix_NC

    def directions(self, items: Items) -> np.ndarray:
        """The mean direction [C, E] of each entry's vectors in an export of the same items.

        Raises:
            DataError: an item that the export lacks.
        """
        if items is self.items:
            return self.embedding_CE
        here = np.flatnonzero(self.entry_J >= 0)
        vectors = items.embedding_JE[items.rows_of(self.items.item_ids[here])]
        return mean_directions(self.entry_J[here], vectors, len(self))

    def entries(self, users: Users, owner: np.ndarray, behaviours: np.ndarray) -> np.ndarray:
        """Entries of behaviours, given their places and the users they are of."""
        own = users.item_offsets[owner] + users.behaviour_items[behaviours]
        return self.entry_J[self.items.rows_of(users.item_ids[own])]


def build_catalogue(items: Items, service: str) -> Catalogue:
    """The catalogue of a service.

    Raises:
        DataError: there are no items of it.
    """
    here = np.flatnonzero(items.services == service)
    if not len(here):
        there = ", ".join(sorted(set(items.services.tolist())))
        raise DataError(f"no items of service {service!r} in the export of items; it has {there}")
    keys = items.source_ids[here].astype(str)
    if (keys == "").any():
        keys = items.item_ids[here].astype(str)
    names, entry = np.unique(keys, return_inverse=True)
    entry_J = np.full(len(items.item_ids), -1)
    entry_J[here] = entry
    embedding_CE = mean_directions(entry, items.embedding_JE[here], len(names))
    return Catalogue(service, names, entry_J, embedding_CE, items)


def mean_directions(entry_X: np.ndarray, vectors_XE: np.ndarray, entries: int) -> np.ndarray:
    """Sums of vectors by entry, scaled to length one, [entries, E] float32."""
    total_CE = np.zeros((entries, vectors_XE.shape[1]))
    np.add.at(total_CE, entry_X, vectors_XE)
    return unit(total_CE).astype(np.float32)
