import numpy as np
import pytest

from clue_jax.data.accounts import Lengths


@pytest.mark.parametrize("count", [1, 2, 3, 10, 99, 100, 101, 1_000, 12_345])
def test_spreads_are_those_of_all_lengths(count):
    rng = np.random.default_rng(count)
    values = rng.geometric(0.1, count) - 1
    lengths = Lengths()
    for part in np.array_split(values, 4):
        lengths.add(part)
    expected = np.quantile(values, [0.5, 0.9, 0.99, 1.0], method="higher")
    assert lengths.spread() == dict(zip(("p50", "p90", "p99", "max"), expected, strict=True))
