"""The losses and their gradients in float64 NumPy, user by user and without any trick."""

import numpy as np

from clue_jax.config import LossForm


def reference(form, x_BE, y_BE, valid_B, scale, bias=0.0, keys_KB=()):
    """Sums of loss and hits over users, and gradients of the loss by x, y, scale and bias."""
    x, y = x_BE.astype(np.float64), y_BE.astype(np.float64)
    count = len(x)
    similarity = x @ y.T
    logits = scale * similarity + bias
    negative = np.zeros((count, count), bool)
    for i in range(count):
        for j in range(count):
            distinct = i != j and all(key[i] != key[j] for key in keys_KB)
            negative[i, j] = distinct and valid_B[i] and valid_B[j]
    slopes = np.zeros((count, count))  # d loss / d logit
    loss = hits = 0.0
    for i in np.flatnonzero(valid_B):
        for here, row, others in ((i, logits[i], negative[i]), (i, logits[:, i], negative[:, i])):
            hits += (row[here] > row[others].max(initial=-np.inf)) / 2
        if form is LossForm.SIGMOID:
            loss += np.logaddexp(0, -logits[i, i]) + np.logaddexp(0, logits[i, negative[i]]).sum()
            slopes[i, i] -= _sigmoid(-logits[i, i])
            slopes[i, negative[i]] += _sigmoid(logits[i, negative[i]])
            continue
        for row, others, slope in (
            (logits[i], negative[i], slopes[i]),
            (logits[:, i], negative[:, i], slopes[:, i]),
        ):
            taken = others.copy()
            taken[i] = True
            total = np.logaddexp.reduce(row[taken])
            loss += (total - row[i]) / 2
            slope[taken] += np.exp(row[taken] - total) / 2
            slope[i] -= 0.5
    gradients = (
        scale * slopes @ y,
        scale * slopes.T @ x,
        (slopes * similarity).sum(),
        slopes.sum(),
    )
    return (loss, hits, float(valid_B.sum())), gradients


def _sigmoid(value):
    return 1 / (1 + np.exp(-value))
