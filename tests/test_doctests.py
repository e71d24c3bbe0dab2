"""Examples in docstrings print what they say, where a person would type them."""

import doctest
import importlib
import shutil
import types
from pathlib import Path

import pytest

from tests.stages import run_stage

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "clue_jax").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.fixture(scope="module")
def first_run(smoke_run, smoke_data, tmp_path_factory):
    """A folder with `runs/first` and its export `runs/first/users`, as the README makes them."""
    folder = tmp_path_factory.mktemp("first")
    workdir = shutil.copytree(smoke_run, folder / "runs/first")
    users = workdir / "users"
    run_stage("export", f"--workdir={workdir}", f"--data={smoke_data}", f"--out={users}")
    return folder


def faults(module):
    """What the examples of a module printed in place of what they say, and how many there are."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    found: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(test, out=found.append)
    return found, runner.tries


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, first_run, monkeypatch):
    monkeypatch.chdir(first_run)
    found, tries = faults(importlib.import_module(name))
    assert tries > 0
    assert found == []


def test_the_public_surface_has_examples():
    assert set(MODULES) >= {
        "clue_jax.encoder",
        "clue_jax.embeddings.reader",
        "clue_jax.embeddings.search",
        "clue_jax.losses.contrastive",
        "clue_jax.ranking",
    }


def test_a_wrong_example_is_found():
    wrong, right = types.ModuleType("wrong", ">>> 1 + 1\n3\n"), types.ModuleType("right")
    right.__doc__ = (
        ">>> 1 + 1\n2\n>>> 1 / 0\nTraceback (most recent call last):\nZeroDivisionError: ...\n"
    )
    assert faults(right) == ([], 2)
    found, tries = faults(wrong)
    assert tries == 1 and "Got:\n    2" in found[0]
