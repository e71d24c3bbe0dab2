"""Heads on frozen features, trained in JAX: linear and MLP, one function for every kind of task.

A head maps standardised features to K outputs: a logit, class logits, a value, a logit for each
advertisement, or, for retrieval, a vector whose products with the vectors of the items are logits
beside their popularity and how often the user had them; there it starts from the user's own vector.
Weight decay, width and the step to stop at are those of the least loss on users that are neither
fitted on nor predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from clue_jax.config import DownstreamConfig, TaskKind
from clue_jax.evaluation.folds import Fold, Folds
from clue_jax.evaluation.head_training import EVERY, Params, Spec, apply_head, train_heads

MOST_CHOOSING = 4_096  # validation rows of a fold that are looked at
CHUNK = 2_048  # rows predicted at a time


@dataclass(frozen=True)
class Own:
    """Items that each of U users had, those most often first, and how often."""

    entry_UH: np.ndarray  # of the catalogue; C where a user had fewer than H
    count_UH: np.ndarray


@dataclass(frozen=True)
class Problem:
    """What heads are fitted to: n rows of users of whom U have features.

    Attributes:
        kind: of the task; AUDIENCE is fitted as BINARY.
        owner_n: the user of each row.
        target_n: 0 or 1, a class, an entry of the catalogue, or a value.
        folds: of the rows.
        outputs: K: 1, the classes, or what can be shown (CLICKS).
        prior_C: log of the popularity of each item, of RETRIEVAL.
        own: items that each user had, of RETRIEVAL.
        action_n: what was shown, of CLICKS.
        position_n: where, of CLICKS.
    """

    kind: TaskKind
    owner_n: np.ndarray
    target_n: np.ndarray
    folds: Folds
    outputs: int = 1
    prior_C: np.ndarray | None = None
    own: Own | None = None
    action_n: np.ndarray | None = None
    position_n: np.ndarray | None = None

    @property
    def positions(self) -> int:
        """How many there are, of CLICKS; else 1."""
        return 1 if self.position_n is None else int(self.position_n.max()) + 1

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What a head needs of each row."""
        value = np.float32 if self.kind is TaskKind.REGRESSION else np.int32
        nothing = np.zeros(len(self.owner_n), np.int32)
        return {
            "owner": self.owner_n.astype(np.int32),
            "target": self.target_n.astype(value),
            "action": nothing if self.action_n is None else self.action_n.astype(np.int32),
            "position": nothing if self.position_n is None else self.position_n.astype(np.int32),
        }


@dataclass(frozen=True)
class Features:
    """What a model knows: vectors of users, and for retrieval of items."""

    users_UF: np.ndarray
    items_CG: np.ndarray | None = None


class Trained(Protocol):
    """What was trained on each fold: a head, or trees."""

    @property
    def losses(self) -> tuple[float, ...]:
        """Validation loss of each fold."""

    def outputs(self, fold: int, users: np.ndarray) -> np.ndarray:
        """Of a fold for users, float64 [users, K], in the units of the target; not of CLICKS."""

    def shown_logits(self, fold: int, rows: np.ndarray) -> np.ndarray:
        """Logits [rows] of a click on what was shown, where it was; of CLICKS."""

    def all_logits(self, fold: int, users: np.ndarray) -> np.ndarray:
        """Logits [users, positions, K] of a click on everything at every position; of CLICKS."""


@dataclass(frozen=True)
class Fitted:
    """The chosen head of each fold, its validation loss, and the features it is of."""

    losses: tuple[float, ...]
    specs: tuple[Spec, ...]
    params: tuple[Params, ...]
    problem: Problem
    features: tuple[Features, ...]

    def outputs(self, fold: int, users: np.ndarray) -> np.ndarray:
        """Of a fold's head; see `Trained`, also for what follows."""
        spec, params, features = self.specs[fold], self.params[fold], self.features[fold]
        arrays = arrays_of(self.problem, features)
        parts = []
        for first in range(0, len(users), CHUNK):
            some = users[first : first + CHUNK]
            x_BF = jnp.asarray(features.users_UF[some])
            out_BK = apply_head(spec, params, x_BF, arrays, jnp.asarray(some))
            parts.append(np.asarray(out_BK, np.float64))
        found = np.concatenate(parts)
        shift, scale = float(params["shift"]), float(params["scale"])
        return found * scale + shift if spec.kind is TaskKind.REGRESSION else found

    def shown_logits(self, fold: int, rows: np.ndarray) -> np.ndarray:
        """The user's logit of what was shown and the position's bias, added up."""
        problem = self.problem
        assert problem.action_n is not None and problem.position_n is not None
        out_BK = self.outputs(fold, problem.owner_n[rows])
        logit_B = out_BK[np.arange(len(rows)), problem.action_n[rows]]
        return logit_B + self._position_bias(fold)[problem.position_n[rows]]

    def all_logits(self, fold: int, users: np.ndarray) -> np.ndarray:
        """The same for everything at every position."""
        return self.outputs(fold, users)[:, None, :] + self._position_bias(fold)[None, :, None]

    def _position_bias(self, fold: int) -> np.ndarray:
        return np.asarray(self.params[fold]["position"], np.float64)


def fit(
    head: str, problem: Problem, features: Features, config: DownstreamConfig, seed: int
) -> Fitted:
    """Fits a head on each fold with every setting, and keeps the best setting of each fold.

    Args:
        head: linear or mlp.
        problem: what to fit.
        features: what to fit it on.
        config: settings to choose from.
        seed: of batches and parameters.
    """
    widths = config.mlp_widths if head == "mlp" else (0,)
    best: list[tuple[float, Spec, Params]] = []
    for width in widths:
        spec = _spec(problem, width, config.steps)
        for fold, found in enumerate(_fit_spec(spec, problem, features, config, seed)):
            if len(best) <= fold:
                best.append(found)
            elif found[0] < best[fold][0]:
                best[fold] = found
    losses, specs, params = zip(*best, strict=True)
    return Fitted(losses, specs, params, problem, (features,) * len(losses))


def _spec(problem: Problem, width: int, steps: int) -> Spec:
    steps = -(-steps // EVERY) * EVERY
    return Spec(problem.kind, problem.outputs, problem.positions, width, steps)


def arrays_of(problem: Problem, features: Features) -> dict[str, jax.Array]:
    """What a head is given beside features; of RETRIEVAL alone it looks at any of it."""
    if problem.kind is not TaskKind.RETRIEVAL:
        return {"items_CG": jnp.zeros((1, 1))}
    assert features.items_CG is not None and problem.prior_C is not None and problem.own is not None
    return {
        "items_CG": jnp.asarray(features.items_CG),
        "prior_C": jnp.asarray(problem.prior_C, jnp.float32),
        "own_UH": jnp.asarray(problem.own.entry_UH, jnp.int32),
        "own_log_UH": jnp.asarray(np.log1p(problem.own.count_UH), jnp.float32),
    }


def _fit_spec(
    spec: Spec, problem: Problem, features: Features, config: DownstreamConfig, seed: int
) -> list[tuple[float, Spec, Params]]:
    """The best weight decay of each fold."""
    rows_n = {name: jnp.asarray(values) for name, values in problem.columns.items()}
    folds = list(problem.folds)
    batch = min(config.batch_rows, *(len(fold.fit) for fold in folds))
    choosing = min(MOST_CHOOSING, max(len(fold.choose) for fold in folds))
    jobs = [
        _job(fold, number, spec, problem, features, batch, choosing, seed)
        | {"decay": np.float32(decay)}
        for number, fold in enumerate(folds)
        for decay in config.weight_decays
    ]
    stacked = {name: jnp.asarray(np.stack([job[name] for job in jobs])) for name in jobs[0]}
    # A catalogue's logits of all jobs at once would take too much memory.
    together = 1 if spec.kind is TaskKind.RETRIEVAL else len(jobs)
    arrays = arrays_of(problem, features)
    loss_J, params_J = train_heads(
        spec, jnp.asarray(features.users_UF), rows_n, arrays, stacked, together
    )
    losses = np.asarray(loss_J, np.float64).reshape(len(folds), -1)
    params_J = jax.tree.map(np.asarray, params_J)
    chosen = losses.argmin(axis=1)
    each = losses.shape[1]
    return [
        (
            float(losses[fold, pick]),
            spec,
            {name: values[fold * each + pick] for name, values in params_J.items()},
        )
        for fold, pick in enumerate(chosen.tolist())
    ]


def _job(
    fold: Fold,
    number: int,
    spec: Spec,
    problem: Problem,
    features: Features,
    batch: int,
    choosing: int,
    seed: int,
) -> dict[str, Any]:
    """Batches, validation rows and the scale of features and targets of one fold."""
    rng = np.random.default_rng([seed, number])
    passes = -(-spec.steps * batch // len(fold.fit))
    order = np.concatenate([rng.permutation(fold.fit) for _ in range(passes)])
    choose = fold.choose[:choosing]
    x_fF = features.users_UF[problem.owner_n[fold.fit]].astype(np.float64)
    spread_F = x_fF.std(axis=0)
    target = problem.target_n[fold.fit].astype(np.float64)
    value = spec.kind is TaskKind.REGRESSION
    return {
        "rows_TB": order[: spec.steps * batch].reshape(-1, EVERY, batch).astype(np.int32),
        "choose_V": np.resize(choose, choosing).astype(np.int32),
        "weight_V": (np.arange(choosing) < len(choose)).astype(np.float32),
        "mean_F": x_fF.mean(axis=0).astype(np.float32),
        "spread_F": np.where(spread_F > 1e-6, spread_F, 1.0).astype(np.float32),
        "shift": np.float32(target.mean() if value else 0.0),
        "scale": np.float32(max(target.std(), 1e-12) if value else 1.0),
        "key": np.array([seed, number], np.uint32),
    }
