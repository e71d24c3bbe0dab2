"""The learning rate that suits each size and batch, and a rule through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clue_jax.scaling.results import Result
from clue_jax.scaling.selection import FACTORS, grouped


@dataclass(frozen=True)
class BestRate:
    """Of runs that differ in their learning rate alone.

    Attributes:
        size: of the encoder.
        batch: B.
        rate: with the least loss, by a parabola through the best and its neighbours.
        at_edge: the best one that was tried has no neighbour on one side: better ones may lie
            beyond.
    """

    size: str
    width: int
    batch: int
    samples: int
    rate: float
    at_edge: bool


@dataclass(frozen=True)
class FittedRule:
    """rate = `at` (64 / D)^width_power (B / 256)^batch_power; a power is 0 where nothing varies."""

    at: float
    width_power: float
    batch_power: float


def best_rates(runs: Sequence[Result]) -> list[BestRate]:
    """The best rate wherever three or more were tried, cheapest first."""
    found = []
    for group in grouped(runs, (*FACTORS, "temperature")).values():
        by_rate = grouped(group, ("learning_rate",))
        if len(by_rate) < 3:
            continue
        rates = sorted(rate for (rate,) in by_rate)
        losses = [np.mean([run["loss"] for run in by_rate[(rate,)]]) for rate in rates]
        place, first = int(np.argmin(losses)), group[0]
        at_edge = place in (0, len(rates) - 1)
        rate = rates[place]
        if not at_edge:
            near = slice(place - 1, place + 2)
            curve, slope, _ = np.polyfit(np.log(rates[near]), losses[near], 2)
            rate = math.exp(-slope / (2.0 * curve))
        of = (first["size"], first["width"], first["batch"], first["samples"])
        found.append(BestRate(*of, rate, at_edge))
    return found


def fitted_rule(found: Sequence[BestRate]) -> FittedRule | None:
    """A rule through the best rates that are not at an edge; None: there are none."""
    inside = [best for best in found if not best.at_edge]
    if not inside:
        return None
    terms = {
        "width": np.log([64.0 / best.width for best in inside]),
        "batch": np.log([best.batch / 256.0 for best in inside]),
    }
    # What does not vary is not told apart from the height: its power is taken as 0.
    varied = [name for name, column_R in terms.items() if np.ptp(column_R) > 0]
    columns = [np.ones(len(inside)), *(terms[name] for name in varied)]
    logs = np.log([best.rate for best in inside])
    height, *found_powers = np.linalg.lstsq(np.stack(columns, axis=1), logs, rcond=None)[0]
    powers = dict.fromkeys(terms, 0.0) | dict(zip(varied, map(float, found_powers), strict=True))
    return FittedRule(math.exp(height), powers["width"], powers["batch"])
