"""What models know of users, as vectors: the export, and baselines that could win.

    clue             the export's embedding; clue/SERVICE that of one service alone
    NAME             the same of another export (beside.py), NAME/SERVICE likewise
    random_encoder   the same encoder before training
    tfidf            TF-IDF of all of a user's texts, truncated to `rank` dimensions by SVD
    factors          matrix factorisation of users and items: truncated SVD (scipy) of the matrix of
                     who has what, weighted as TF-IDF is
    als              matrix factorisation as implicit feedback has it (als.py), of the same counts
    item_mean        mean of the export's vectors of the user's items
    item_recent      the same, with weights that halve every `half_life_days` into the past; needs
                     dates
    context          nothing; of clicks, what is shown and where is known to every model
    A+B              features side by side, each scaled to length one

Weights and factors are fitted on what the export could see of all users of its dataset, those that
the encoder was trained on included; no label is involved.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from clue_jax.composition import combine, unit
from clue_jax.console import say
from clue_jax.data.recency import user_weights
from clue_jax.data.records import Users
from clue_jax.errors import ConfigError
from clue_jax.evaluation import baselines
from clue_jax.evaluation.als import als_factors, require_als
from clue_jax.evaluation.beside import Vectors
from clue_jax.evaluation.catalogue import Catalogue
from clue_jax.evaluation.heads import Features
from clue_jax.evaluation.people import People
from clue_jax.evaluation.results import MODEL

PAD = 128


class FeatureSource:
    """Makes features once, whatever the number of tasks that need them."""

    def __init__(self, people: People, exports: Mapping[str, Vectors]):
        self._people, self._exports, self._items = people, exports, exports[MODEL].items
        self._made: dict[str, np.ndarray] = {}

    def users(self, name: str) -> np.ndarray:
        """Features [N, F] of the held-out users.

        Raises:
            ConfigError: a service that the export does not have.
        """
        if name not in self._made:
            say(f"preparing {name}")
            self._made[name] = self._make(name).astype(np.float32)
        return self._made[name]

    def of_items(self, name: str, catalogue: Catalogue) -> np.ndarray | None:
        """Features [C, G] of the items of a catalogue in the space of the users', if there are."""
        if name in ("item_mean", "item_recent"):
            return catalogue.embedding_CE
        export = name.partition("/")[0]
        if export in self._exports:
            return self._exports[export].of_items(catalogue)
        if name == "random_encoder":
            return None
        by_identity_JR = {
            "tfidf": lambda: self._weigh_words(self._words_JW) @ self._word_axes,
            "factors": lambda: self._item_axes,
            "als": lambda: self._als[1],
        }[name]()
        return self._by_entry(by_identity_JR, catalogue).astype(np.float32)

    def of_encoder(self, name: str) -> bool:
        """Whether features are an export's that the evaluated one's encoder made."""
        vectors = self._exports.get(name.partition("/")[0])
        return vectors is not None and vectors.model_version == self._exports[MODEL].model_version

    def check(self) -> None:
        """Raises ConfigError where features need a package that is not installed."""
        if "als" in "+".join(self._people.config.downstream.features).split("+"):
            require_als()

    def joined(self, names: tuple[str, ...], catalogue: Catalogue | None) -> Features | None:
        """Features side by side, each scaled to length one where there are several."""
        scaled = unit if len(names) > 1 else _near_one
        users_NF = np.concatenate([scaled(self.users(name)) for name in names], axis=1)
        if catalogue is None:
            return Features(_padded(users_NF))
        items = [self.of_items(name, catalogue) for name in names]
        there = [scaled(x_CG) for x_CG in items if x_CG is not None]
        if len(there) < len(items):
            return None
        return Features(_padded(users_NF), _padded(np.concatenate(there, axis=1)))

    # ---------------------------------------------------------------------------------- users

    def _make(self, name: str) -> np.ndarray:
        export, _, service = name.partition("/")
        if export in self._exports:
            return self._exports[export].users(service)
        return {
            "context": lambda: np.zeros((self._held, 1)),
            "random_encoder": self._random_encoder,
            "tfidf": self._tfidf,
            "factors": self._factors,
            "als": lambda: self._als[0][: self._held],
            "item_mean": lambda: self._mean_of_items(self._behaviours_AJ[: self._held]),
            "item_recent": lambda: self._mean_of_items(self._recent_NJ()),
        }[name]()

    def _random_encoder(self) -> np.ndarray:

        people = self._people
        by_service = baselines.random_encoder(
            people.export.manifest["config"],
            people.seen,
            people.dataset.tokenizer.vocab_size,
            people.config.seed,
        )
        z_NSE = np.stack([by_service[service] for service in people.seen.services], axis=1)
        return combine(z_NSE, people.seen.counts() > 0)

    def _tfidf(self) -> np.ndarray:
        return (self._weigh_words(self._words_AW) @ self._word_axes)[: self._held]

    def _factors(self) -> np.ndarray:
        return (self._weighted_AJ @ self._item_axes)[: self._held]

    def _mean_of_items(self, weight_NJ: sp.csr_array) -> np.ndarray:
        assert self._items is not None  # the config names an export of items
        embedding_JE = self._items.embedding_JE[self._items.rows_of(self._table.item_ids)]
        total_N = np.asarray(weight_NJ.sum(axis=1)).ravel()
        return (weight_NJ @ embedding_JE) / np.maximum(total_N, 1e-12)[:, None]

    def _recent_NJ(self) -> sp.csr_array:
        """Weights of each held-out user's items; raises ConfigError where there are no dates."""
        people = self._people
        if not people.dataset.has_times:
            raise ConfigError("config.downstream.features: item_recent needs logs with dates")
        weights = user_weights(people.seen, people.config.downstream.half_life_days)
        return self._by_item(people.seen, weights)

    # ------------------------------------------------------- all A users of the dataset, held first

    @property
    def _held(self) -> int:
        return len(self._people.held)

    @functools.cached_property
    def _table(self) -> Any:
        return self._people.dataset.items()

    @functools.cached_property
    def _behaviours_AJ(self) -> sp.csr_array:
        """How often each user has each item of the dataset."""
        users = self._people.everyone
        return self._by_item(users, np.ones(len(users.behaviour_items)))

    def _by_item(self, users: Users, weight_M: np.ndarray) -> sp.csr_array:
        """Sums of the weights of behaviours by user and item of the dataset."""
        column = self._table.lookup(users.item_ids[users.item_rows()])
        shape = (len(users), len(self._table))
        matrix = sp.csr_array((weight_M, (users.owners(), column)), shape=shape)
        matrix.sum_duplicates()
        return matrix

    @functools.cached_property
    def _words_JW(self) -> sp.csr_array:
        return baselines.words_of(self._table.texts.tolist())

    @functools.cached_property
    def _words_AW(self) -> sp.csr_array:
        return self._behaviours_AJ @ self._words_JW

    @functools.cached_property
    def _weigh_words(self) -> baselines.Tfidf:
        return baselines.fit_tfidf([self._words_AW])

    @functools.cached_property
    def _word_axes(self) -> np.ndarray:
        return self._axes(self._weigh_words(self._words_AW))

    @functools.cached_property
    def _weighted_AJ(self) -> sp.csr_array:
        weigh = baselines.fit_tfidf([self._behaviours_AJ])
        # Back to all items, so that places are those of the table.
        weights = weigh(self._behaviours_AJ).tocoo()
        return sp.csr_array(
            (weights.data, (weights.row, weigh.kept[weights.col])), shape=self._behaviours_AJ.shape
        )

    @functools.cached_property
    def _item_axes(self) -> np.ndarray:
        return self._axes(self._weighted_AJ)

    @functools.cached_property
    def _als(self) -> tuple[np.ndarray, np.ndarray]:
        downstream, seed = self._people.config.downstream, self._people.config.seed
        weights = downstream.als_alpha, downstream.als_penalty
        return als_factors(self._behaviours_AJ, downstream.rank, *weights, seed)

    def _axes(self, matrix_AX: sp.csr_array) -> np.ndarray:
        """The right singular vectors [X, R] of the greatest singular values."""
        rank = min(self._people.config.downstream.rank, min(matrix_AX.shape) - 1)
        start = np.random.default_rng(self._people.config.seed).random(min(matrix_AX.shape))
        _, _, axes_RX = svds(matrix_AX, k=max(1, rank), v0=start)
        return axes_RX.T

    def _by_entry(self, values_JR: np.ndarray, catalogue: Catalogue) -> np.ndarray:
        """Sums over the identities of each entry, [C, R]."""
        rows = np.flatnonzero(catalogue.entry_J >= 0)
        column = self._table.lookup(catalogue.items.item_ids[rows])
        total_CR = np.zeros((len(catalogue), values_JR.shape[1]))
        np.add.at(total_CR, catalogue.entry_J[rows], values_JR[column])
        return total_CR


def _near_one(x_NF: np.ndarray) -> np.ndarray:
    """All vectors by one factor, so that a typical one has length one."""
    return x_NF / max(float(np.sqrt((x_NF.astype(np.float64) ** 2).sum(axis=1).mean())), 1e-12)


def _padded(x_NF: np.ndarray) -> np.ndarray:
    """Zero columns up to a multiple of `PAD`: features of one shape share a compiled head."""
    return np.pad(x_NF, ((0, 0), (0, -x_NF.shape[1] % PAD))).astype(np.float32)
