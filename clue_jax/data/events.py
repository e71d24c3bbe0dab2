"""Behaviour events: every row of the log tables that can be used, handed on in batches.

    files -> batches -> row filters -> times, window -> users, texts, services, splits -> sink

A row is left out because a rule says so (`filtered`) or because it is malformed (`rejects`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
from etils import epath

from clue_jax.config import PrepareConfig, validate_prepare
from clue_jax.console import progress
from clue_jax.data.log_reader import LogReader, Sink, Tally
from clue_jax.data.rejects import Rejects
from clue_jax.data.tables import find_files
from clue_jax.errors import DataError


@dataclass(frozen=True)
class Reading:
    """What is known once every source has been read: M behaviours of S services."""

    behaviours: int  # M
    services: tuple[str, ...]  # as first named by the sources, then those of columns, sorted
    service_order: np.ndarray  # [S] int16: place in `services` of each as numbered by the reader
    has_times: bool  # times are epoch seconds
    rejects: dict[str, int]  # rows by reason
    filtered: dict[str, int]  # rows by rule
    replaced: dict[str, int]  # texts that were mended or cut, by reason


def read_events(
    config: PrepareConfig, sink: Sink, rejects_path: epath.Path | None = None
) -> Reading:
    """Reads every source of `config`, a batch of rows at a time.

    Args:
        config: what to read and what to leave out.
        sink: takes the usable rows, in order of sources, files by name, rows.
        rejects_path: becomes a file of JSON lines {file, row, column, reason}, a line for each
            rejected row; not made where there are none.

    Raises:
        ConfigError: a setting that cannot work.
        DataError: logs missing, unreadable, without a column or without a single usable row, or
            more than `max_bad_rows` malformed rows.
    """
    validate_prepare(config)
    tally, rejects = Tally(), Rejects(config.max_bad_rows, rejects_path)
    readers = [LogReader(config, source, tally, rejects, sink) for source in config.sources]
    files = [find_files(config, source) for source in config.sources]
    for reader, found in zip(readers, files, strict=True):
        reader.check(found)
    total = sum(file.path.stat().length for found in files for file in found)
    with contextlib.closing(rejects), progress("prepare: bytes read", total) as advance:
        for reader, found in zip(readers, files, strict=True):
            reader.read(found, advance)
    services, order = _services(config, tally, rejects)
    return Reading(
        behaviours=tally.behaviours,
        services=services,
        service_order=order,
        has_times=bool(config.sources[0].timestamp),
        rejects=dict(sorted(rejects.counts.items())),
        filtered=dict(sorted(tally.filtered.items())),
        replaced=dict(sorted(tally.replaced.items())),
    )


def _services(
    config: PrepareConfig, tally: Tally, rejects: Rejects
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names in their order, and the place there of each number that the reader gave."""
    found = tally.services
    named = dict.fromkeys(source.service for source in config.sources if source.service)
    for name in named:
        if name not in found:
            paths = ", ".join(s.path for s in config.sources if s.service == name)
            counts = {k: n for k, n in tally.filtered.items() if k.startswith(f"{name}: ")}
            reasons = "; ".join(f"{n:,} rows fail {k}" for k, n in counts.items())
            rejected = f"{rejects.counts.total():,} rows rejected in all sources"
            raise DataError(
                f"service {name!r}: {config.source}/{paths}: no row is left; {reasons or rejected}"
            )
    if not found:
        raise DataError(f"{config.source}: no row is left of any source")
    services = (*named, *sorted(set(found) - set(named)))
    return services, np.array([services.index(name) for name in found], np.int16)
