"""Sums over embeddings that add up from part to part, and the statistics that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Of some rows of the column `embedding`, each [E] float64.

    Attributes:
        rows: how many.
        sum_E: of each dimension.
        squares_E: sum of its squares.
        least_E: its least value; infinity where there are no rows.
        greatest_E: its greatest value; minus infinity where there are no rows.
    """

    rows: int
    sum_E: np.ndarray
    squares_E: np.ndarray
    least_E: np.ndarray
    greatest_E: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """Lists of numbers, which come back exactly."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Moments:
        """The reverse of `as_json`."""
        arrays = {name: np.array(value) for name, value in found.items() if name != "rows"}
        return cls(rows=found["rows"], **arrays)


def moments_of(z_NE: np.ndarray) -> Moments:
    """Of the rows of a matrix."""
    z_NE = z_NE.astype(np.float64)
    return Moments(
        len(z_NE),
        z_NE.sum(axis=0),
        np.square(z_NE).sum(axis=0),
        z_NE.min(axis=0, initial=np.inf),
        z_NE.max(axis=0, initial=-np.inf),
    )


def statistics_of(parts: Sequence[Moments]) -> dict[str, list[float]]:
    """Mean, standard deviation, least and greatest value of each dimension; of no rows, nothing."""
    rows = sum(part.rows for part in parts)
    if not rows:
        return {}
    mean_E = np.sum([part.sum_E for part in parts], axis=0) / rows
    square_E = np.sum([part.squares_E for part in parts], axis=0) / rows
    found = {
        "mean": mean_E,
        "std": np.sqrt(np.maximum(square_E - mean_E**2, 0.0)),
        "min": np.min([part.least_E for part in parts], axis=0),
        "max": np.max([part.greatest_E for part in parts], axis=0),
    }
    return {name: values.tolist() for name, values in found.items()}
