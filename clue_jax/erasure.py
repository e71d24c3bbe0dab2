"""Erasing people end to end: from datasets and exports, with a record of which models saw them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.buckets import absolute
from clue_jax.console import say
from clue_jax.data import erase as of_data
from clue_jax.data.erasures import erasures
from clue_jax.data.id_list import read_ids
from clue_jax.data.source import open_dataset
from clue_jax.embeddings import erase as of_export
from clue_jax.embeddings.index import index_columns
from clue_jax.embeddings.reader import open_export
from clue_jax.errors import ConfigError
from clue_jax.training.parameters import model_versions
from clue_jax.training.trained import SUPPRESSED, read_run

RECORD_VERSION = 1
# How a model came to know of somebody, the nearest first.
TRAINED, CHOSEN, DESCENDS, UNSEEN = "trained on", "chosen by", "descends from", "not seen"
_SPLITS = {"train": TRAINED, "validation": CHOSEN}
NOT_DONE = (
    "the logs: prepare anew from them only with config.suppress",
    "models: nothing is untrained; train anew, without the users, what must not have seen them",
    "tokenizers: what they learnt of frequent words stays",
    "copies, backups, reports and what consumers made of exports",
)


@dataclass(frozen=True)
class Places:
    """Where to look: prepared datasets, exports of users, run directories."""

    data: Sequence[str]
    embeddings: Sequence[str]
    workdirs: Sequence[str]


def erase_everywhere(ids_file: str, places: Places, record: str) -> dict[str, Any]:
    """Removes users from datasets and exports, indexes included, and says which models saw them.

    Killed, or stopped by an error, the same command again does what is left: who was erased before
    is known by the records of the datasets and exports.

    Args:
        ids_file: ids as the datasets have them (pseudonyms, where there are), one a line.
        places: datasets, exports and runs.
        record: JSON file for the audit record; it has hashes of ids alone.

    Returns:
        The record.

    Raises:
        ConfigError: nowhere to look.
        DataError: an id file, dataset or export that is damaged.
        CheckpointError: a run directory that cannot be read.
        LockedError: somebody else writes one of the places.
        StorageError: the record is there already, or the file system refused.
    """
    if not (places.data or places.embeddings):
        raise ConfigError("--data, --embeddings: name a dataset or an export to erase from")
    files.refuse_existing(record, overwrite=False)
    ids = read_ids(ids_file)
    hashes = {files.sha256_text(user) for user in ids}
    for path in places.workdirs:  # before anything is changed
        read_run(path)
    # Exports first: they name the dataset they are of, and models of theirs may lack a run here.
    exports = [_export(path, ids, hashes) for path in places.embeddings]
    seen: dict[str, dict[str, set[str]]] = {}
    datasets = [_dataset(path, ids, hashes, seen) for path in places.data]
    for path in places.workdirs:
        _remove_caches(path, seen)
    found = {
        "record_version": RECORD_VERSION,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "ids": len(ids),
        "ids_sha256": sorted(hashes),
        "datasets": datasets,
        "exports": exports,
        "models": _models(places.workdirs, seen),
        "not_done": list(NOT_DONE),
    }
    files.write_json(record, found)
    return found


def describe_erasure(found: Mapping[str, Any], record: str) -> list[str]:
    """What was done and what was not, line by line."""
    lines = [
        f"{place['path']}: {place['erased']:,} erased, {place['erased_before']:,} before,"
        f" {place['unknown']:,} never there"
        for place in (*found["datasets"], *found["exports"])
    ]
    for model in found["models"]:
        versions = ", ".join(model["versions"]) or "no checkpoint"
        of = f" {model['from']}" if model["saw"] == DESCENDS else ""
        lines.append(f"{model['path']}: {model['saw']}{of} ({model['users']:,} users): {versions}")
    lines += [f"not done: {line}" for line in found["not_done"]]
    return [*lines, f"record: {record}"]


def _counts(erased: Collection[str], before: int, ids: Collection[str]) -> dict[str, int]:
    unknown = len(ids) - len(erased) - before
    return {"erased": len(erased), "erased_before": before, "unknown": unknown}


def _export(path: str, ids: Collection[str], hashes: set[str]) -> dict[str, Any]:
    root = epath.Path(path)
    manifest = open_export(root, "users")
    erased = (line["erased_sha256"] for line in _lines(root / of_export.AUDIT))
    before = hashes & {digest for digests in erased for digest in digests}
    done = of_export.erase(root, ids)
    say(f"{path}: {len(done.erased):,} users erased")
    return {
        "path": path,
        "model_version": manifest["model_version"],
        "dataset": manifest["dataset"]["fingerprint"],
        **_counts(done.erased, len(before), ids),
        "indexes": index_columns(manifest),
    }


def _dataset(
    path: str, ids: Collection[str], hashes: set[str], seen: dict[str, dict[str, set[str]]]
) -> dict[str, Any]:
    """Erases from a dataset; adds to `seen`, fingerprint -> split -> hashes, whom it ever had."""
    before = open_dataset(path).fingerprint
    done = of_data.erase(path, ids)
    say(f"{path}: {len(done.users):,} users erased")
    held: list[str] = []  # fingerprints so far: all of them had whoever is erased next
    everyone: set[str] = set()
    for line in erasures(path):
        held.append(line["fingerprint_before"])
        for split, digests in line["erased_sha256"].items():
            mine = hashes & set(digests)
            everyone |= mine
            for fingerprint in held:
                seen.setdefault(fingerprint, {}).setdefault(split, set()).update(mine)
    return {
        "path": path,
        "fingerprint_before": before,
        "fingerprint": open_dataset(path).fingerprint,
        **_counts(done.users, len(everyone) - len(done.users), ids),
        "splits": {split: len(found) for split, found in done.erased.items()},
        "items": done.items,
        "shards": len(done.shards),
    }


def _lines(path: epath.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _fingerprints(workdir: str) -> list[str]:
    """Of the datasets a run was trained on."""
    return files.read_json(epath.Path(workdir) / "dataset.json")["fingerprint"].split("+")


def _remove_caches(workdir: str, seen: Collection[str]) -> None:
    """Columns of a dataset as it was, where a run keeps them apart from it (data/source.py)."""
    cache = read_run(workdir).config.data.cache
    for fingerprint in set(_fingerprints(workdir)) & set(seen) if cache else ():
        for folder in sorted(epath.Path(cache).glob(f"*-{fingerprint[:16]}")):
            with files.storage_errors(folder):
                folder.rmtree()
            say(f"{folder}: cache of the users as they were, removed")


def _models(
    workdirs: Sequence[str], seen: Mapping[str, Mapping[str, set[str]]]
) -> list[dict[str, Any]]:
    """What each run saw of the users, those that it began from included."""
    found = {str(absolute(path)): _model(path, seen) for path in workdirs}
    origins = {name: read_run(name).config.init_from for name in found}
    for _ in found:  # a chain is no longer than there are runs
        for name, model in found.items():
            origin = found.get(str(absolute(origins[name]))) if origins[name] else None
            if origin and model["saw"] == UNSEEN and origin["saw"] != UNSEEN:
                model |= {"saw": DESCENDS, "from": origin["path"], "users": origin["users"]}
    return list(found.values())


def _model(path: str, seen: Mapping[str, Mapping[str, set[str]]]) -> dict[str, Any]:
    run, saw, users = read_run(path), UNSEEN, set[str]()
    for split, how in _SPLITS.items():
        for fingerprint in _fingerprints(path):
            mine = seen.get(fingerprint, {}).get(split, set())
            if mine:
                saw, users = saw if saw != UNSEEN else how, users | mine
    lists = run.workdir / SUPPRESSED
    return {
        "path": path,
        "saw": saw,
        "users": len(users),
        "datasets": _fingerprints(path),
        "versions": model_versions(run.workdir / "checkpoints"),
        # Of these lists only the hash is kept, so whether somebody was on one is not known here.
        "suppression": _lines(lists),
    }
