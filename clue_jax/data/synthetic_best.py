"""The best that anybody could score on the synthetic labels, from the probabilities behind them.

Scores are expectations over the labels given the interests (Bayes scores), not those of the labels
that happened to be drawn: on few users a score may lie a little above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clue_jax.data.synthetic_labels import SPEND_NOISE

AT = 10  # of the ranking metrics


def best_scores(parts: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """What best.json says.

    Args:
        parts: pieces of columns over users, to be joined: the probabilities `subscribes` and
            `segment` [n], `favourite` [n, categories], `next_item` [n, BEST_ITEMS] of the most
            probable items in order, the mean `spend` [n], and of the visits their expected clicks
            under the logging policy (`logged`) and the stated one (`stated`) [n].
    """
    whole = {name: np.concatenate(list(pieces)) for name, pieces in parts.items()}
    logged, stated = float(whole["logged"].sum()), float(whole["stated"].sum())
    visits = max(1.0, float(whole["visits"].sum()))
    return {
        "what": "best reachable scores: expectations given the interests that caused the labels",
        "tasks": {
            "subscribes": _binary(whole["subscribes"]),
            "segment": _binary(whole["segment"]),
            "favourite": _classes(whole["favourite"]),
            "spend": _regression(whole["spend"]),
            "next_item": _items(whole["next_item"]),
        },
        "policies": {
            "logging": {"clicks_per_visit": logged / visits},
            "stated": {
                "clicks_per_visit": stated / visits,
                "true_lift": stated / logged - 1.0 if logged else 0.0,
            },
        },
    }


def expected_auc(p_N: np.ndarray) -> float:
    """AUC of the probabilities themselves, each user being positive with theirs.

    A pair of users counts with the probability that the first is positive and the second is not.
    One user makes no pair: that is chance, 0.5.
    """
    if len(p_N) < 2:
        return 0.5
    order = np.argsort(p_N)
    p = p_N[order]
    _, starts = np.unique(p, return_index=True)
    positive = np.add.reduceat(p, starts)
    negative = np.add.reduceat(1.0 - p, starts)
    below = np.cumsum(negative) - negative
    # A user is no pair with itself.
    own = np.add.reduceat(p * (1.0 - p), starts)
    right = positive @ below + 0.5 * (positive @ negative - own.sum())
    return float(right / (p.sum() * (1.0 - p).sum() - own.sum()))


def _entropy(p_X: np.ndarray) -> np.ndarray:
    return -p_X * np.log(np.maximum(p_X, np.finfo(np.float64).tiny))


def _normalised(loss: float, p_C: np.ndarray) -> float:
    """A log loss over that of knowing the classes' shares alone; 0 where there is one class."""
    entropy = float(_entropy(p_C).sum())
    return loss / entropy if entropy > 0.0 else 0.0


def _binary(p_N: np.ndarray) -> dict[str, Any]:
    loss = float((_entropy(p_N) + _entropy(1.0 - p_N)).mean())
    share = float(p_N.mean())
    return {
        "n": len(p_N),
        "auc": expected_auc(p_N),
        "log_loss": loss,
        "normalised_entropy": _normalised(loss, np.array([share, 1.0 - share])),
        "accuracy": float(np.maximum(p_N, 1.0 - p_N).mean()),
    }


def _classes(p_NC: np.ndarray) -> dict[str, Any]:
    loss = float(_entropy(p_NC).sum(axis=1).mean())
    return {
        "n": len(p_NC),
        "accuracy": float(p_NC.max(axis=1).mean()),
        "log_loss": loss,
        "normalised_entropy": _normalised(loss, p_NC.mean(axis=0)),
    }


def _regression(mean_N: np.ndarray) -> dict[str, Any]:
    spread = float(mean_N.var())
    return {
        "n": len(mean_N),
        "r2": spread / (spread + SPEND_NOISE**2),
        "rmse": SPEND_NOISE,
        "mae": SPEND_NOISE * float(np.sqrt(2.0 / np.pi)),
    }


def _items(chances_NI: np.ndarray) -> dict[str, Any]:
    if not len(chances_NI):
        return {"n": 0}
    first = chances_NI[:, :AT]
    gains = 1.0 / np.log2(2.0 + np.arange(first.shape[1]))
    return {
        "n": len(first),
        f"hit_rate_at_{AT}": float(first.sum(axis=1).mean()),
        f"ndcg_at_{AT}": float((first @ gains).mean()),
    }
