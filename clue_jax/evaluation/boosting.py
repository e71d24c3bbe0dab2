"""Boosted trees on frozen features: scikit-learn's histogram gradient boosting, fold by fold.

Trees of each size are grown on the fitted users; size and number of trees are those of the least
loss on the validation users. Of CLICKS the trees see the user's features and, as categories, what
was shown and where, so that what a position adds may differ from user to user.

As LightGBM does it (Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision
Tree"). A catalogue of items is not for trees, so RETRIEVAL has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from clue_jax.config import DownstreamConfig, TaskKind
from clue_jax.errors import ConfigError
from clue_jax.evaluation.folds import Fold
from clue_jax.evaluation.heads import Features, Problem
from clue_jax.evaluation.scores import EDGE

TREES, EVERY, PATIENCE = 100, 10, 20  # at most for each output; between looks; in vain
MOST_SHOWN = 255  # categories of scikit-learn
CHUNK = 65_536  # rows predicted at a time


@dataclass(frozen=True)
class Boosted:
    """The chosen trees of each fold; a `heads.Trained`.

    Attributes:
        losses: on the validation users of each fold, in the units of heads.
        models: of scikit-learn.
        trees: how many of each model count.
        problem: what they were fitted to.
        features: what they were fitted on.
    """

    losses: tuple[float, ...]
    models: tuple[Any, ...]
    trees: tuple[int, ...]
    problem: Problem
    features: Features

    def outputs(self, fold: int, users: np.ndarray) -> np.ndarray:
        """Values, or logits, of a fold's trees for users, [users, K]; not of CLICKS."""
        return self._say(fold, self.features.users_UF[users])

    def shown_logits(self, fold: int, rows: np.ndarray) -> np.ndarray:
        """Logits [rows] of a click on what was shown, where it was; of CLICKS."""
        return self._say(fold, _inputs(self.problem, self.features, rows))[:, 0]

    def all_logits(self, fold: int, users: np.ndarray) -> np.ndarray:
        """Logits [users, positions, K] of a click on everything at every position; of CLICKS."""
        problem = self.problem
        users, place_n = np.unique(users, return_inverse=True)
        x_UF = self.features.users_UF[users]
        logit_UPA = np.empty((len(users), problem.positions, problem.outputs))
        for position, action in np.ndindex(*logit_UPA.shape[1:]):
            shown_U = np.full(len(users), action), np.full(len(users), position)
            logit_UPA[:, position, action] = self._say(fold, _beside(x_UF, *shown_U))[:, 0]
        return logit_UPA[place_n]

    def _say(self, fold: int, x_BX: np.ndarray) -> np.ndarray:
        """Values or logits of inputs by the trees that count."""
        model, stage = self.models[fold], self.trees[fold] - 1
        with _one_thread():
            found = [
                next(islice(_stages(model, some, self.problem), stage, None))
                for some in np.array_split(x_BX, -(-len(x_BX) // CHUNK) or 1)
            ]
        return np.concatenate(found)


def check_boosting(name: str, problem: Problem) -> None:
    """Whether trees can be grown for a task.

    Raises:
        ConfigError: scikit-learn is not installed, or the task shows more than trees can tell.
    """
    try:
        import sklearn.ensemble  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "config.downstream.heads: boosting needs scikit-learn: pip install '.[probes]'"
        ) from error
    if problem.kind is TaskKind.CLICKS and max(problem.outputs, problem.positions) > MOST_SHOWN:
        raise ConfigError(
            f"config.downstream.heads: boosting tells {MOST_SHOWN} things to show and positions"
            f" apart; task {name} has {problem.outputs:,} and {problem.positions:,}"
        )


def fit_boosting(
    problem: Problem, features: Features, config: DownstreamConfig, seed: int
) -> Boosted:
    """Grows trees on each fold; see `check_boosting`.

    Args:
        problem: what to fit; any kind but RETRIEVAL.
        features: what to fit it on.
        config: sizes of trees to choose from.
        seed: of scikit-learn, which samples rows for its bins where there are many.
    """
    with _one_thread():
        found = [_fit_fold(fold, problem, features, config, seed) for fold in problem.folds]
    losses, models, trees = zip(*found, strict=True)
    return Boosted(losses, models, trees, problem, features)


def _one_thread() -> AbstractContextManager[Any]:
    """Beside other work on a machine, threads wait for each other many times longer than one of
    them computes."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    return threadpool_limits(1, user_api="openmp")


def _fit_fold(
    fold: Fold, problem: Problem, features: Features, config: DownstreamConfig, seed: int
) -> tuple[float, Any, int]:
    """The least validation loss, the model that has it, and after how many of its trees."""
    x_fX, target_f = _inputs(problem, features, fold.fit), problem.target_n[fold.fit]
    x_cX, target_c = _inputs(problem, features, fold.choose), problem.target_n[fold.choose]
    grown = []
    for leaves in config.boosting_leaves:
        model = _model(problem, x_fX.shape[1], leaves, seed)
        losses: list[float] = []
        while len(losses) < TREES and len(losses) - np.argmin([*losses, np.inf]) <= PATIENCE:
            model.set_params(max_iter=len(losses) + EVERY).fit(x_fX, target_f)
            stages = islice(_stages(model, x_cX, problem), len(losses), None)
            losses += [_loss(problem, target_c, found) for found in stages]
        grown.append((min(losses), model, 1 + int(np.argmin(losses))))
    loss, model, trees = min(grown, key=lambda one: one[0])
    spread = float(target_f.var()) if problem.kind is TaskKind.REGRESSION else 1.0
    return loss / max(spread, 1e-12), model, trees


def _model(problem: Problem, width: int, leaves: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    value = problem.kind is TaskKind.REGRESSION
    make = HistGradientBoostingRegressor if value else HistGradientBoostingClassifier
    shown = [width - 2, width - 1] if problem.kind is TaskKind.CLICKS else None
    return make(
        max_leaf_nodes=leaves,
        categorical_features=shown,
        early_stopping=False,  # it would keep the trees after the best one too
        warm_start=True,
        random_state=seed,
    )


def _inputs(problem: Problem, features: Features, rows: np.ndarray) -> np.ndarray:
    """What trees see of rows, [rows, X]."""
    x_BF = features.users_UF[problem.owner_n[rows]]
    if problem.kind is not TaskKind.CLICKS:
        return x_BF
    assert problem.action_n is not None and problem.position_n is not None
    return _beside(x_BF, problem.action_n[rows], problem.position_n[rows])


def _beside(x_BF: np.ndarray, action_B: np.ndarray, position_B: np.ndarray) -> np.ndarray:
    return np.column_stack([x_BF, action_B, position_B]).astype(np.float32)


def _stages(model: Any, x_BX: np.ndarray, problem: Problem) -> Iterator[np.ndarray]:
    """After each tree the values, or the logits, [B, K]; a class not fitted has chance zero."""
    if problem.kind is TaskKind.REGRESSION:
        yield from (value_B[:, None] for value_B in model.staged_predict(x_BX))
        return
    several = problem.kind is TaskKind.MULTICLASS
    for known_BX in model.staged_predict_proba(x_BX):
        p_BK = np.zeros((len(x_BX), problem.outputs if several else 2))
        p_BK[:, model.classes_] = known_BX[:, : len(model.classes_)]
        p_BK = np.log(np.clip(p_BK, EDGE, 1.0 - EDGE))
        yield p_BK if several else p_BK[:, 1:] - p_BK[:, :1]


def _loss(problem: Problem, target_B: np.ndarray, out_BK: np.ndarray) -> float:
    if problem.kind is TaskKind.REGRESSION:
        return float(((out_BK[:, 0] - target_B) ** 2).mean())
    if problem.kind is TaskKind.MULTICLASS:
        out_BK = out_BK - np.logaddexp.reduce(out_BK, axis=1, keepdims=True)
        return float(-out_BK[np.arange(len(target_B)), target_B].mean())
    return float(np.logaddexp(0.0, np.where(target_B, -out_BK[:, 0], out_BK[:, 0])).mean())
