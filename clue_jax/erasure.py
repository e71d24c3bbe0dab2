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
from clue_jax.data.manifest import read_manifest
from clue_jax.data.source import open_dataset
from clue_jax.embeddings import erase as of_export
from clue_jax.embeddings.index import index_columns
from clue_jax.embeddings.reader import open_export
from clue_jax.errors import ConfigError, StorageError
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
    if epath.Path(record).exists():
        raise StorageError(
            f"--record={record}: already there, and an audit record is never overwritten; name"
            " another file"
        )
    ids = read_ids(ids_file).ids
    hashes = {files.sha256_text(user) for user in ids}
    _look(places)  # before anything is changed
    datasets = [_dataset(path, ids) for path in places.data]
    pasts = [past for path in places.data for past in _pasts(path)]
    exports = [_export(path, ids, hashes, pasts) for path in places.embeddings]
    for path in places.workdirs:
        _remove_caches(path, {past.fingerprint for past in pasts})
    found = {
        "record_version": RECORD_VERSION,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "ids": len(ids),
        "ids_sha256": sorted(hashes),
        "datasets": datasets,
        "exports": exports,
        "models": _models(places.workdirs, pasts, hashes),
        "not_done": list(NOT_DONE),
    }
    files.write_json(record, found)
    return found


def _look(places: Places) -> None:
    """Raises what is wrong with a place that anybody can see who opens it."""
    for path in places.data:
        open_dataset(path)
    for path in places.embeddings:
        open_export(path, "users")
    for path in places.workdirs:
        read_run(path)


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


@dataclass(frozen=True)
class Past:
    """A dataset as it once was: whom has it lost since?

    Attributes:
        fingerprint: what it had then.
        now: and has now.
        lost: split -> SHA-256 of ids.
    """

    fingerprint: str
    now: str
    lost: Mapping[str, frozenset[str]]

    @property
    def everyone(self) -> set[str]:
        return {digest for digests in self.lost.values() for digest in digests}


def _pasts(path: str) -> list[Past]:
    """All that a dataset ever was, by its record."""
    now, lines = _fingerprint(path), erasures(path)
    found = []
    for number, line in enumerate(lines):
        lost: dict[str, frozenset[str]] = {}
        for later in lines[number:]:
            for split, digests in later["erased_sha256"].items():
                lost[split] = lost.get(split, frozenset()) | frozenset(digests)
        found.append(Past(line["fingerprint_before"], now, lost))
    return found


def _counts(done: Collection[str], unknown: Collection[str], ever: set[str]) -> dict[str, int]:
    """How many were erased now, were before (`ever`: hashes on record), and were never there."""
    before = sum(files.sha256_text(user) in ever for user in unknown)
    return {"erased": len(done), "erased_before": before, "unknown": len(unknown) - before}


def _dataset(path: str, ids: Collection[str]) -> dict[str, Any]:
    before = _fingerprint(path)
    ever = {digest for past in _pasts(path) for digest in past.everyone}
    done = of_data.erase(path, ids)
    say(f"{path}: {len(done.users):,} users erased")
    return {
        "path": path,
        "fingerprint_before": before,
        "fingerprint": _fingerprint(path),
        **_counts(done.users, done.unknown, ever),
        "splits": {split: len(found) for split, found in done.erased.items()},
        "items": done.items,
        "shards": len(done.shards),
    }


def _export(
    path: str, ids: Collection[str], hashes: set[str], pasts: Sequence[Past]
) -> dict[str, Any]:
    root = epath.Path(path)
    manifest, record = open_export(root, "users"), _lines(root / of_export.AUDIT)
    of = manifest["dataset"]["fingerprint"]
    # Without all whom its dataset has lost, it is an export of the dataset as it is now.
    asked = {d for line in record for d in (*line["erased_sha256"], *line["unknown_sha256"])}
    now = {p.now for p in pasts if p.fingerprint == of and p.everyone <= asked | hashes}
    done = of_export.erase(root, ids, dataset=next(iter(now), ""))
    say(f"{path}: {len(done.erased):,} users erased")
    ever = {digest for line in record for digest in line["erased_sha256"]}
    return {
        "path": path,
        "model_version": manifest["model_version"],
        "dataset": of,
        **_counts(done.erased, done.unknown, ever),
        "indexes": index_columns(manifest),
    }


def _fingerprint(path: str) -> str:
    """Of a dataset; its files were looked at when it was opened."""
    return read_manifest(epath.Path(path))["fingerprint"]


def _lines(path: epath.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _fingerprints(workdir: str) -> list[str]:
    """Of the datasets a run was trained on."""
    return files.read_json(epath.Path(workdir) / "dataset.json")["fingerprint"].split("+")


def _remove_caches(workdir: str, past: Collection[str]) -> None:
    """Columns of a dataset as it was, where a run keeps them apart from it (data/source.py)."""
    cache = read_run(workdir).config.data.cache
    for fingerprint in set(_fingerprints(workdir)) & set(past) if cache else ():
        for folder in sorted(epath.Path(cache).glob(f"*-{fingerprint[:16]}")):
            with files.storage_errors(folder):
                folder.rmtree()
            say(f"{folder}: cache of the users as they were, removed")


def _models(
    workdirs: Sequence[str], pasts: Sequence[Past], hashes: set[str]
) -> list[dict[str, Any]]:
    """What each run saw of the users, those that it began from included."""
    found = {str(absolute(path)): _model(path, pasts, hashes) for path in workdirs}
    origins = {name: read_run(name).config.init_from for name in found}
    for _ in found:  # a chain is no longer than there are runs
        for name, model in found.items():
            origin = found.get(str(absolute(origins[name]))) if origins[name] else None
            if origin and model["saw"] == UNSEEN and origin["saw"] != UNSEEN:
                model |= {"saw": DESCENDS, "from": origin["path"], "users": origin["users"]}
    return list(found.values())


def _model(path: str, pasts: Sequence[Past], hashes: set[str]) -> dict[str, Any]:
    run, saw, users = read_run(path), UNSEEN, set[str]()
    mine = [past for past in pasts if past.fingerprint in _fingerprints(path)]
    for split, how in _SPLITS.items():
        met = {digest for past in mine for digest in past.lost.get(split, ()) if digest in hashes}
        saw, users = how if met and saw == UNSEEN else saw, users | met
    return {
        "path": path,
        "saw": saw,
        "users": len(users),
        "datasets": _fingerprints(path),
        "versions": model_versions(run.workdir / "checkpoints"),
        # Of these lists only the hash is kept, so whether somebody was on one is not known here.
        "suppression": _lines(run.workdir / SUPPRESSED),
    }
