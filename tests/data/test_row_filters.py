import pyarrow as pa
import pytest

from clue_jax.config import Comparison, RowFilter
from clue_jax.data import row_filters
from clue_jax.errors import ConfigError

VALUES = pa.array(["5", "5.0", "-2", "1e3", "Postage", " ", None], pa.large_string())


@pytest.mark.parametrize(
    ("comparison", "value", "expected"),
    [
        (Comparison.EQUAL, "5", "1100000"),
        (Comparison.NOT_EQUAL, "5.0", "0011100"),
        (Comparison.GREATER, "0", "1101000"),
        (Comparison.LESS, "5", "0010000"),
        (Comparison.MATCHES, "(?i)^post", "0000100"),
        (Comparison.NOT_MATCHES, "(?i)^post", "1111000"),
        (Comparison.PRESENT, "", "1111100"),
    ],
)
def test_holds_and_never_for_a_missing_value(comparison, value, expected):
    holds = row_filters.holds(RowFilter("c", comparison, value), VALUES)
    assert "".join(str(int(held)) for held in holds) == expected


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (RowFilter("c", Comparison.GREATER, "many"), "c > many.*'many' is not a number"),
        (RowFilter("c", Comparison.MATCHES, "(a"), "not a regular expression"),
    ],
)
def test_check_rule(rule, problem):
    with pytest.raises(ConfigError, match=problem):
        row_filters.check_rule(rule)


def test_describe():
    assert row_filters.describe(RowFilter("Quantity", Comparison.GREATER, "0")) == "Quantity > 0"
    assert row_filters.describe(RowFilter("id", Comparison.PRESENT)) == "id is present"
    assert row_filters.describe(RowFilter("d", Comparison.MATCHES, "x", name="goods")) == "goods"
