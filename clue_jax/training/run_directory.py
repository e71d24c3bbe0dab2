"""The run directory: what a run is, written once, compared when it is continued."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from clue_jax.config import PretrainConfig, to_json
from clue_jax.data.erasures import lost_since
from clue_jax.data.guides import RUN_FILE
from clue_jax.data.mixture import union_of
from clue_jax.data.source import Dataset
from clue_jax.errors import CheckpointError, StorageError
from clue_jax.files import read_json, write_json
from clue_jax.training.trained import read_run, trained_guides

# Every setting, by the beginning of its key: what a continued run may change, since it computes the
# same with it, and what must match. The longest beginning that fits decides.
MAY_CHANGE = (
    "checkpoint.",
    "data.",
    "encoder.attention",
    "encoder.remat",
    "loss.tile",
    "loss.transport",
    "mesh.",
    # Who is taken out of a run is not learnt from again; the steps from there on are others.
    "sampling.suppress",
    "train.divergence_every",
    "train.eval_",
    "train.hang_seconds",
    "train.log_every",
    "train.max_skipped",
    "train.profile",
    # What a person does about a run that goes wrong; the steps from there on are others.
    "train.skip_batches",
    "train.spike_deviations",
)
MUST_MATCH = (
    "encoder.",
    "init_",
    "loss.",
    "optim.",
    "sampling.",
    "seed",
    "train.batch_users",
    "train.steps",
)

_LOOKS, _LOOK_SECONDS = 40, 0.5  # network file systems remember for a while what was not there
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "clue_jax")


def open_run(
    workdir: epath.Path,
    config: PretrainConfig,
    datasets: Sequence[Dataset],
    guides: Mapping[str, int] = types.MappingProxyType({}),
) -> None:
    """Creates the run directory, or checks that it holds the same run; process 0 alone writes.

    Args:
        workdir: the directory.
        config: of the run.
        datasets: it is trained on.
        guides: that the run it begins from was trained on, by service.

    Raises:
        CheckpointError: config or datasets differ; lists each difference, old -> new.
    """
    refuse_another(workdir, config, datasets)
    new = {"config": to_json(config), "dataset": _identity(datasets)}
    if jax.process_index() != 0:
        return
    write_json(workdir / "environment.json", environment())
    datasets[0].tokenizer.save(workdir / "tokenizer.json")
    if not (workdir / RUN_FILE).exists():
        write_json(workdir / RUN_FILE, {**guides, **trained_guides(datasets)})
    write_json(workdir / "dataset.json", new["dataset"])
    write_json(workdir / "config.json", new["config"])


def refuse_another(
    workdir: epath.Path, config: PretrainConfig, datasets: Sequence[Dataset]
) -> None:
    """Whether a run directory that is there holds this run.

    Raises:
        CheckpointError: config or datasets differ; lists each difference, old -> new.
    """
    if not (workdir / "config.json").exists():
        return
    new = {"config": to_json(config), "dataset": _identity(datasets)}
    old = {
        # A setting that is newer than the run has its default in it.
        "config": to_json(read_run(workdir).config),
        "dataset": read_json(workdir / "dataset.json"),
    }
    differences = [
        f"{key}: {before!r} -> {after!r}"
        for key, before, after in _differences(old, new)
        if not (may_change(key.removeprefix("config.")) or key == "dataset.path")
    ]
    if differences:
        past = old["dataset"]["fingerprint"].split("+")
        erased = any(lost_since(d.path, d.manifest, one) for d in datasets for one in past)
        raise CheckpointError(
            f"{workdir}: holds a run with other settings; use another --workdir or undo:\n  "
            + "\n  ".join(differences)
            + "\nThe dataset has lost users since (clue-jax erase): a new run may begin from this"
            f" one with --config.init_from={workdir}" * erased
        )


def check_shared(workdir: epath.Path) -> None:
    """Whether this process sees the run directory that process 0 has just locked.

    Raises:
        StorageError: it does not, within a time that network file systems may take.
    """
    for _ in range(_LOOKS):
        if (workdir / "lock").exists():
            return
        time.sleep(_LOOK_SECONDS)
    raise StorageError(
        f"{workdir}: process {jax.process_index()} does not see what process 0 writes there; give"
        " --workdir on a file system or in a bucket that all hosts share"
    )


def may_change(key: str) -> bool:
    """Whether a continued run may have another value under a key such as `train.steps`."""

    def longest(beginnings: tuple[str, ...]) -> int:
        return max((len(start) for start in beginnings if key.startswith(start)), default=0)

    return longest(MAY_CHANGE) > longest(MUST_MATCH)


def _identity(datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Of all datasets together; their order counts, as weights and draws follow it."""
    tokenizer = datasets[0].tokenizer  # of all of them
    return {
        "path": [str(dataset.path) for dataset in datasets],
        "fingerprint": "+".join(dataset.fingerprint for dataset in datasets),
        "services": list(union_of([dataset.services for dataset in datasets])),
        "tokenizer_sha256": tokenizer.identity,
        "vocab_size": tokenizer.vocab_size,
    }


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(set(old) | set(new))
        return [
            found
            for name in names
            for found in _differences(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if old == new else [(key, old, new)]


def environment() -> dict[str, Any]:
    """Versions and devices; nothing about the person or the host."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions,
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }
