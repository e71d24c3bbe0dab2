"""Who may import whom: the layers of the design, parsed from the sources.

The checks are functions of a {module: source} mapping, so that each is also shown to fail on a
small fake package that breaks its rule.
"""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module imports only from earlier lines, or from its own line. Order inside data, model,
# training and the like is free as long as it has no cycle. `data.*` stands for what is not named.
LAYERS = (
    ("errors", "config", "buckets", "files", "leases", "publishing", "replacing"),
    ("console", "markdown", "stage_process"),
    ("parallel",),
    ("data",),
    ("model",),
    ("losses",),
    ("ranking", "composition"),
    ("inference",),
    ("training",),
    ("compilation",),
    ("embeddings",),
    ("erasure",),
    ("exporting",),
    ("export",),
    ("serving_program",),
    ("encoder_folder", "encoder_views"),
    ("encoder",),
    ("evaluation",),
    ("scaling",),
    ("report",),
    ("quickstart",),
    ("cli_stage", "cli_config", "cli_help", "cli_embeddings", "cli_stages", "cli"),
    ("__main__",),
)
# Third-party packages that only some modules may import (prefixes of module names).
HOMES = {
    "flax": ("model.",),
    "orbax": ("training.checkpoint", "training.checkpoint_storage"),
    "safetensors": ("encoder_folder",),
    "flatbuffers": ("serving_program",),
    "matplotlib": ("scaling.figures",),
    "usearch": ("embeddings.index",),
    "implicit": ("evaluation.als",),
    "sklearn": ("evaluation.boosting",),
    "tensorflow_datasets": ("data.",),
    "absl": ("cli", "launch."),
    "ml_collections": ("cli", "launch."),
    "apache_beam": ("data.beam.",),
}
SHARD_MAP_HOMES = ("training.step", "training.divergence", "inference", "export", "losses.")
# What reads a finished run must not drag in the machinery that makes one.
READERS = (
    "export",
    "exporting.",
    "embeddings.",
    "encoder",
    "encoder_folder",
    "encoder_views",
    "erasure",
    "evaluation.",
    "scaling.",
    "report.",
)
MACHINERY = ("training.loop", "training.step", "training.optim", "training.state")
VAGUE = {"utils", "util", "common", "helpers", "misc"}

Sources = Mapping[str, str]


def package_sources(root: Path = ROOT / "clue_jax") -> dict[str, str]:
    """Module name without `clue_jax.` -> source; `__init__` files are exempt."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path.read_text()
        for path in sorted(root.rglob("*.py"))
        if path.name != "__init__.py"
    }


def imported_names(source: str) -> list[str]:
    """Every absolute dotted name that `source` imports, at any depth of nesting."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write it in full"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own_imports(sources: Sources) -> dict[str, set[str]]:
    """Module -> modules of the package it imports."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        own = [n.removeprefix("clue_jax.") for n in imported_names(source) if _is_own(n)]
        # `a.b.f` is module a.b when a.b is one, whatever f is.
        graph[module] = {
            known
            for known in sources
            for name in own
            if name == known or name.startswith(f"{known}.")
        }
    return graph


def layer_faults(sources: Sources) -> list[str]:
    return [
        f"{module} imports {imported}, which is below it"
        for module, imports in own_imports(sources).items()
        for imported in sorted(imports)
        if _layer(imported) > _layer(module)
    ] + [f"{module} is in no layer" for module in sources if _layer(module) == len(LAYERS)]


def cycles(sources: Sources) -> list[str]:
    graph = own_imports(sources)
    return [
        f"{module} imports itself through others"
        for module in graph
        if _reaches(graph, module, module)
    ]


def home_faults(sources: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in sorted({n.partition(".")[0] for n in imported_names(source)} & HOMES.keys())
        if not _at(module, HOMES[name])
    ]


def shard_map_faults(sources: Sources) -> list[str]:
    def uses(source: str) -> bool:
        return any(
            getattr(node, "attr", getattr(node, "id", getattr(node, "name", ""))) == "shard_map"
            for node in ast.walk(ast.parse(source))
        )

    return [m for m, source in sources.items() if uses(source) and not _at(m, SHARD_MAP_HOMES)]


def machinery_faults(sources: Sources) -> list[str]:
    graph = own_imports(sources)
    return [
        f"{reader} reaches {target}"
        for reader in sources
        if _at(reader, READERS)
        for target in MACHINERY
        if _reaches(graph, reader, target)
    ]


def type_checking_faults(sources: Sources) -> list[str]:
    return [module for module, source in sources.items() if "TYPE_CHECKING" in source]


def name_faults(modules: Iterable[str]) -> list[str]:
    return [module for module in modules if VAGUE & set(module.split("."))]


def _is_own(name: str) -> bool:
    return name.split(".")[0] == "clue_jax"


def _layer(module: str) -> int:
    top = module.split(".")[0]
    return next((i for i, layer in enumerate(LAYERS) if top in layer), len(LAYERS))


def _at(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or (home.endswith(".") and module.startswith(home)) for home in homes)


def _reaches(graph: Mapping[str, set[str]], start: str, target: str) -> bool:
    seen: set[str] = set()
    pending = list(graph.get(start, ()))
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending += graph.get(module, ())
    return target in seen


CHECKS = {
    check.__name__: check
    for check in (
        layer_faults,
        cycles,
        home_faults,
        shard_map_faults,
        machinery_faults,
        type_checking_faults,
        name_faults,
    )
}

GOOD = {
    "errors": "import enum",
    "data.records": "import tensorflow_datasets as tfds\nfrom clue_jax.errors import DataError",
    "model.layers": "from flax import nnx",
    "training.checkpoint": "from orbax.checkpoint import v1 as ocp",
    "training.state": "from clue_jax.model.layers import Block",
    "training.step": "import jax\njax.shard_map\nfrom clue_jax.training import state",
    "export": "from clue_jax.training.checkpoint import load",
    "cli": "from absl import flags",
}
# What is added to GOOD, and the one check that must then object.
BAD = [
    ("layer_faults", {"files": "from clue_jax.data import records"}),
    ("layer_faults", {"files": "def f():\n    import clue_jax.data.records"}),
    ("layer_faults", {"data.x": "from clue_jax.model.layers import Block"}),
    ("layer_faults", {"elsewhere": ""}),
    ("cycles", {"data.a": "import clue_jax.data.b", "data.b": "from clue_jax.data import a"}),
    ("cycles", {"data.a": "def f():\n    from clue_jax.data.a import g"}),
    ("home_faults", {"training.loop": "import flax.linen"}),
    ("home_faults", {"training.loop": "from orbax import checkpoint"}),
    ("home_faults", {"report.page": "import tensorflow_datasets"}),
    ("home_faults", {"console": "from absl import logging"}),
    ("shard_map_faults", {"model.x": "import jax\nf = jax.shard_map(g)"}),
    ("shard_map_faults", {"model.x": "from jax import shard_map"}),
    ("machinery_faults", {"report.page": "from clue_jax.training.state import TrainState"}),
    (
        "machinery_faults",
        {
            "encoder": "from clue_jax.training import metrics",
            "training.metrics": "from clue_jax.training import optim",
            "training.optim": "",
        },
    ),
    ("type_checking_faults", {"data.x": "from typing import TYPE_CHECKING"}),
    ("name_faults", {"data.utils": ""}),
    ("name_faults", {"data.misc.x": ""}),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_package_keeps_the_rule(check):
    assert CHECKS[check](package_sources()) == []


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_package_passes(check):
    assert CHECKS[check](GOOD) == []


@pytest.mark.parametrize(("check", "added"), BAD)
def test_each_rule_can_be_broken(check, added):
    assert CHECKS[check]({**GOOD, **added})


def test_all_modules_are_looked_at():
    assert {"errors", "cli", "data.records", "training.loop"} <= package_sources().keys()


def test_relative_imports_are_refused():
    with pytest.raises(AssertionError, match="relative import"):
        imported_names("from . import files")
