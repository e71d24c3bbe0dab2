"""The views of a user, and which of them are positives of each other.

A batch gives each user `V` views. The first `S` views are its history in each service; with
`within_service_weight` above zero, `2 S` more are two disjoint parts of each history.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import combinations
from typing import NamedTuple

from clue_jax.config import SamplingConfig
from clue_jax.errors import ConfigError


class ViewPair(NamedTuple):
    """Views `first` and `second` of one user are a positive pair with this weight in the loss."""

    first: int
    second: int
    weight: float


def num_views(num_services: int, config: SamplingConfig) -> int:
    """V: one view per service, and two parts of each when within-service pairs count."""
    return num_services * (3 if config.within_service_weight > 0 else 1)


def view_pairs(
    services: Sequence[str], config: SamplingConfig, found: Container[tuple[int, int]] | None = None
) -> tuple[ViewPair, ...]:
    """The positive pairs of a batch; weights sum to one.

    All pairs of services share weight 1, equally but for `pair_weights`; all pairs of parts share
    `within_service_weight` equally (CLUE's cross-service pairs; parts of one history let
    single-service users take part).

    Args:
        services: S names.
        config: which pairs count, and how much.
        found: the pairs of views that some user has, since one that nobody has would take its
            weight from the others; None: all.

    Raises:
        ConfigError: no pair counts, or a service is named that the dataset lacks.
    """
    count = len(services)
    cross, within = _service_weights(services, config), config.within_service_weight
    takes_part = set(range(count) if not config.services else _positions(services, config))
    cross = {pair: weight for pair, weight in cross.items() if takes_part.issuperset(pair)}
    parts = [(count + 2 * s, count + 2 * s + 1) for s in sorted(takes_part) if within > 0]
    if found is not None:
        cross = {pair: weight for pair, weight in cross.items() if pair in found}
        parts = [pair for pair in parts if pair in found]
    total = (1.0 if cross else 0.0) + (within if parts else 0.0)
    if total == 0.0:
        raise ConfigError(
            "config.sampling.within_service_weight: must be above 0 for a single service, or with"
            " config.sampling.pair_weights of 0 alone: nothing else can be paired"
        )
    shared = sum(cross.values())
    pairs = [ViewPair(a, b, weight / shared / total) for (a, b), weight in cross.items()]
    pairs += [ViewPair(a, b, within / len(parts) / total) for a, b in parts]
    return tuple(pairs)


def _positions(services: Sequence[str], config: SamplingConfig) -> list[int]:
    for name in config.services:
        _refuse_unknown("services", name, services)
    return [services.index(name) for name in config.services]


def _refuse_unknown(key: str, name: str, services: Sequence[str]) -> None:
    if name not in services:
        raise ConfigError(
            f"config.sampling.{key}: {name!r} is no service of this dataset; it has"
            f" {', '.join(services)}"
        )


def _service_weights(
    services: Sequence[str], config: SamplingConfig
) -> dict[tuple[int, int], float]:
    """Relative weight of each pair of services that counts."""
    weights = dict.fromkeys(combinations(range(len(services)), 2), 1.0)
    for number, named in enumerate(config.pair_weights):
        for key in ("first", "second"):
            _refuse_unknown(f"pair_weights[{number}].{key}", getattr(named, key), services)
        a, b = sorted((services.index(named.first), services.index(named.second)))
        weights[a, b] = named.weight
    return {pair: weight for pair, weight in weights.items() if weight > 0}
