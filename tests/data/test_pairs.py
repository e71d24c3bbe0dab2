"""Which views are positives of each other, and how much each pair counts."""

import dataclasses
from itertools import combinations

import pytest

from clue_jax.config import PairWeight, SamplingConfig
from clue_jax.data.pairs import num_views, view_pairs
from clue_jax.errors import ConfigError

WITHIN = SamplingConfig(within_service_weight=0.5)
NAMES = ("search", "shop", "news", "books")


def weights(pairs):
    return {(pair.first, pair.second): pytest.approx(pair.weight) for pair in pairs}


@pytest.mark.parametrize("services", [1, 2, 4])
def test_weights_of_pairs_sum_to_one(services):
    pairs = view_pairs(NAMES[:services], WITHIN)
    assert sum(pair.weight for pair in pairs) == pytest.approx(1.0)
    assert {v for pair in pairs for v in pair[:2]} <= set(range(num_views(services, WITHIN)))
    cross = sum(pair.weight for pair in pairs if pair.first < services)
    assert cross == pytest.approx(0.0 if services == 1 else 1 / 1.5)


@pytest.mark.parametrize("services", [2, 3, 4])
def test_every_two_services_are_a_pair_of_equal_weight(services):
    pairs = view_pairs(NAMES[:services], SamplingConfig())
    every = list(combinations(range(services), 2))
    assert weights(pairs) == dict.fromkeys(every, 1 / len(every))
    parts = {(services + 2 * s, services + 2 * s + 1): 1 / services / 3 for s in range(services)}
    both = dict.fromkeys(every, 2 / 3 / len(every)) | parts
    assert weights(view_pairs(NAMES[:services], WITHIN)) == both


def test_named_pairs_count_as_told_beside_the_others():
    named = (PairWeight("news", "search", 3.0), PairWeight("shop", "news", 0.0))
    pairs = view_pairs(NAMES[:3], SamplingConfig(pair_weights=named))
    assert weights(pairs) == {(0, 1): 0.25, (0, 2): 0.75}  # search+shop, search+news
    with_parts = dataclasses.replace(WITHIN, pair_weights=named)
    cross = [pair for pair in view_pairs(NAMES[:3], with_parts) if pair.first < 3]
    assert weights(cross) == {(0, 1): 1 / 6, (0, 2): 1 / 2}


def test_pairs_that_nobody_has_give_their_weight_to_the_others():
    """Of services among services, and of parts among parts."""
    having = {(0, 1), (1, 2), (3, 4)}
    assert weights(view_pairs(NAMES[:3], SamplingConfig(), having)) == {(0, 1): 0.5, (1, 2): 0.5}
    both = {(0, 1): 1 / 3, (1, 2): 1 / 3, (3, 4): 1 / 3}
    assert weights(view_pairs(NAMES[:3], WITHIN, having)) == both
    assert weights(view_pairs(NAMES[:3], WITHIN, {(3, 4)})) == {(3, 4): 1.0}
    assert weights(view_pairs(NAMES[:3], WITHIN, {(0, 2)})) == {(0, 2): 1.0}
    every = {pair[:2] for pair in view_pairs(NAMES[:3], WITHIN)}
    assert view_pairs(NAMES[:3], WITHIN, every) == view_pairs(NAMES[:3], WITHIN)


def test_without_any_pair_it_says_what_to_set():
    for services, named in ((1, ()), (2, (PairWeight("shop", "search", 0.0),))):
        with pytest.raises(ConfigError, match="within_service_weight: must be above 0"):
            view_pairs(NAMES[:services], SamplingConfig(pair_weights=named))


def test_a_weight_for_no_service_names_those_there_are():
    config = SamplingConfig(pair_weights=(PairWeight("shop", "search"), PairWeight("shop", "nws")))
    problem = r"pair_weights\[1\]\.second: 'nws' is no service .* it has search, shop, news$"
    with pytest.raises(ConfigError, match=problem):
        view_pairs(NAMES[:3], config)


def test_only_named_services_are_paired():
    config = dataclasses.replace(WITHIN, services=("news", "search"))
    expected = {(0, 2): 1 / 1.5, (3, 4): 0.25 / 1.5, (7, 8): 0.25 / 1.5}
    assert weights(view_pairs(NAMES[:3], config)) == expected
    alone = dataclasses.replace(WITHIN, services=("shop",))
    assert weights(view_pairs(NAMES[:3], alone)) == {(5, 6): 1.0}
    with pytest.raises(ConfigError, match=r"services: 'nws' is no service .* search, shop, news$"):
        view_pairs(NAMES[:3], dataclasses.replace(config, services=("nws",)))
    with pytest.raises(ConfigError, match="must be above 0 for a single service"):
        view_pairs(NAMES[:3], SamplingConfig(services=("shop",)))
