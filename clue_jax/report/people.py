"""A few users and who is nearest to them, by what they did: for who may see that, and asks to.

Nothing here is read, and no page shows a text of a person, but for --show_texts and the dataset,
which may forbid it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from etils import epath

from clue_jax.data.hashing import hashes64
from clue_jax.data.manifest import TEXTS_SHOWN, may_show_texts
from clue_jax.data.records import Users
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.embeddings.reader import Embeddings, read_embeddings
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation.exported import users_of

SHOWN, NEAREST, NEWEST = 4, 3, 5  # users, neighbours of each, and texts of each in a service
SPLIT = "test"


@dataclass(frozen=True)
class Person:
    """Newest texts of a user by service, newest first; and how near they are to the one shown."""

    texts: dict[str, list[str]]
    cosine: float | None = None


@dataclass(frozen=True)
class Neighbourhood:
    """A user and the nearest others of the same split; no ids."""

    user: Person
    nearest: list[Person]


def read_people(export: epath.PathLike, data: str) -> list[Neighbourhood]:
    """The users of the test split of least hash that have most services, with their neighbours.

    Args:
        export: of users.
        data: the prepared dataset it was made from.

    Raises:
        ConfigError: it forbids that its texts are shown.
        DataError: it is not the one of the export; either is damaged, or has too few test users.
    """
    dataset = open_dataset(data)
    if not may_show_texts(dataset.manifest):
        raise ConfigError(
            f"--show_texts: {data} was prepared with config.{TEXTS_SHOWN}=false, so no text of its"
            " people is shown; leave --show_texts and --data out. Whoever answers for the logs may"
            f" prepare it again with --config.{TEXTS_SHOWN}=true --config.overwrite=true"
        )
    found = read_embeddings(export, (SPLIT,))
    made_from = found.manifest["dataset"]["fingerprint"]
    if dataset.fingerprint != made_from:
        raise DataError(
            f"--data={data}: dataset {dataset.fingerprint[:12]}, but {export} was made from"
            f" {made_from[:12]}; name that one"
        )
    if len(found) <= NEAREST:
        raise DataError(f"{export}: {len(found)} users of the {SPLIT} split, too few to compare")
    users = users_of(found, dataset, (SPLIT,))  # with what the export could see of them
    return [_neighbourhood(row, found, users, dataset) for row in _chosen(found)]


def _chosen(found: Embeddings) -> list[int]:
    services = np.sum(list(found.present.values()), axis=0)
    hashes = hashes64(found.user_ids.tolist())
    return np.lexsort((hashes, -services))[:SHOWN].tolist()


def _neighbourhood(row: int, found: Embeddings, users: Users, dataset: Dataset) -> Neighbourhood:
    cosine_N = found.embedding_NE @ found.embedding_NE[row]
    cosine_N[row] = -np.inf
    nearest = np.argsort(-cosine_N, kind="stable")[:NEAREST].tolist()
    return Neighbourhood(
        Person(_texts(users, row, dataset)),
        [Person(_texts(users, n, dataset), float(cosine_N[n])) for n in nearest],
    )


def _texts(users: Users, row: int, dataset: Dataset) -> dict[str, list[str]]:
    """The newest of each service."""
    one, items = users.take([row]), dataset.items()
    found = {}
    for k, service in enumerate(dataset.services):
        newest = one.in_service(k)[1][-NEWEST:][::-1]
        places = items.lookup(one.item_ids[one.item_rows()[newest]])
        found[service] = [str(value) for value in items.texts[places]]
    return found
