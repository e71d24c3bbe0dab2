"""A model that tells training users from others, by several features of their vectors.

Of two services of each user, in the vectors of each encoder and length of history that the attacker
has:

    cosine   of the user's two vectors, which training raised
    distance logarithm of one minus it: easy and hard users are moved alike on this scale
    loss     InfoNCE of the pair among all users at one temperature, mean of both directions: what
             training lowered, and unlike the cosine it knows how crowded it is around the user
    rank     of the user's own other vector among all, as a logarithm, mean of both directions

and the number of behaviours on each service, as logarithms. Vectors have length one, so norms tell
nothing. By the vectors of an encoder that was not trained on the users the model learns who would
be near anyhow, and holds the rest for the trace of the training (Watson et al. 2022, "On the
Importance of Difficulty Calibration in Membership Inference Attacks"). The model is a logistic
regression, fitted on users whose membership is known, and tells it of those in another fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

TEMPERATURE = 0.07  # of the loss; near what encoders learn, and the attack hardly depends on it
PENALTY = 10.0  # of squared weights of the regression, in rows
NEAREST = 1e-6  # below it a distance is rounding
CHUNK = 256  # users whose cosines to all are in memory at a time

Pair = tuple[np.ndarray, np.ndarray]  # unit vectors [n, E] of the same users on two services


def features(pairs: Sequence[Pair], counts_nS: np.ndarray) -> np.ndarray:
    """What the model reads of each user, float64 [n, X].

    Args:
        pairs: of services, of every encoder and length of history.
        counts_nS: behaviours on each service, at least 1.
    """
    columns = [column_n for pair in pairs for column_n in _of_pair(*pair)]
    return np.concatenate([np.stack(columns, axis=1), np.log(counts_nS)], axis=1)


def told(features_nX: np.ndarray, member_n: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """How likely the model holds each user to be a member, as log odds [n].

    Args:
        features_nX: of n users.
        member_n: bool; of a user the model that tells it does not know it.
        folds: of the users, dealt at random; each is told by a model fitted on the others.
        seed: of the deal.
    """
    fold_n = np.random.default_rng(seed).permutation(len(member_n)) % folds
    odds_n = np.zeros(len(member_n))
    for fold in range(folds):
        known_n = fold_n != fold
        mean_X, spread_X = features_nX[known_n].mean(axis=0), features_nX[known_n].std(axis=0)
        scaled_nX = (features_nX - mean_X) / np.where(spread_X > 0.0, spread_X, 1.0)
        weights_X, bias = _regression(scaled_nX[known_n], member_n[known_n])
        odds_n[~known_n] = scaled_nX[~known_n] @ weights_X + bias
    return odds_n


def _of_pair(first_nE: np.ndarray, second_nE: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cosine, distance, loss and rank [n] each."""
    there, back = _among_all(first_nE, second_nE), _among_all(second_nE, first_nE)
    cosine_n = np.einsum("ne,ne->n", first_nE, second_nE, dtype=np.float64)
    distance_n = np.log(np.maximum(1.0 - cosine_n, NEAREST))
    return cosine_n, distance_n, (there[0] + back[0]) / 2.0, (there[1] + back[1]) / 2.0


def _among_all(queries_nE: np.ndarray, candidates_nE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss, and logarithm of the rank, of candidate i for query i, [n] each."""
    loss, rank = [], []
    candidates_En = candidates_nE.astype(np.float64).T
    for first in range(0, len(queries_nE), CHUNK):
        cosine_Bn = queries_nE[first : first + CHUNK] @ candidates_En
        rows = np.arange(len(cosine_Bn))
        own_B = cosine_Bn[rows, first + rows]
        loss.append(logsumexp(cosine_Bn / TEMPERATURE, axis=1) - own_B / TEMPERATURE)
        rank.append(np.log((cosine_Bn >= own_B[:, None]).sum(axis=1)))
    return np.concatenate(loss), np.concatenate(rank)


def _regression(scaled_nX: np.ndarray, member_n: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights [X] and bias of least logistic loss, with a penalty on the weights alone."""
    label_n = member_n.astype(np.float64)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights_X, bias = parameters[:-1], parameters[-1]
        odds_n = scaled_nX @ weights_X + bias
        value = np.logaddexp(0.0, odds_n).sum() - label_n @ odds_n
        wrong_n = expit(odds_n) - label_n
        gradient_X = scaled_nX.T @ wrong_n + PENALTY * weights_X
        total = float(value + 0.5 * PENALTY * weights_X @ weights_X)
        return total, np.append(gradient_X, wrong_n.sum())

    found = minimize(loss, np.zeros(scaled_nX.shape[1] + 1), jac=True, method="L-BFGS-B")
    return found.x[:-1], float(found.x[-1])
