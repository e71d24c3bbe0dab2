"""Several prepared datasets as one to train on: opened together, their users under one index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clue_jax.config import PretrainConfig
from clue_jax.data.guides import clash, guides_of
from clue_jax.data.hashing import hashes64
from clue_jax.data.keyed import int32_of
from clue_jax.data.ragged import offsets_of, rows_at
from clue_jax.data.records import Users, UserTable, concatenate
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.errors import ConfigError


def open_datasets(paths: Sequence[str], config: PretrainConfig) -> dict[str, Dataset]:
    """Opens datasets that are trained on together, by name: the folder's, or the path if need be.

    Raises:
        ConfigError: they cannot be mixed; names the folders and what they differ in.
        DataError: one of them is damaged.
    """
    weights = config.sampling.dataset_weights
    if weights and len(weights) != len(paths):
        raise ConfigError(
            f"config.sampling.dataset_weights: {len(weights)} weights for {len(paths)} --data"
        )
    opened = [open_dataset(path, config.data.verify) for path in paths]
    for number, dataset in enumerate(opened):
        for other in opened[:number]:
            _check_alike(other, dataset, config.encoder.max_item_tokens)
    folders = [dataset.path.name for dataset in opened]
    alone = Counter(folders)
    names = [f if alone[f] == 1 else str(path) for f, path in zip(folders, paths, strict=True)]
    return dict(zip(names, opened, strict=True))


def _check_alike(first: Dataset, second: Dataset, longest: int) -> None:
    if first.fingerprint == second.fingerprint:
        raise ConfigError(
            f"--data: {first.path} and {second.path} are the same dataset"
            f" ({first.fingerprint[:12]}); to draw more of it, weigh it with"
            " --config.sampling.dataset_weights"
        )
    if first.tokenizer.identity != second.tokenizer.identity:
        raise ConfigError(
            f"--data: {first.path} has tokenizer {first.tokenizer.identity[:12]}, {second.path} has"
            f" {second.tokenizer.identity[:12]}; prepare one of them again with the other's:"
            f" --config.tokenizer.path={first.path}"
        )
    problem = clash(*(guides_of(d.tokenizer, d.services) for d in (first, second)))
    if problem:
        raise ConfigError(
            f"--data: {problem}, in {first.path} and in {second.path}; prepare one of them again"
            f" with the other's guides: --config.tokenizer.path={first.path}"
        )
    # An item of both would otherwise have the tokens of whoever is packed first.
    caps = [min(d.manifest["max_item_tokens"], longest) for d in (first, second)]
    if caps[0] != caps[1]:
        raise ConfigError(
            f"--data: prepare cut items to {first.manifest['max_item_tokens']} tokens in"
            f" {first.path} and to {second.manifest['max_item_tokens']} in {second.path}; lower"
            f" config.encoder.max_item_tokens={longest} to {min(caps)}, or prepare them alike"
        )


def union_of(services: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Names of services in order of first appearance."""
    return tuple(dict.fromkeys(name for names in services for name in names))


class JoinedUsers:
    """The users of several tables, one table after the other."""

    def __init__(self, tables: Sequence[UserTable]):
        self.tables = tuple(tables)
        self.services = union_of([table.services for table in tables])
        self.starts = offsets_of(np.array([len(table) for table in tables]))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, indices: np.ndarray) -> Users:
        """The users at these indices of all tables end to end, in that order."""
        table = np.searchsorted(self.starts, indices, side="right") - 1
        parts = [
            _among(self.services, self.tables[t].take(indices[table == t] - self.starts[t]))
            for t in range(len(self.tables))
        ]
        if len(parts) == 1:
            return parts[0]
        users, order = concatenate(parts, self.services), np.argsort(table, kind="stable")
        if (order[1:] > order[:-1]).all():
            return users
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return users.take(place)


def _among(services: tuple[str, ...], users: Users) -> Users:
    """Users of some of these services, with empty histories in the others."""
    if users.services == services:
        return users
    columns = np.array([services.index(name) for name in users.services])
    rows = np.arange(len(users))[:, None] * len(columns) + np.argsort(columns)
    behaviours, lengths = rows_at(users.behaviour_offsets, rows.ravel())
    counts_NS = np.zeros((len(users), len(services)), np.int64)
    counts_NS[:, np.sort(columns)] = lengths.reshape(rows.shape)
    return Users(
        **{
            **vars(users),
            "services": services,
            "behaviour_items": users.behaviour_items[behaviours],
            "behaviour_times": users.behaviour_times[behaviours],
            "behaviour_offsets": offsets_of(counts_NS.ravel()),
        }
    )


def user_keys(users: Users) -> np.ndarray:
    """Who each user is, as int32 [N]: of one id in all tables.

    Different ids collide with probability 2^-32, as keys of views do (sampling.view_keys).
    """
    return int32_of(hashes64(users.user_ids))
