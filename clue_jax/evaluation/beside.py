"""Other exports beside the one that is evaluated: another window of time, another encoder.

Each gives features under its own name. It must be as blind to the labels as the evaluated one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clue_jax.config.evaluation import named_folders
from clue_jax.console import say
from clue_jax.embeddings.reader import Embeddings, read_embeddings
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation.catalogue import Catalogue, Items, read_items
from clue_jax.evaluation.exported import cutoff_seconds, held_out_of, places_in
from clue_jax.evaluation.people import People
from clue_jax.evaluation.results import MODEL


@dataclass(frozen=True)
class Vectors:
    """What one export knows of the N held-out users: unit vectors, zero where it has none."""

    embedding_NE: np.ndarray
    by_service: Mapping[str, np.ndarray]  # [N, E]
    items: Items | None  # of the same encoder; None: there are none
    model_version: str

    def users(self, service: str) -> np.ndarray:
        """Vectors [N, E] of one service; empty: the combined ones.

        Raises:
            ConfigError: a service that the export does not have.
        """
        if not service:
            return self.embedding_NE
        if service not in self.by_service:
            raise ConfigError(
                f"config.downstream.features: no service {service!r} in this export; it has"
                f" {', '.join(self.by_service)}"
            )
        return self.by_service[service]

    def of_items(self, catalogue: Catalogue) -> np.ndarray | None:
        """Vectors [C, E] of the items of a catalogue; None where there are none."""
        return None if self.items is None else catalogue.directions(self.items)


def read_exports(people: People) -> dict[str, Vectors]:
    """The evaluated export as `clue`, and the others that the config names.

    Raises:
        DataError: an export that is damaged, may have seen more than the evaluated one, or has
            none of its users; items of another encoder than their users.
    """
    downstream, held = people.config.downstream, people.held
    mine = str(people.export.manifest["model_version"])
    items = read_items(downstream.items, mine) if downstream.items else None
    found = {MODEL: Vectors(held.embedding_NE, held.by_service, items, mine)}
    tables = named_folders(downstream.beside_items)
    for name, folder in named_folders(downstream.beside).items():
        other = read_embeddings(folder)
        _refuse_knowing_more(people.export, other, folder)
        version = str(other.manifest["model_version"])
        same = items if version == mine else None
        own = read_items(tables[name], version) if name in tables else same
        found[name] = _aligned(other, held.user_ids, folder, own)
    return found


def _refuse_knowing_more(export: Embeddings, other: Embeddings, folder: str) -> None:
    """Labels are checked against the evaluated export alone."""

    def cutoff(embeddings: Embeddings) -> float:
        seconds = cutoff_seconds(embeddings)
        return np.inf if seconds is None else seconds

    if cutoff(other) > cutoff(export) or held_out_of(other) < held_out_of(export):
        raise DataError(
            f"{folder}: cutoff {other.manifest['cutoff'] or 'none'} and hold_out_last"
            f" {held_out_of(other)}, but the evaluated export has"
            f" {export.manifest['cutoff'] or 'none'} and {held_out_of(export)}; export it again so"
            " that it sees no more"
        )


def _aligned(other: Embeddings, user_ids: np.ndarray, folder: str, items: Items | None) -> Vectors:
    row_N = places_in(other, user_ids)
    missing = int((row_N < 0).sum())
    if missing == len(row_N):
        raise DataError(f"{folder}: it has none of the {len(row_N):,} users to be evaluated")
    if missing:
        say(f"{folder}: without {missing:,} of {len(row_N):,} users, who get zeros there")

    def of_users(z_XE: np.ndarray) -> np.ndarray:
        return np.where(row_N[:, None] >= 0, z_XE[row_N], 0.0)

    return Vectors(
        of_users(other.embedding_NE),
        {service: of_users(z_XE) for service, z_XE in other.by_service.items()},
        items,
        str(other.manifest["model_version"]),
    )
