"""Users in folds: heads that predict some were fitted on others, and chosen on yet others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clue_jax.data.hashing import hashes64
from clue_jax.errors import DataError


@dataclass(frozen=True)
class Fold:
    """Rows to fit on, to choose hyper-parameters on, and to predict; no user is in two of them."""

    fit: np.ndarray
    choose: np.ndarray
    predict: np.ndarray


@dataclass(frozen=True)
class Folds:
    """The fold that each of n rows is predicted in."""

    fold_n: np.ndarray
    count: int

    def __iter__(self) -> Iterator[Fold]:
        for fold in range(self.count):
            chosen_n = self.fold_n == (fold + 1) % self.count
            predicted_n = self.fold_n == fold
            yield Fold(
                np.flatnonzero(~chosen_n & ~predicted_n),
                np.flatnonzero(chosen_n),
                np.flatnonzero(predicted_n),
            )


def deal_folds(
    user_ids: np.ndarray, owner_n: np.ndarray, count: int, stratum_n: np.ndarray | None = None
) -> Folds:
    """Deals the users of rows to folds of even size, by a hash of their ids.

    Args:
        user_ids: [U] str.
        owner_n: place of each row's user in `user_ids`.
        count: folds.
        stratum_n: classes that are to be dealt evenly; only where every user has one row.

    Raises:
        DataError: fewer users than folds.
    """
    users, of_row_n = np.unique(owner_n, return_inverse=True)
    if len(users) < count:
        raise DataError(
            f"{len(users)} labelled users, fewer than --config.downstream.folds={count}"
        )
    keys = [hashes64(f"folds\0{user_id}" for user_id in user_ids[users].tolist())]
    if stratum_n is not None:
        stratum_U = np.zeros(len(users), np.int64)
        stratum_U[of_row_n] = stratum_n
        keys.append(stratum_U)
    fold_U = np.empty(len(users), np.int64)
    fold_U[np.lexsort(keys)] = np.arange(len(users)) % count
    return Folds(fold_U[of_row_n], count)
