"""Vectors of services -> one vector per user."""

from __future__ import annotations

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors of the last axis, scaled to length one; zeros stay.

    Examples:
        >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def combine(z_NSE: np.ndarray, weight_NS: np.ndarray) -> np.ndarray:
    """One vector per user: the mean of its services' embeddings, scaled to length one.

    Args:
        z_NSE: unit vectors.
        weight_NS: in the mean; or bool, which services a user has.

    Examples:
        >>> z_NSE = np.array([[[1.0, 0.0], [0.0, 1.0]]])  # a user of two services
        >>> combine(z_NSE, np.array([[True, True]])).round(3)
        array([[0.707, 0.707]])
        >>> combine(z_NSE, np.array([[True, False]]))
        array([[1., 0.]])
    """
    return unit((z_NSE * weight_NS[:, :, None]).sum(axis=1))


def narrowed(z_NSE: np.ndarray, width: int) -> np.ndarray:
    """The first `width` dimensions of vectors, scaled to length one again; zeros stay."""
    return z_NSE if width == z_NSE.shape[-1] else unit(z_NSE[..., :width])
