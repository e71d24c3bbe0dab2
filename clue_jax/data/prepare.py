"""`prepare`: behaviour logs -> users -> tokenised, sharded dataset and its manifest.

    events.read_events -> histories.group -> tokenizer -> shards of users and items -> manifest.json

Output: manifest.json (last), tokenizer.json, users/ and items/ (TFDS folder datasets), and
rejects.jsonl when rows were rejected. Equal logs and config give equal bytes; a rerun after a kill
reuses what is finished.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.config import PrepareConfig, to_json, validate_prepare
from clue_jax.console import progress, say
from clue_jax.data import tokenizer as bpe
from clue_jax.data.events import Events, read_events
from clue_jax.data.histories import SPLITS, Histories, ItemTokens, group, tokenize, users_between
from clue_jax.data.items import ItemTable, encode_items, item_features
from clue_jax.data.manifest import SCHEMA_VERSION, fingerprint
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.records import encode_users, user_features
from clue_jax.data.shards import Build, shard_bytes, shard_name, write_metadata
from clue_jax.data.tables import find_files
from clue_jax.data.tokenizer import GENERIC_GUIDE, Tokenizer
from clue_jax.errors import ConfigError, DataError

ITEMS_PER_SHARD = 100_000

# Another version of these may write other bytes, so that shards of both would not fit together.
_WRITERS = ("array_record", "numpy", "tokenizers")


def prepare(config: PrepareConfig, out: str) -> None:
    """Builds the dataset `out`.

    Raises:
        ConfigError: a setting that cannot work, by its key.
        DataError: logs that are missing, unreadable or malformed beyond `max_bad_rows`.
        StorageError: `out` is already there, or the file system refused.
        LockedError: another process builds `out`.
    """
    validate_prepare(config)
    pseudonyms = Pseudonyms.from_config(config.pseudonym)
    given = _given_tokenizer(config)
    files.refuse_existing(out, overwrite=config.overwrite)
    inputs = _inputs(config)
    identity = {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs,
        "config": {k: v for k, v in to_json(config).items() if k not in ("source", "overwrite")},
        "tokenizer": given.identity if given else None,
        "pseudonym_key_id": pseudonyms.key_id if pseudonyms else None,
        "writers": {name: importlib.metadata.version(name) for name in _WRITERS},
    }
    with files.staged_directory(out, overwrite=config.overwrite) as staged:
        build = Build(staged, files.sha256_text(files.canonical_json(identity)))
        if build.finished:
            say(f"{staged}: continuing an interrupted build, {len(build.finished)} files finished")
        manifest = _build(config, build, given)
        manifest |= {
            "inputs": inputs,
            "pseudonym_key_id": identity["pseudonym_key_id"],
            "config": to_json(config),
        }
        manifest["fingerprint"] = fingerprint(manifest)
        build.close()
        files.write_json(staged / "manifest.json", manifest)
    _tell(manifest, out, build.reused)


def _given_tokenizer(config: PrepareConfig) -> Tokenizer | None:
    path = config.tokenizer.path
    if not path:
        return None
    try:
        return bpe.load(path)
    except DataError as error:
        raise ConfigError(f"config.tokenizer.path: {error}") from error


def _inputs(config: PrepareConfig) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of every log file, each once."""
    found = {file.name: file for source in config.sources for file in find_files(config, source)}
    total = sum(file.path.stat().length for file in found.values())
    entries = []
    with progress("prepare: checksums of the logs", total) as advance:
        for name, file in sorted(found.items()):
            size = file.path.stat().length
            digest = files.sha256_file(file.path)
            entries.append({"file": name, "bytes": size, "sha256": digest})
            advance(size)
    return entries


def _build(config: PrepareConfig, build: Build, given: Tokenizer | None) -> dict[str, Any]:
    """Writes everything but the manifest, and returns what it says about the contents."""
    events = read_events(config, build.root / "rejects.jsonl")
    say(f"{len(events):,} behaviours of {len(events.user_ids):,} users read")
    histories = group(events, config)
    tokenizer = _tokenizer(config, build, given, histories)
    tokens = tokenize(histories.items, tokenizer, config.max_item_tokens)
    splits = _write_users(config, build, histories, tokens)
    items = _write_items(build, histories.items)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "services": list(histories.services),
        "has_times": events.has_times,
        "splits": splits,
        "items": items,
        "tokenizer_sha256": tokenizer.identity,
        "vocab_size": tokenizer.vocab_size,
        "max_item_tokens": config.max_item_tokens,
        "quantiles": _quantiles(histories, tokens),
        **_accounts(events, histories, tokens),
    }


def _tokenizer(
    config: PrepareConfig, build: Build, given: Tokenizer | None, histories: Histories
) -> Tokenizer:
    """The given tokenizer, or one trained on the texts of training users; saved in the dataset."""

    def make() -> bytes:
        if given is not None:
            return given.serialized
        items = histories.training_items()
        # Rows are in order of a hash, so that the first ones are a fair sample.
        texts = list(dict.fromkeys(histories.items.texts[items]))
        texts = texts[: config.tokenizer.max_training_texts]
        say(f"training the tokenizer on {len(texts):,} texts of training users")
        return bpe.train(texts, histories.services, config.tokenizer.vocab_size).serialized

    build.file("tokenizer.json", make)
    tokenizer = bpe.load(build.root / "tokenizer.json")
    for service in histories.services:
        if tokenizer.guide(service) == GENERIC_GUIDE:
            say(f"service {service!r}: not known to this tokenizer; it has the generic guide token")
    return tokenizer


def _write_users(
    config: PrepareConfig, build: Build, histories: Histories, tokens: ItemTokens
) -> dict[str, Any]:
    counts = histories.counts()
    splits: dict[str, Any] = {}
    with progress("prepare: users", len(histories.user_ids)) as advance:
        for split, first, last in zip(
            SPLITS, histories.split_offsets[:-1], histories.split_offsets[1:], strict=True
        ):
            starts = range(int(first), int(last), config.users_per_shard)
            entries = []
            for shard, start in enumerate(starts):
                stop = min(start + config.users_per_shard, int(last))

                def make(start: int = start, stop: int = stop) -> bytes:
                    users = users_between(histories, tokens, start, stop)
                    return shard_bytes(encode_users(users), build.root)

                name = shard_name("users", split, shard, len(starts))
                entries.append(build.file(name, make, users=stop - start))
                advance(stop - start)
            behaviours = counts[first:last].sum(axis=0).tolist()
            splits[split] = {
                "users": int(last - first),
                "behaviours": dict(zip(histories.services, behaviours, strict=True)),
                "shards": entries,
            }
    by_split = {split: value["shards"] for split, value in splits.items()}
    write_metadata(build.root / "users", user_features(), by_split, "users")
    return splits


def _write_items(build: Build, items: ItemTable) -> dict[str, Any]:
    starts = range(0, len(items), ITEMS_PER_SHARD)
    entries = []
    with progress("prepare: items", len(items)) as advance:
        for shard, start in enumerate(starts):
            part = ItemTable(
                *(column[start : start + ITEMS_PER_SHARD] for column in vars(items).values())
            )

            def make(part: ItemTable = part) -> bytes:
                return shard_bytes(encode_items(part), build.root)

            name = shard_name("items", "items", shard, len(starts))
            entries.append(build.file(name, make, items=len(part)))
            advance(len(part))
    write_metadata(build.root / "items", item_features(), {"items": entries}, "items")
    return {"count": len(items), "shards": entries}


# ------------------------------------------------------------------------------------ accounts


def _quantiles(histories: Histories, tokens: ItemTokens) -> dict[str, Any]:
    """p50, p90, p99 and maximum: tokens of distinct items, behaviours of users of each service."""
    counts = histories.counts()
    return {
        "item_tokens": _spread(np.diff(tokens.offsets)),
        "behaviours": {
            service: _spread(counts[counts[:, s] > 0, s])
            for s, service in enumerate(histories.services)
        },
    }


def _spread(values: np.ndarray) -> dict[str, int]:
    points = np.quantile(values, [0.5, 0.9, 0.99, 1.0], method="higher")
    return dict(zip(("p50", "p90", "p99", "max"), points.astype(int).tolist(), strict=True))


def _accounts(events: Events, histories: Histories, tokens: ItemTokens) -> dict[str, Any]:
    dropped = dict(histories.dropped)
    return {
        "rejects": events.rejects,
        "filtered": events.filtered,
        "duplicates": dropped.pop("repeated behaviours (kept)"),
        "dropped": dropped,
        "truncated_items": tokens.truncated,
    }


def _tell(manifest: dict[str, Any], out: epath.PathLike, reused: int) -> None:
    for title in ("rejects", "filtered", "dropped"):
        for reason, count in manifest[title].items():
            say(f"{title}: {count:,} {reason}")
    users = ", ".join(f"{v['users']:,} {k}" for k, v in manifest["splits"].items())
    total = sum(sum(v["behaviours"].values()) for v in manifest["splits"].values())
    say(
        f"{total:,} behaviours on {manifest['items']['count']:,} items, users: {users};"
        f" vocabulary {manifest['vocab_size']:,}"
        + (f"; {reused} finished files reused" if reused else "")
    )
    say(f"dataset {manifest['fingerprint'][:12]} in {out}")
