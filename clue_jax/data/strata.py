"""Whom a step draws: of each dataset its share, and nobody twice in an epoch.

A run over several datasets is a stratified sample: every global batch has its part of each of them
(a stratum), in parts that are exact in the long run. What is drawn at a step is a function of the
step, the sizes and the seeds, so that nothing has to be kept.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from clue_jax.data.keyed import EPOCH, hash64, permute
from clue_jax.errors import ConfigError


class Stratum(NamedTuple):
    """The users of a dataset who may be drawn."""

    name: str  # of the dataset
    size: int
    seed: int  # of the order in which they are drawn


class Strata:
    """The order in which the users of every stratum are drawn.

    Before step `k` the first stratum has given its share of `k * batch` users, rounded down, the
    second its share of what then is left, and so on; so what a stratum gave is off its weight by
    less than one user for each stratum, however many steps are counted. Each epoch of a stratum is
    a permutation of its own, of which the users that fill no whole step are left out: others at
    each epoch.

    Args:
        strata: one or more.
        batch: B, users of a step.
        weights: of the strata in a batch, above 0; none: their sizes.

    Raises:
        ConfigError: a step needs more users of a stratum than it has.

    Attributes:
        shares: of the strata in a batch; they sum to one.
        steps_per_epoch: of each stratum.
    """

    def __init__(self, strata: Sequence[Stratum], batch: int, weights: Sequence[float] = ()):
        self.strata, self.batch = tuple(strata), batch
        for stratum in strata:
            if not stratum.size:
                raise ConfigError(
                    f"--data={stratum.name}: no training user has a positive pair"
                    " (config.sampling says which count)"
                )
        exact = [Fraction(weight) for weight in weights or (stratum.size for stratum in strata)]
        self.shares = tuple(weight / sum(exact) for weight in exact)
        # Of what the strata before it leave, the part that each takes.
        self._rates = [weight / sum(exact[d:]) for d, weight in enumerate(exact)]
        for d, most in enumerate(self.most()):
            if most > strata[d].size:
                raise ConfigError(self._too_many(d))
        self.steps_per_epoch = tuple(map(self._steps_within, range(len(strata))))

    def most(self, steps: int = 1) -> list[int]:
        """Users of each stratum in that many successive steps, at most."""
        return self._most_of(steps * self.batch)

    def _most_of(self, users: int) -> list[int]:
        found = []
        for rate in self._rates:
            found.append(math.ceil(users * rate))
            users = math.ceil(users * (1 - rate))
        return found

    def before(self, step: int) -> list[int]:
        """Users of each stratum in all steps before this one."""
        found, left = [], step * self.batch
        for rate in self._rates:
            found.append(math.floor(left * rate))
            left -= found[-1]
        return found

    def draw(self, step: int) -> list[np.ndarray]:
        """The users of a step: positions [n] in each stratum, B over all strata."""
        begin, end, drawn = self.before(step), self.before(step + 1), []
        for d, (stratum, per_epoch) in enumerate(
            zip(self.strata, self.steps_per_epoch, strict=True)
        ):
            epoch = step // per_epoch
            first = self.before(epoch * per_epoch)[d]
            places = np.arange(begin[d] - first, end[d] - first)
            key = int(hash64(stratum.seed, EPOCH, epoch))
            drawn.append(permute(places, stratum.size, key))
        return drawn

    def epochs(self, steps: int) -> list[float]:
        """How often the first steps have gone through each stratum."""
        return [steps / per_epoch for per_epoch in self.steps_per_epoch]

    def _steps_within(self, d: int) -> int:
        """The most successive steps that never need more users of a stratum than it has."""
        size = self.strata[d].size
        beyond = math.floor(size / (self.batch * self.shares[d])) + 2
        return bisect.bisect_right(range(beyond), size, key=lambda steps: self.most(steps)[d]) - 1

    def _too_many(self, d: int) -> str:
        def fits(batch: int) -> bool:
            sizes = (stratum.size for stratum in self.strata)
            return all(most <= size for most, size in zip(self._most_of(batch), sizes, strict=True))

        stratum = self.strata[d]
        return (
            f"config.train.batch_users: {self.batch} users in a batch, {self.most()[d]} of them of"
            f" {stratum.name}, but only {stratum.size} training users there have a positive pair;"
            f" at most {next(filter(fits, range(self.batch, -1, -1)))} is possible here"
            + " with these shares (config.sampling.dataset_weights)"
            * (len(self.strata) > 1)
        )
