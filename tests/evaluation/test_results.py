"""Rows for machines and a table for people."""

import io

import numpy as np
import pytest
from rich.console import Console

from clue_jax.errors import NonFiniteError
from clue_jax.evaluation.bootstrap import Resampled
from clue_jax.evaluation.results import (
    as_json,
    exact_rows,
    print_table,
    rows_of,
    short,
    with_groups,
)

METRICS = ("recall_at_1", "recall_at_10", "mrr")


def sample(value):
    return Resampled(np.full(3, value), np.array([[value - 0.1] * 3, [value + 0.1] * 3]))


def results():
    found = []
    for task in ("matching/test/art->office", "matching/test/art<->office (mean) blocks of 1000"):
        found += rows_of(task, "clue", METRICS, sample(0.5), 1_917, 3)
        found += rows_of(task, "clue - random_encoder", METRICS, sample(-0.5), 1_917, 3)
        found += exact_rows(task, "chance", dict.fromkeys(METRICS, 0.01), 1_917, 0)
    return found


def test_rows_have_the_keys_of_the_contract():
    row = as_json(results())[1]
    assert list(row) == ["task", "model", "metric", "value", "low", "high", "n", "seed"]
    assert row["metric"] == "recall_at_10" and row["value"] == 0.5
    assert row["low"] == pytest.approx(0.405) and row["high"] == pytest.approx(0.595)
    assert (row["n"], row["seed"]) == (1_917, 3)
    assert as_json(results())[-1]["low"] is None


def test_a_value_that_is_none_is_refused():
    with pytest.raises(NonFiniteError, match="task, clue, recall_at_1"):
        rows_of("task", "clue", METRICS, sample(np.nan), 2, 0)


def test_the_table_fits_and_cuts_nothing():
    stream = io.StringIO()
    print_table(results(), Console(file=stream, width=100))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in stream.getvalue()
    assert "matching/test/art->office, 1,917 users" in lines
    assert "matching/test/art<->office (mean) blocks of 1000, 1,917 users" in lines
    clue = [line for line in lines if line.startswith("clue ")]
    assert [line.count(".500 [.405 .595]") for line in clue] == [3, 3]
    less = [line for line in lines if line.startswith("- random_encoder")]
    assert [line.count("-.500 [-.595 -.405]") for line in less] == [3, 3]
    assert sum(line.split() == ["chance", *[".010"] * 3] for line in lines) == 2


def test_only_a_zero_before_the_point_is_left_out():
    assert [short(v) for v in (0.5, -0.25, 0.0, 170.5, -20.0)] == [
        ".500",
        "-.250",
        ".000",
        "170.500",
        "-20.000",
    ]


def test_groups_of_users_are_of_the_task_before_the_comma():
    first = {
        "downstream/a, b": "auc",
        "downstream/a, b, one service only": "auc",
        "downstream/a, b, lift of the policy": "ips_lift",
        "downstream/c, at most 5": "auc",
    }
    assert with_groups(first) == {
        "downstream/a, b": {"one service only": "downstream/a, b, one service only"},
        "downstream/a, b, lift of the policy": {},
        "downstream/c, at most 5": {},
    }


def test_groups_of_users_are_left_to_the_report():
    stream = io.StringIO()
    tasks = ("downstream/a", "downstream/a, one service only", "downstream/b")
    found = [
        row
        for task in tasks
        for row in exact_rows(task, "clue", {"auc": 0.7, "log_loss": 0.5}, n=30, seed=0)
    ]
    print_table(found, Console(file=stream, width=100))
    printed = stream.getvalue()
    assert "downstream/a, 30 users" in printed and "downstream/b, 30 users" in printed
    assert "one service only" not in printed and "groups of users" in printed
