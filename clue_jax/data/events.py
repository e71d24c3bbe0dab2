"""Behaviour events: every row of the log tables that can be used, handed on in batches.

    files -> batches -> row filters -> times, window -> users, texts, services, splits -> sink

A row is left out because a rule says so (`filtered`) or because it is malformed (`rejects`). Files
are units of work, numbered in order of sources and names, and read side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clue_jax.config import PrepareConfig, validate_prepare
from clue_jax.console import say
from clue_jax.data.log_reader import LogReader, Sink
from clue_jax.data.rejects import Rejects
from clue_jax.data.tables import LogFile, find_files
from clue_jax.data.tally import Tally
from clue_jax.errors import DataError


class Unit(NamedTuple):
    """A file of the logs."""

    number: int
    source: int  # of the config
    file: LogFile


class Part(NamedTuple):
    """What a process has read."""

    units: list[int]
    tally: Tally
    rejects: Rejects


@dataclass(frozen=True)
class Reading:
    """What is known once every source has been read: M behaviours of S services."""

    behaviours: int  # M
    services: tuple[str, ...]  # as first named by the sources, then those of columns, sorted
    places: np.ndarray  # [units, most] int16: of services as numbered in a unit, in `services`
    has_times: bool  # times are epoch seconds
    rejects: dict[str, int]  # rows by reason
    filtered: dict[str, int]  # rows by rule
    replaced: dict[str, int]  # texts that were mended or cut, by reason


def units_of(config: PrepareConfig) -> list[Unit]:
    """All files, in order of sources and names.

    Raises:
        ConfigError: a setting that cannot work.
        DataError: files missing.
    """
    validate_prepare(config)
    _readers(config)
    units: list[Unit] = []
    for place, source in enumerate(config.sources):
        for file in find_files(config, source):
            units.append(Unit(len(units), place, file))
    return units


def check_units(config: PrepareConfig, units: Sequence[Unit]) -> None:
    """Raises DataError for a file that is unreadable or without a column, from its header alone."""
    readers = _readers(config)
    for unit in units:
        readers[unit.source].check(unit.file)


def _readers(config: PrepareConfig) -> list[LogReader]:
    """One for each source, which looks at its settings."""
    return [_reader(config, place, lambda batch: None) for place in range(len(config.sources))]


def read_units(
    config: PrepareConfig,
    units: Sequence[Unit],
    sink: Sink,
    rejects: Rejects,
    advance: Callable[[float], None],
    now: float | None = None,
) -> Part:
    """Reads some units, a batch of rows at a time.

    Args:
        config: what to read and what to leave out.
        units: of `units_of`, in order.
        sink: takes the usable rows.
        rejects: takes the others.
        advance: takes bytes read.
        now: epoch seconds of the run, the same for all its processes.

    Raises:
        DataError: a file that cannot be read, or more malformed rows than are tolerated.
    """
    tally = Tally()
    now = time.time() if now is None else now
    for unit in units:
        reader = _reader(config, unit.source, sink, tally, rejects, now)
        reader.read(unit.number, unit.file, advance)
    return Part([unit.number for unit in units], tally, rejects)


def _reader(
    config: PrepareConfig,
    place: int,
    sink: Sink,
    tally: Tally | None = None,
    rejects: Rejects | None = None,
    now: float = 0.0,
) -> LogReader:
    source = config.sources[place]
    return LogReader(config, source, tally or Tally(), rejects or Rejects(0), sink, now)


def reading_of(config: PrepareConfig, units: Sequence[Unit], parts: Sequence[Part]) -> Reading:
    """What all processes together have read.

    Raises:
        DataError: a source without a single row, or a service without a single usable one; or more
            malformed rows than are tolerated.
    """
    rejects, tally = Rejects(config.max_bad_rows), Tally()
    for part in parts:
        rejects.merge(part.rejects)
        tally.merge(part.tally)
    _refuse_empty(config, units, tally)
    services = _services(config, tally, rejects)
    return Reading(
        behaviours=tally.behaviours,
        services=services,
        places=_places(services, len(units), parts),
        has_times=bool(config.sources[0].timestamp),
        rejects=dict(sorted(rejects.counts.items())),
        filtered=dict(sorted(tally.filtered.items())),
        replaced=dict(sorted(tally.replaced.items())),
    )


def _refuse_empty(config: PrepareConfig, units: Sequence[Unit], tally: Tally) -> None:
    for place, source in enumerate(config.sources):
        mine = [unit for unit in units if unit.source == place]
        empty = [unit for unit in mine if not tally.rows[unit.number]]
        if len(empty) == len(mine):
            raise DataError(f"{mine[0].file.path}: the table is empty: no row in {source.path}")
        for unit in empty:
            say(f"{unit.file.path}: a table without rows")


def _services(config: PrepareConfig, tally: Tally, rejects: Rejects) -> tuple[str, ...]:
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
    return (*named, *sorted(set(found) - set(named)))


def _places(services: tuple[str, ...], units: int, parts: Sequence[Part]) -> np.ndarray:
    most = max(len(part.tally.services) for part in parts)
    places = np.zeros((units, most), np.int16)
    for part in parts:
        mine = [services.index(name) for name in part.tally.services]
        places[part.units, : len(mine)] = mine
    return places
