"""What `evaluate` refuses before anything is read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from clue_jax.config.checks import require
from clue_jax.config.evaluation import (
    BASELINES,
    FEATURES,
    HEADS,
    MORE_FEATURES,
    MORE_HEADS,
    SUITES,
    WHOLE,
    DownstreamConfig,
    EvaluateConfig,
    MatchingConfig,
    TaskConfig,
    TaskKind,
    named_folders,
)

KNOWN = FEATURES + MORE_FEATURES


def validate_evaluate(config: EvaluateConfig) -> None:
    """Refuses an evaluation that cannot work, before anything is read.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    _known("suites", config.suites, SUITES, "suite")
    require(len(config.suites) >= 1, "suites", f"name one or more of {', '.join(SUITES)}")
    _validate_matching(config.matching)
    if "downstream" in config.suites:
        _validate_downstream(config.downstream)
    require(config.seed >= 0, "seed", f"{config.seed} must not be negative")


def _validate_matching(matching: MatchingConfig) -> None:
    services = matching.services
    require(
        not services or (len(services) >= 2 and len(set(services)) == len(services)),
        "matching.services",
        f"{', '.join(services)}: name two different services or more, or none for all",
    )
    _splits("matching.splits", matching.splits)
    for name, least in (("min_behaviours", 1), ("block", 2), ("bootstrap", 1)):
        value = getattr(matching, name)
        require(value >= least, f"matching.{name}", f"{value} must be at least {least}")
    _known("matching.baselines", matching.baselines, BASELINES, "baseline")


def _validate_downstream(downstream: DownstreamConfig) -> None:
    _splits("downstream.splits", downstream.splits)
    least = {
        "folds": 3,  # one to test on, one to choose on, one to fit on
        "rank": 1,
        "steps": 1,
        "batch_rows": 1,
        "sasrec_steps": 1,
        "tune_steps": 1,
        "tune_users": 1,
        "max_users": 3,
        "max_unknown_users": 0,
        "bootstrap": 1,
    }
    for name, low in least.items():
        value = getattr(downstream, name)
        require(value >= low, f"downstream.{name}", f"{value} must be at least {low}")
    _beside(downstream)
    _features(downstream)
    require(
        all(a < b for a, b in pairwise((0, *downstream.histories))),
        "downstream.histories",
        f"{', '.join(map(str, downstream.histories))}: give numbers above 0 that increase",
    )
    _known("downstream.heads", downstream.heads, HEADS + MORE_HEADS, "head")
    require(len(downstream.heads) >= 1, "downstream.heads", "name one head or more")
    for name, low in (("mlp_widths", 1), ("neighbours", 1), ("boosting_leaves", 2)):
        for value in getattr(downstream, name):
            require(value >= low, f"downstream.{name}", f"{value} must be at least {low}")
        require(len(getattr(downstream, name)) >= 1, f"downstream.{name}", "name one or more")
    require(len(downstream.weight_decays) >= 1, "downstream.weight_decays", "name one or more")
    for decay in downstream.weight_decays:
        require(
            math.isfinite(decay) and decay >= 0,
            "downstream.weight_decays",
            f"{decay} must be finite and not negative",
        )
    _tuning(downstream)
    require(
        0.0 <= downstream.exploration <= 1.0,
        "downstream.exploration",
        f"{downstream.exploration} is not between 0 and 1",
    )
    require(len(downstream.tasks) >= 1, "downstream.tasks", "name one task or more")
    for position, task in enumerate(downstream.tasks):
        _validate_task(task, f"downstream.tasks[{position}]", downstream)
    names = [task.name for task in downstream.tasks]
    require(len(set(names)) == len(names), "downstream.tasks", "two tasks have the same name")


def _tuning(downstream: DownstreamConfig) -> None:
    require(
        "fine_tuned" not in downstream.features or bool(downstream.tune_from),
        "downstream.tune_from",
        "fine_tuned starts from the run, or the saved encoder, that made the export; name it",
    )
    rates = downstream.tune_learning_rates
    require(len(rates) >= 1, "downstream.tune_learning_rates", "name one or more")
    for rate in rates:
        _positive("tune_learning_rates", rate)


def _beside(downstream: DownstreamConfig) -> None:
    names = []
    for pair in downstream.beside:
        name, _, folder = pair.partition("=")
        require(
            re.fullmatch(r"[A-Za-z0-9_.-]+", name) is not None and bool(folder),
            "downstream.beside",
            f"{pair!r}: give NAME=DIR, with a name of letters, digits and _.-",
        )
        require(name not in KNOWN, "downstream.beside", f"{name!r} is the name of features")
        names.append(name)
    require(len(set(names)) == len(names), "downstream.beside", "two have the same name")
    _known("downstream.beside_items", tuple(named_folders(downstream.beside_items)), names, "name")


def _features(downstream: DownstreamConfig) -> None:
    exports = ("clue", *named_folders(downstream.beside))
    for name in downstream.features:
        parts = (name,) if name in KNOWN else tuple(name.split("+"))
        for part in parts:
            export, slash, _ = part.partition("/")
            known = part in KNOWN and (part not in WHOLE or len(parts) == 1)
            require(
                known or (export in exports and (bool(slash) or export != "clue")),
                "downstream.features",
                f"no features {part!r}; there are {', '.join(KNOWN)}, NAME and NAME/SERVICE of"
                f" the exports {', '.join(exports)}, and any of them side by side, A+B",
            )
    require(
        "clue" in downstream.features, "downstream.features", "'clue', the export, must be there"
    )
    for name in ("item_mean", "item_recent"):
        require(
            name not in downstream.features or bool(downstream.items),
            "downstream.items",
            f"{name} needs an export of items; make one with export --config.what=items",
        )
    for name in ("half_life_days", "als_alpha", "als_penalty"):
        _positive(name, getattr(downstream, name))


def _positive(name: str, value: float) -> None:
    good = 0.0 < value < math.inf
    require(good, f"downstream.{name}", f"{value} must be finite and above 0")


def _validate_task(task: TaskConfig, key: str, downstream: DownstreamConfig) -> None:
    require(
        bool(task.name) and "/" not in task.name and " - " not in task.name,
        f"{key}.name",
        f"{task.name!r}: give it a name without '/' and ' - '",
    )
    retrieval = task.kind is TaskKind.RETRIEVAL
    require(retrieval or bool(task.labels), f"{key}.labels", "name a Parquet file or folder")
    for name in ("user_id", "label"):
        require(bool(getattr(task, name)), f"{key}.{name}", "name a column")
    require(not retrieval or bool(task.service), f"{key}.service", "name the catalogue's service")
    require(
        not retrieval or bool(downstream.items),
        "downstream.items",
        "retrieval needs an export of items; make one with export --config.what=items",
    )
    require(len(task.at) >= 1, f"{key}.at", "name one k or more")
    for k in task.at:
        require(k >= 1, f"{key}.at", f"{k} must be at least 1")
    require(task.window_days >= 0, f"{key}.window_days", f"{task.window_days} is negative")
    if task.kind is TaskKind.CLICKS:
        for name in ("action", "position", "propensity", "timestamp"):
            require(bool(getattr(task, name)), f"{key}.{name}", "name a column")


def _splits(key: str, splits: tuple[str, ...]) -> None:
    require(len(splits) >= 1, key, "name one split or more")
    require(len(set(splits)) == len(splits), key, "one is twice")


def _known(key: str, names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        require(name in known, key, f"no {what} {name!r}; there are {', '.join(known)}")
