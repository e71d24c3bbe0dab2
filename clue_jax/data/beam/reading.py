"""Log files -> rows of users and items by bucket, and what all files together have given."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from clue_jax import files
from clue_jax.data.beam.plan import CHUNK_ROWS, Output, Plan, packed
from clue_jax.data.events import Part, Reading, Unit, check_units, read_units, reading_of
from clue_jax.data.grouping import memory_bytes, split_columns
from clue_jax.data.intake import Intake
from clue_jax.data.rejects import Rejects
from clue_jax.data.spill import Spilled


class Report(NamedTuple):
    """What one file has given, in numbers."""

    unit: Unit
    entry: dict[str, Any]  # of the file, for the manifest
    part: Part


class Known(NamedTuple):
    """What is known once every file has been read."""

    reading: Reading
    inputs: list[dict[str, Any]]  # entries of all files
    files: list[tuple[str, str]]  # of `grouping.split_columns`


def read_unit(unit: Unit, plan: Plan) -> Iterator[Output]:
    """Reads one file. Rows and users go to buckets of users, the catalogue to buckets of items.

    Raises:
        DataError: a file that cannot be read, or has more malformed rows than are tolerated.
    """
    config = plan.config
    check_units(config, [unit])
    with tempfile.TemporaryDirectory(prefix="clue_jax.") as scratch:
        folder = Path(scratch)
        memory = memory_bytes(config, processes=1)
        intake = Intake(folder, plan.buckets, memory, plan.pseudonyms())
        rejects = Rejects(config.max_bad_rows, folder)
        part = read_units(config, [unit], intake, rejects, lambda read: None, plan.now)
        taken = intake.close()
        yield from _chunks(taken.rows, "rows", plan)
        yield from _chunks(taken.users, "rows", plan)
        yield from _chunks(taken.catalogue, "catalogue", plan)
        for path in folder.glob("rejects-*.jsonl"):
            yield "rejects", (unit.number, path.read_bytes())
        entry = {
            "file": unit.file.name,
            "bytes": unit.file.path.stat().length,
            "sha256": files.sha256_file(unit.file.path),
        }
        yield "reports", Report(unit, entry, part)


def _chunks(spilled: Spilled, output: str, plan: Plan) -> Iterator[Output]:
    for bucket in range(plan.buckets):
        for batch in spilled.read(plan.span(bucket)):
            for start in range(0, len(batch), CHUNK_ROWS):
                chunk = batch.slice(start, CHUNK_ROWS)
                yield output, (bucket, (spilled.name, len(chunk), packed(chunk)))


def know(reports: Sequence[Report], plan: Plan) -> Iterator[Output]:
    """What all files together have given.

    Raises:
        DataError: more malformed rows than are tolerated, a source without a row, or a service
            without a usable one.
    """
    reports = sorted(reports, key=lambda report: report.unit.number)
    units = [report.unit for report in reports]
    inputs = {report.entry["file"]: report.entry for report in reports}
    known = Known(
        reading=reading_of(plan.config, units, [report.part for report in reports]),
        inputs=[entry for _, entry in sorted(inputs.items())],
        files=split_columns(plan.config, units),
    )
    yield "known", known


def write_rejects(found: Sequence[tuple[int, bytes]], plan: Plan) -> Iterator[Output]:
    """Writes the lines about rejected rows, in order of files; no file where there are none."""
    lines = b"".join(part for _, part in sorted(found))
    if lines:
        files.write_bytes(epath.Path(plan.staged) / "rejects.jsonl", lines)
    yield "written", len(lines)
