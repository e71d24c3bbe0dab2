"""The users of an export with the behaviours that it could see, and the dataset they are of."""

from __future__ import annotations

import numpy as np

from clue_jax.config import epoch_seconds
from clue_jax.data.erasures import lost_since
from clue_jax.data.records import Users, concatenate, visible
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.embeddings.reader import Embeddings
from clue_jax.errors import DataError


def rows_of_splits(export: Embeddings, splits: tuple[str, ...]) -> np.ndarray:
    """Rows of an export that are of some splits.

    Raises:
        DataError: a split that was not exported, or nobody in them.
    """
    there = export.manifest.get("splits", ())
    unknown = sorted(set(splits) - set(there))
    if unknown:
        raise DataError(f"no split {unknown[0]!r} in this export; it has {', '.join(there)}")
    rows = np.flatnonzero(np.isin(export.splits.astype(str), splits))
    if not len(rows):
        raise DataError(f"the export has no users of {'+'.join(splits)}")
    return rows


def dataset_of(export: Embeddings, path: str) -> Dataset:
    """The dataset an export was made from.

    Raises:
        DataError: it is another one; names both fingerprints.
    """
    made_from = export.manifest["dataset"]
    dataset = open_dataset(path or made_from["path"])
    if dataset.fingerprint != made_from["fingerprint"]:
        lost = lost_since(dataset.path, dataset.manifest, made_from["fingerprint"])
        raise DataError(
            f"{dataset.path}: fingerprint {dataset.fingerprint[:12]}, but the export was made from"
            f" {made_from['fingerprint'][:12]}"
            + (
                f"{lost}: erase them from the export as well, with clue-jax erase --ids=FILE"
                f" --data={dataset.path} --embeddings=EXPORT --record=FILE"
                if lost
                else "; name that dataset with --config.data=DIR"
            )
        )
    return dataset


def places_in(export: Embeddings, user_ids: np.ndarray) -> np.ndarray:
    """Rows [N] of users in an export; -1 of those whom it lacks."""
    row_of = {user_id: row for row, user_id in enumerate(export.user_ids.tolist())}
    return np.array([row_of.get(user_id, -1) for user_id in user_ids.tolist()], np.int64)


def taken(export: Embeddings, rows: np.ndarray) -> Embeddings:
    """The export of the users of some rows alone."""
    return Embeddings(
        user_ids=export.user_ids[rows],
        splits=export.splits[rows],
        embedding_NE=export.embedding_NE[rows],
        by_service={name: z_NE[rows] for name, z_NE in export.by_service.items()},
        present={name: there[rows] for name, there in export.present.items()},
        counts={name: counts[rows] for name, counts in export.counts.items()},
        manifest=export.manifest,
    )


def users_of(export: Embeddings, dataset: Dataset, splits: tuple[str, ...]) -> Users:
    """The export's users in its order, with the behaviours that it could see.

    Raises:
        DataError: a user, or a number of behaviours, that differs between the two.
    """
    chosen = whole_users_of(export, dataset, splits)
    users = seen_by(export, chosen)
    exported_NS = np.stack([export.counts[service] for service in users.services], axis=1)
    differ = np.flatnonzero((users.counts() != exported_NS).any(axis=1))
    if len(differ):
        raise DataError(
            f"{dataset.path}: {len(differ):,} users have another number of behaviours there than in"
            f" the export (row {differ[0]}: {users.counts()[differ[0]].tolist()} and"
            f" {exported_NS[differ[0]].tolist()}); export again"
        )
    return users


def whole_users_of(export: Embeddings, dataset: Dataset, splits: tuple[str, ...]) -> Users:
    """The export's users in its order, with all their behaviours.

    Raises:
        DataError: a user that the dataset does not have in these splits.
    """
    everyone = concatenate([dataset.users(split) for split in splits], dataset.services)
    position = {user_id: n for n, user_id in enumerate(everyone.user_ids.tolist())}
    unknown = [user_id for user_id in export.user_ids.tolist() if user_id not in position]
    if unknown:
        raise DataError(
            f"{dataset.path}: {len(unknown):,} users of the export are not in its splits"
            f" {', '.join(splits)}; export again from this dataset"
        )
    return everyone.take([position[user_id] for user_id in export.user_ids.tolist()])


def seen_by(export: Embeddings, users: Users) -> Users:
    """Users with the behaviours that an export with these settings could see."""
    start = export.manifest.get("start")  # an older export has neither this nor `newest`
    return visible(
        before_labels(export, users),
        start=epoch_seconds(start) if start else None,
        newest=int(export.manifest.get("newest") or 0),
    )


def before_labels(export: Embeddings, users: Users) -> Users:
    """Users with all behaviours up to where an export ends."""
    return visible(users, cutoff_seconds(export), held_out_of(export))


def cutoff_seconds(export: Embeddings) -> int | None:
    """The export's cutoff in epoch seconds; a time without zone is UTC."""
    cutoff = export.manifest["cutoff"]
    return epoch_seconds(cutoff) if cutoff else None


def held_out_of(export: Embeddings) -> int:
    """Behaviours that an export left out at the end of each service's history."""
    return int(export.manifest["hold_out_last"] or 0)
