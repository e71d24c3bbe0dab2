"""Behaviour events: every row of the log tables that can be used, in dictionary-encoded columns.

    files -> batches -> row filters -> times, window -> users, texts, services, splits -> codes

A row is left out because a rule says so (`filtered`) or because it is malformed (`rejects`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
from etils import epath

from clue_jax.config import PrepareConfig, validate_prepare
from clue_jax.console import progress
from clue_jax.data.log_reader import SPLITS, Collected, LogReader
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.rejects import Rejects
from clue_jax.data.tables import find_files
from clue_jax.errors import DataError

MAX_SERVICES = 256  # more speak for a wrong `service_column`


@dataclass(frozen=True)
class Events:
    """M behaviours of N users in order of appearance: sources, files by name, rows."""

    user_ids: np.ndarray  # [N] str (object), pseudonyms where they are asked for
    users: np.ndarray  # [M] int32 into user_ids
    services: tuple[str, ...]  # as first named by the sources, then those of columns, sorted
    service: np.ndarray  # [M] int16 into services
    texts: np.ndarray  # [J] str (object), distinct
    text: np.ndarray  # [M] int32 into texts
    source_ids: np.ndarray  # [K] str (object), distinct; '' where the source has none
    source_id: np.ndarray  # [M] int32 into source_ids
    times: np.ndarray  # [M] int64: epoch s, or the order column, or the order of appearance
    splits: np.ndarray  # [N] str: train, validation, test, or '' where no source says
    has_times: bool  # times are epoch seconds
    rejects: dict[str, int]  # rows by reason
    filtered: dict[str, int]  # rows by rule

    def __len__(self) -> int:
        return len(self.users)


def read_events(config: PrepareConfig, rejects_path: epath.Path | None = None) -> Events:
    """Reads every source of `config`.

    Args:
        config: what to read and what to leave out.
        rejects_path: becomes a file of JSON lines {file, row, column, reason}, a line for each
            rejected row; not made where there are none.

    Raises:
        ConfigError: a setting that cannot work.
        DataError: logs missing, unreadable, without a column or without a single usable row, more
            than `max_bad_rows` malformed rows, or a user in two splits.
    """
    validate_prepare(config)
    pseudonyms = Pseudonyms.from_config(config.pseudonym)
    collected, rejects = Collected(), Rejects(config.max_bad_rows, rejects_path)
    readers = [LogReader(config, source, collected, rejects) for source in config.sources]
    files = [find_files(config, source) for source in config.sources]
    for reader, found in zip(readers, files, strict=True):
        reader.check(found)
    total = sum(file.path.stat().length for found in files for file in found)
    with contextlib.closing(rejects), progress("prepare: bytes read", total) as advance:
        for reader, found in zip(readers, files, strict=True):
            reader.read(found, advance)
    return _events(config, collected, rejects, pseudonyms)


def _events(
    config: PrepareConfig, collected: Collected, rejects: Rejects, pseudonyms: Pseudonyms | None
) -> Events:
    user_ids = collected.users.array()
    services, service = _services(config, collected, rejects)
    known = collected.splits[: len(user_ids)]
    return Events(
        user_ids=pseudonyms.of_all(user_ids) if pseudonyms else user_ids,
        users=_join(collected.users.parts, np.int32),
        services=services,
        service=service,
        texts=collected.texts.array(),
        text=_join(collected.texts.parts, np.int32),
        source_ids=collected.source_ids.array(),
        source_id=_join(collected.source_ids.parts, np.int32),
        times=_join(collected.times, np.int64),
        splits=np.array([*SPLITS, ""])[known],
        has_times=bool(config.sources[0].timestamp),
        rejects=dict(sorted(rejects.counts.items())),
        filtered=dict(sorted(collected.filtered.items())),
    )


def _join(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype, copy=False)


def _services(
    config: PrepareConfig, collected: Collected, rejects: Rejects
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names in their order, and the [M] int16 codes into them."""
    found = collected.services.values
    named = dict.fromkeys(source.service for source in config.sources if source.service)
    for name in named:
        if name not in found:
            paths = ", ".join(s.path for s in config.sources if s.service == name)
            counts = {k: n for k, n in collected.filtered.items() if k.startswith(f"{name}: ")}
            reasons = "; ".join(f"{n:,} rows fail {k}" for k, n in counts.items())
            rejected = f"{rejects.counts.total():,} rows rejected in all sources"
            raise DataError(
                f"service {name!r}: {config.source}/{paths}: no row is left; {reasons or rejected}"
            )
    if not found:
        raise DataError(f"{config.source}: no row is left of any source")
    if len(found) > MAX_SERVICES:
        raise DataError(
            f"{len(found):,} services, more than {MAX_SERVICES}; does `service_column` name the"
            " right column?"
        )
    services = (*named, *sorted(set(found) - set(named)))
    order = np.array([services.index(name) for name in found], np.int16)
    return services, order[_join(collected.services.parts, np.int32)]
