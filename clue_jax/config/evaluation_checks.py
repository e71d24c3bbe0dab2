"""What `evaluate` refuses before anything is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from clue_jax.config.checks import require
from clue_jax.config.evaluation import (
    BASELINES,
    FEATURES,
    HEADS,
    MORE_FEATURES,
    MORE_HEADS,
    SUITES,
    WHOLE,
    AuditConfig,
    DownstreamConfig,
    EvaluateConfig,
    MatchingConfig,
    TaskConfig,
    TaskKind,
    named_folders,
)

KNOWN = FEATURES + MORE_FEATURES
MODEL = FEATURES[0]  # the evaluated export


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
    if "audit" in config.suites:
        _validate_audit(config.audit)
    _at_least(config, "", {"min_audience": 1})
    require(config.seed >= 0, "seed", f"{config.seed} must not be negative")


def _validate_matching(matching: MatchingConfig) -> None:
    _services("matching.services", matching.services)
    _splits("matching.splits", matching.splits)
    _at_least(matching, "matching.", {"min_behaviours": 1, "block": 2, "bootstrap": 1})
    _known("matching.baselines", matching.baselines, BASELINES, "baseline")


def _validate_audit(audit: AuditConfig) -> None:
    _services("audit.services", audit.services)
    _splits("audit.splits", audit.splits)
    _at_least(audit, "audit.", {"min_behaviours": 1, "max_users": 2, "bootstrap": 1})
    _at_least(audit, "audit.", {"attack_folds": 2})
    for key in ("reference", "crops"):
        given = getattr(audit, key)
        _named(f"audit.{key}", given)
        require(audit.membership or not given, f"audit.{key}", "is for audit.membership=true")
    names = _named("audit.beside", audit.beside)
    require(MODEL not in names, "audit.beside", f"{MODEL!r} is the name of the evaluated export")
    _known("audit.pairs", tuple(named_folders(audit.pairs)), names, "name")
    require(bool(audit.known), "audit.known", "name one number or more")
    for name, least in (("known", 1), ("galleries", 2)):
        for value in getattr(audit, name):
            require(value >= least, f"audit.{name}", f"{value} must be at least {least}")
    _increasing("audit.histories", audit.histories)


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
    _at_least(downstream, "downstream.", least)
    _beside(downstream)
    _features(downstream)
    _increasing("downstream.histories", downstream.histories)
    _groups(downstream)
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
    names = _named("downstream.beside", downstream.beside)
    for name in names:
        require(name not in KNOWN, "downstream.beside", f"{name!r} is the name of features")
    _known("downstream.beside_items", tuple(named_folders(downstream.beside_items)), names, "name")


def _groups(downstream: DownstreamConfig) -> None:
    for position, group in enumerate(downstream.groups):
        for name in ("name", "labels", "user_id", "label"):
            value = getattr(group, name)
            require(bool(value), f"downstream.groups[{position}].{name}", "is empty; name one")
        key = f"downstream.groups[{position}].name"
        require(", " not in group.name, key, f"{group.name!r}: give it a name without ', '")
    names = [group.name for group in downstream.groups]
    require(len(set(names)) == len(names), "downstream.groups", "two have the same name")


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


def _services(key: str, services: tuple[str, ...]) -> None:
    require(
        not services or (len(services) >= 2 and len(set(services)) == len(services)),
        key,
        f"{', '.join(services)}: name two different services or more, or none for all",
    )


def _named(key: str, pairs: tuple[str, ...]) -> list[str]:
    """The names of NAME=DIR, ..."""
    names = []
    for pair in pairs:
        name, _, folder = pair.partition("=")
        require(
            re.fullmatch(r"[A-Za-z0-9_.-]+", name) is not None and bool(folder),
            key,
            f"{pair!r}: give NAME=DIR, with a name of letters, digits and _.-",
        )
        names.append(name)
    require(len(set(names)) == len(names), key, "two have the same name")
    return names


def _increasing(key: str, values: tuple[int, ...]) -> None:
    require(
        all(a < b for a, b in pairwise((0, *values))),
        key,
        f"{', '.join(map(str, values))}: give numbers above 0 that increase",
    )


def _at_least(config: Any, prefix: str, least: Mapping[str, int]) -> None:
    for name, low in least.items():
        value = getattr(config, name)
        require(value >= low, f"{prefix}{name}", f"{value} must be at least {low}")


def _splits(key: str, splits: tuple[str, ...]) -> None:
    require(len(splits) >= 1, key, "name one split or more")
    require(len(set(splits)) == len(splits), key, "one is twice")


def _known(key: str, names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        require(name in known, key, f"no {what} {name!r}; there are {', '.join(known)}")
