"""The best learning rate of each size, and the rule through them."""

import itertools
import math

import pytest

from clue_jax.scaling.rates import best_rates, fitted_rule
from clue_jax.scaling.selection import sound_runs
from tests.scaling.planted import result


def runs_of(rates, best_at):
    """Parabolas in log rate, their least where a rule says."""
    runs = []
    for size, batch, rate in itertools.product(("16x1", "64x2"), (64, 256), rates):
        best = best_at(int(size.split("x")[0]), batch)
        loss = 1.0 + 0.02 * math.log(rate / best) ** 2
        named = {"batch": batch, "learning_rate": rate, "run": f"{size}-{batch}-{rate}"}
        runs.append(result(size, 25_600 // batch, loss=loss) | named | {"cell": named["run"]})
    return sound_runs(runs, calibrated=False)[0]


def rule(width, batch):
    return 2e-3 * (64 / width) ** 0.8 * (batch / 256) ** 0.3


def test_a_planted_rule_is_found():
    rates = [2e-4 * 2.0**power for power in range(9)]
    found = best_rates(runs_of(rates, rule))
    assert len(found) == 4 and not any(best.at_edge for best in found)
    for best in found:
        assert best.rate == pytest.approx(rule(best.width, best.batch), rel=1e-6)
    through = fitted_rule(found)
    assert through.at == pytest.approx(2e-3)
    assert (through.width_power, through.batch_power) == pytest.approx((0.8, 0.3))


def test_a_best_rate_at_the_edge_is_said_and_not_believed():
    found = best_rates(runs_of([1e-5, 2e-5, 4e-5], rule))
    assert len(found) == 4 and all(best.at_edge for best in found)
    assert fitted_rule(found) is None
    assert best_rates(runs_of([1e-3, 2e-3], rule)) == []


def test_what_does_not_vary_has_no_power():
    rates = [2e-4 * 2.0**power for power in range(9)]
    some = [best for best in best_rates(runs_of(rates, rule)) if best.batch == 64]
    through = fitted_rule(some)
    assert through.width_power == pytest.approx(0.8) and through.batch_power == 0
