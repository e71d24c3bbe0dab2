"""docs/faults.md names tests that exist, and at least one for every promise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "faults.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]


def names_of(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_rows_are_all_there():
    assert {int(number) for number, *_ in ROWS} >= {*range(1, 27), 30}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}"[:60])
def test_each_promise_names_tests_that_exist(row):
    _, promise, tests = row
    named = re.findall(r"`([^`]+)`", tests)
    assert promise and named
    for path, name in (test.split("::") for test in named):
        assert name.startswith("test_") and name in names_of(f"tests/{path}"), f"{path}::{name}"
