"""`prepare`: behaviour logs -> users -> tokenised, sharded dataset and its manifest.

    grouping.group_logs -> tokenizer -> shards of users and items -> manifest.json

Output: manifest.json (last), tokenizer.json, users/ and items/ (TFDS folder datasets), card.md for
people, and rejects.jsonl when rows were rejected. Equal logs and config give equal bytes. A rerun
after a kill reads and groups the logs again, and reuses every shard that was finished.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from etils import epath

from clue_jax import files, publishing
from clue_jax.config import PrepareConfig, to_json, validate_prepare
from clue_jax.console import progress, say
from clue_jax.data import tokenizer as bpe
from clue_jax.data.accounts import Lengths, Tallies
from clue_jax.data.card import card_of
from clue_jax.data.events import Reading
from clue_jax.data.grouping import Grouped, group_logs
from clue_jax.data.guides import given_tokenizer, guide_services
from clue_jax.data.id_list import IdList, suppression
from clue_jax.data.manifest import SCHEMA_VERSION, TEXTS_SHOWN, fingerprint
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.retention import later, window_start
from clue_jax.data.shards import Build
from clue_jax.data.spill import scratch
from clue_jax.data.tables import find_files
from clue_jax.data.tokenizer import GENERIC_GUIDE, Tokenizer
from clue_jax.data.workers import Advance, Workers
from clue_jax.data.writing import write_items, write_users
from clue_jax.errors import ConfigError, DataError
from clue_jax.markdown import CARD

# Settings that change no byte of a shard: finished ones are reused though these differ.
_WITHOUT_EFFECT = ("source", "overwrite", "memory_mb", "processes", "suppress", TEXTS_SHOWN)

_PROCESS_BYTES = 1 << 26  # of logs that make up for the start of a process

# Another version of these may write other bytes, so that shards of both would not fit together.
_WRITERS = ("array_record", "numpy", "tokenizers")


class Job(NamedTuple):
    """What an engine is asked for."""

    config: PrepareConfig
    logs: dict[str, int]  # name and size of every log file, each once
    staged: epath.Path  # folder for everything but the manifest
    given: Tokenizer | None
    pseudonyms: Pseudonyms | None
    suppressed: IdList | None


class Built(NamedTuple):
    """What an engine has put into the staging folder."""

    contents: dict[str, Any]  # of manifest.json
    reused: int  # files an interrupted run had finished


Engine = Callable[[Job], Built]


def prepare(config: PrepareConfig, out: str, engine: Engine | None = None) -> None:
    """Builds the dataset `out`, on this machine or by another engine.

    Raises:
        ConfigError: a setting that cannot work, by its key.
        DataError: logs that are missing, unreadable or malformed beyond `max_bad_rows`.
        StorageError: `out` is already there, or the file system refused.
        LockedError: another process builds `out`.
    """
    validate_prepare(config)
    pseudonyms = Pseudonyms.from_config(config.pseudonym)
    given, suppressed = _given_tokenizer(config), suppression(config.suppress)
    publishing.refuse_existing(out, overwrite=config.overwrite)
    logs, windowed = _logs(config), _within_window(config)
    retention = {"days": config.retention_days, "start": windowed.start}
    with publishing.staged_directory(out, overwrite=config.overwrite) as staged:
        built = (engine or _build_here)(Job(windowed, logs, staged, given, pseudonyms, suppressed))
        if suppression(config.suppress) != suppressed:  # each process read it for itself
            raise DataError(f"{config.suppress}: was changed meanwhile; run prepare again")
        manifest = built.contents | {
            "pseudonym_key_id": pseudonyms.key_id if pseudonyms else None,
            "suppressed": suppressed.identity if suppressed else None,
            "retention": retention if config.retention_days else None,
            TEXTS_SHOWN: config.texts_may_be_shown,
            "config": to_json(config),
        }
        manifest["fingerprint"] = fingerprint(manifest)
        files.write_text(staged / CARD, card_of(manifest))
        files.write_json(staged / "manifest.json", manifest)
    _tell(manifest, out, built.reused)


def _within_window(config: PrepareConfig) -> PrepareConfig:
    """With a start that leaves out what is older than the retention window."""
    if not config.retention_days:
        return config
    start = later(config.start, window_start(config.retention_days))
    return dataclasses.replace(config, start=start)


def _given_tokenizer(config: PrepareConfig) -> Tokenizer | None:
    path = config.tokenizer.path
    if not path:
        return None
    try:
        return given_tokenizer(path)
    except DataError as error:
        raise ConfigError(f"config.tokenizer.path: {error}") from error


def _logs(config: PrepareConfig) -> dict[str, int]:
    """Name and size of every log file, each once."""
    found = {f.name: f for source in config.sources for f in find_files(config, source)}
    return {name: file.path.stat().length for name, file in sorted(found.items())}


def _processes(config: PrepareConfig, log_bytes: int) -> int:
    """As many as there are cores, if so few are worth their start, and fit into the memory."""
    if config.processes:
        return config.processes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, log_bytes // _PROCESS_BYTES + 1, config.most_processes)


def _inputs(config: PrepareConfig, logs: dict[str, int], workers: Workers) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of every log file."""
    tasks = [(f"{config.source}/{name}", size) for name, size in logs.items()]
    with progress("prepare: checksums of the logs", sum(logs.values())) as advance:
        digests = list(workers.map(checksum, tasks, advance))
    return [
        {"file": name, "bytes": size, "sha256": digest}
        for (name, size), digest in zip(logs.items(), digests, strict=True)
    ]


def checksum(path: str, size: int, advance: Advance) -> str:
    """A task of `Workers`."""
    digest = files.sha256_file(path)
    advance(size)
    return digest


def _build_here(job: Job) -> Built:
    """The engine of one machine."""
    config, logs, staged, given, pseudonyms, suppressed = job
    with Workers(_processes(config, sum(logs.values()))) as workers:
        inputs = _inputs(config, logs, workers)
        identity = {
            "schema_version": SCHEMA_VERSION,
            "inputs": inputs,
            "config": {k: v for k, v in to_json(config).items() if k not in _WITHOUT_EFFECT},
            "tokenizer": given.identity if given else None,
            "suppressed": suppressed.identity if suppressed else None,
            "guides": dict(given.reserved) if given else {},
            "pseudonym_key_id": pseudonyms.key_id if pseudonyms else None,
            "writers": {name: importlib.metadata.version(name) for name in _WRITERS},
        }
        build = Build(staged, files.sha256_text(files.canonical_json(identity)))
        if build.finished:
            say(f"{staged}: continuing an interrupted build, {len(build.finished)} files finished")
        contents = _build(config, build, given, pseudonyms, workers)
        build.close()
    return Built(contents | {"inputs": inputs}, build.reused)


def _build(
    config: PrepareConfig,
    build: Build,
    given: Tokenizer | None,
    pseudonyms: Pseudonyms | None,
    workers: Workers,
) -> dict[str, Any]:
    """Writes everything but the manifest, and returns what it says about the contents."""
    with scratch(build.root) as folder:
        rejects = build.root / "rejects.jsonl"
        grouped = group_logs(config, folder, rejects, pseudonyms, workers)
        reading, catalogue, tallies = grouped.reading, grouped.catalogue, grouped.tallies
        tokenizer = _tokenizer(config, build, given, grouped)
        item_tokens = catalogue.tokenize(tokenizer, config.max_item_tokens, workers)
        splits = write_users(config, build, grouped, folder, workers)
        items = write_items(build, catalogue, folder, workers)
    return contents_of(config, reading, tallies, tokenizer, item_tokens) | {
        "splits": splits,
        "items": items,
    }


def contents_of(
    config: PrepareConfig,
    reading: Reading,
    tallies: Tallies,
    tokenizer: Tokenizer,
    item_tokens: tuple[Lengths, int],
) -> dict[str, Any]:
    """What the manifest says beside the shards; `item_tokens` is of `Catalogue.tokenize`."""
    lengths, truncated = item_tokens
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "services": list(reading.services),
        "has_times": reading.has_times,
        "tokenizer_sha256": tokenizer.identity,
        "vocab_size": tokenizer.vocab_size,
        "guides": dict(tokenizer.reserved),
        "max_item_tokens": config.max_item_tokens,
        "quantiles": {"item_tokens": lengths.spread(), "behaviours": tallies.quantiles()},
        "rejects": reading.rejects,
        "filtered": reading.filtered,
        "replaced": reading.replaced,
        "duplicates": tallies.repeats,
        "dropped": tallies.dropped,
        "truncated_items": truncated,
    }


def _tokenizer(
    config: PrepareConfig, build: Build, given: Tokenizer | None, grouped: Grouped
) -> Tokenizer:
    """The given tokenizer, or one trained on the texts of training users; saved in the dataset."""
    services = grouped.reading.services

    def make() -> bytes:
        if given is not None:
            return given.serialized
        say(f"training the tokenizer on {len(grouped.texts):,} texts of training users")
        return bpe.train(grouped.texts, services, config.tokenizer.vocab_size).serialized

    build.file("tokenizer.json", make)
    tokenizer = bpe.load(build.root / "tokenizer.json")
    grouped.texts.clear()
    if given is None:
        return tokenizer
    guided = guide_services(given, services, config.tokenizer.new_services)
    say_new_services(given, guided, services)
    return guided


def say_new_services(given: Tokenizer, guided: Tokenizer, services: Iterable[str]) -> None:
    """Says which guides services have that a given tokenizer did not know."""
    for service in services:
        if given.guide(service) == GENERIC_GUIDE:
            guide = guided.guide(service)
            which = "the generic guide" if guide == GENERIC_GUIDE else f"reserved guide {guide}"
            say(f"service {service!r}: not known to this tokenizer; it has {which}")


def _tell(manifest: dict[str, Any], out: epath.PathLike, reused: int) -> None:
    for title in ("rejects", "filtered", "replaced", "dropped"):
        for reason, count in manifest[title].items():
            say(f"{title}: {count:,} {reason}")
    if manifest["truncated_items"]:
        say(
            f"truncated: {manifest['truncated_items']:,} of {manifest['items']['count']:,} items"
            f" have more than {manifest['max_item_tokens']} tokens (max_item_tokens)"
        )
    users = ", ".join(f"{v['users']:,} {k}" for k, v in manifest["splits"].items())
    total = sum(sum(v["behaviours"].values()) for v in manifest["splits"].values())
    say(
        f"{total:,} behaviours on {manifest['items']['count']:,} items, users: {users};"
        f" vocabulary {manifest['vocab_size']:,}"
        + (f"; {reused} finished files reused" if reused else "")
    )
    say(f"dataset {manifest['fingerprint'][:12]} in {out}")
