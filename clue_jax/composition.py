"""Vectors of services -> one vector per user."""

from __future__ import annotations

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors of the last axis, scaled to length one; zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def combine(z_NSE: np.ndarray, weight_NS: np.ndarray) -> np.ndarray:
    """One vector per user: the mean of its services' embeddings, scaled to length one.

    Args:
        z_NSE: unit vectors.
        weight_NS: in the mean; or bool, which services a user has.
    """
    return unit((z_NSE * weight_NS[:, :, None]).sum(axis=1))


def narrowed(z_NSE: np.ndarray, width: int) -> np.ndarray:
    """The first `width` dimensions of vectors, scaled to length one again; zeros stay."""
    return z_NSE if width == z_NSE.shape[-1] else unit(z_NSE[..., :width])
