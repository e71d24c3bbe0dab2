"""What a policy would have earned, from a log of another one's impressions.

The policy of a model shows each user what the model says they click on most, apart from a share
that is dealt evenly. With r the click, p the propensity of what was shown, w = policy(shown) / p
and q the model's own chance of a click, its clicks an impression are estimated by

    IPS    mean(w r)                                       unbiased, of great variance
    SNIPS  sum(w r) / sum(w)                               less variance, a little bias: what a
                                                           replay of the log counts on average
    DR     mean(sum_a policy(a) q(a) + w (r - q(shown)))   doubly robust

(Dudik et al. 2011, "Doubly Robust Policy Evaluation and Learning"; Swaminathan and Joachims 2015,
"The Self-Normalized Estimator for Counterfactual Learning"). A replay (Li et al. 2011, "Unbiased
Offline Evaluation of Contextual-bandit-based News Article Recommendation Algorithms") keeps an
impression with a chance in proportion to w and takes the mean click of those kept. A lift is such
an estimate over the clicks of the log, minus one. q is predicted by heads that did not see the
user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clue_jax.config import EvaluateConfig
from clue_jax.errors import DataError
from clue_jax.evaluation.bootstrap import Statistic, resample
from clue_jax.evaluation.heads import Trained
from clue_jax.evaluation.labels import Labels, read_truth
from clue_jax.evaluation.people import People
from clue_jax.evaluation.predictions import Prediction, sigmoid
from clue_jax.evaluation.results import MODEL, PREFIX, Result, exact_rows, rows_of
from clue_jax.evaluation.targets import TaskInputs

LIFTS = ("ips_lift", "snips_lift", "dr_lift")
STATED = "stated policy"


@dataclass(frozen=True)
class Truth:
    """What the synthetic world knows of n impressions and A things to show."""

    clicks_nA: np.ndarray  # chance of a click, mean over positions
    logged_nA: np.ndarray  # probabilities of the logging policy
    stated_nA: np.ndarray  # probabilities of the stated policy

    def lift(self, policy_nA: np.ndarray) -> float:
        """Of a policy over the logging policy, for the same visits."""
        earned = float((policy_nA * self.clicks_nA).sum())
        return earned / float((self.logged_nA * self.clicks_nA).sum()) - 1.0


def policy_results(
    config: EvaluateConfig, people: People, inputs: TaskInputs, found: Mapping[str, Prediction]
) -> list[Result]:
    """Estimated lifts of the policy of each model, with intervals over users, and the true ones.

    Raises:
        DataError: a table of true clicks that does not fit; or a log without a click.
    """
    name = f"{PREFIX}{inputs.task.name}, lift of the policy"
    truth = truth_of(inputs, people) if inputs.task.truth else None
    chances = {model: _chances(inputs, one.fitted) for model, one in found.items() if one.fitted}
    policies = {
        m: greedy(q.mean(axis=1), config.downstream.exploration) for m, q in chances.items()
    }
    if truth is not None and MODEL in chances:
        policies[STATED], chances[STATED] = truth.stated_nA, chances[MODEL]
    owners, owner_n = np.unique(inputs.labels.place_n, return_inverse=True)
    results: list[Result] = []
    for model, policy_nA in policies.items():
        sums_UX = _per_user(inputs, policy_nA, chances[model], owner_n, len(owners))
        sample = resample(
            _lift_statistic(sums_UX), len(owners), config.downstream.bootstrap, config.seed
        )
        seed = config.seed
        if model.startswith(MODEL):
            seed = int(people.export.manifest["train_seed"])
        results += rows_of(name, model, LIFTS, sample, len(owners), seed)
        known = {"effective_share": _effective_share(inputs, policy_nA)}
        if truth is not None:
            known["true_lift"] = truth.lift(policy_nA)
        results += exact_rows(name, model, known, len(owners), seed)
    return results


def greedy(chance_nA: np.ndarray, exploration: float) -> np.ndarray:
    """Shows the greatest chance, ties evenly, apart from a share that is dealt evenly, [n, A]."""
    top_nA = chance_nA == chance_nA.max(axis=1, keepdims=True)
    share_nA = top_nA / top_nA.sum(axis=1, keepdims=True)
    return (1.0 - exploration) * share_nA + exploration / chance_nA.shape[1]


def lifts(sums_RX: np.ndarray) -> np.ndarray:
    """`LIFTS` [R, 3] from sums of the columns of `_per_user`; NaN where the log has no click."""
    rows_R, clicks_R, weighted_R, weights_R, robust_R = sums_RX.T
    with np.errstate(invalid="ignore", divide="ignore"):
        values_RX = np.stack(
            [weighted_R / rows_R, weighted_R / weights_R, robust_R / rows_R], axis=1
        )
        lift_RX = values_RX / (clicks_R / rows_R)[:, None] - 1.0
    return np.where((clicks_R > 0.0)[:, None] & (weights_R > 0.0)[:, None], lift_RX, np.nan)


def _lift_statistic(sums_UX: np.ndarray) -> Statistic:
    return lambda weights_RU: lifts(weights_RU @ sums_UX)


def _chances(inputs: TaskInputs, fitted: tuple[Trained, ...]) -> np.ndarray:
    """Chance of a click on everything at every position, [n, positions, A], fold by fold."""
    problem = inputs.problem
    chance_nPA = np.empty((len(problem.target_n), problem.positions, problem.outputs))
    for number, fold in enumerate(problem.folds):
        logit_BPA = fitted[number].all_logits(number, problem.owner_n[fold.predict])
        chance_nPA[fold.predict] = sigmoid(logit_BPA)
    return chance_nPA


def _weights(inputs: TaskInputs, policy_nA: np.ndarray) -> np.ndarray:
    assert inputs.problem.action_n is not None
    shown_n = policy_nA[np.arange(len(policy_nA)), inputs.problem.action_n]
    return shown_n / inputs.labels.numbers(inputs.task.propensity)


def _effective_share(inputs: TaskInputs, policy_nA: np.ndarray) -> float:
    """Of the impressions, how many even ones the weighted ones are worth (Kish)."""
    weight_n = _weights(inputs, policy_nA)
    return float(weight_n.sum() ** 2 / (len(weight_n) * (weight_n**2).sum()))


def _per_user(
    inputs: TaskInputs,
    policy_nA: np.ndarray,
    chance_nPA: np.ndarray,
    owner_n: np.ndarray,
    users: int,
) -> np.ndarray:
    """Sums over each user's impressions of 1, r, w r, w and the doubly robust term, [U, 5]."""
    problem = inputs.problem
    assert problem.action_n is not None and problem.position_n is not None
    rows = np.arange(len(policy_nA))
    click_n, weight_n = problem.target_n.astype(np.float64), _weights(inputs, policy_nA)
    here_nA = chance_nPA[rows, problem.position_n]
    expected_n = (policy_nA * here_nA).sum(axis=1)
    robust_n = expected_n + weight_n * (click_n - here_nA[rows, problem.action_n])
    columns = (np.ones(len(rows)), click_n, weight_n * click_n, weight_n, robust_n)
    return np.stack([np.bincount(owner_n, column, users) for column in columns], axis=1)


def truth_of(inputs: TaskInputs, people: People) -> Truth:
    """What the task's table of truth says of its impressions.

    Raises:
        DataError: a table that is not there or does not fit.
    """
    task = replace(inputs.task, labels=inputs.task.truth)
    truth: Labels = read_truth(task, people, ("clicks", "logged", "stated"))
    place = np.full(len(people.held), -1)
    place[truth.place_n] = np.arange(len(truth))
    row_n = place[inputs.labels.place_n]
    if (row_n < 0).any():
        raise DataError(
            f"task {task.name}: {task.truth!r} lacks {int((row_n < 0).sum()):,} of the users of"
            " the impressions"
        )
    width = inputs.problem.outputs
    return Truth(*(truth.vectors(name, width)[row_n] for name in ("clicks", "logged", "stated")))
