"""All that `read_events` hands on, in memory, and what `Intake` makes of it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from clue_jax.data import events
from clue_jax.data.histories import people
from clue_jax.data.intake import Intake
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.privacy import Pseudonyms
from clue_jax.data.rejects import Rejects, publish_rejects
from clue_jax.data.spill import BINS, Range

EVERYTHING = Range(0, BINS)


@dataclass
class Collected:
    """M behaviours as the logs have them; N users, with ids as the dataset has them."""

    reading: events.Reading
    users: list[str]  # [M]
    services: list[str]  # [M]
    texts: list[str]  # [M]
    source_ids: list[str]  # [M]
    times: list[int]  # [M]
    hashes: np.ndarray  # [M]
    user_ids: list[str]  # [N] in order of their hash
    splits: dict[str, str]  # by user id, '' where the logs have none

    def __len__(self):
        return len(self.users)


def read_events(config, rejects_path=None, *, memory_bytes=1 << 26, partitions=3):
    """Reads the logs of a config, with splits and pseudonyms as `prepare` finds them."""
    columns = {name: [] for name in ("users", "services", "texts", "source_ids", "times")}
    with tempfile.TemporaryDirectory() as folder:
        pseudonyms = Pseudonyms.from_config(config.pseudonym)
        intake = Intake(Path(folder), partitions, memory_bytes, pseudonyms)

        def sink(batch):
            for name, values in columns.items():
                values += getattr(batch, name).tolist()
            intake(batch)

        units = events.units_of(config)
        events.check_units(config, units)
        rejects = Rejects(config.max_bad_rows, Path(folder))
        try:
            part = events.read_units(config, units, sink, rejects, lambda count: None)
            reading = events.reading_of(config, units, [part])
        finally:
            if rejects_path:
                publish_rejects([Path(folder)], rejects_path)
        taken = intake.close()
        names = [(str(unit.file.path), config.sources[unit.source].split) for unit in units]
        found = people(taken.users.table(EVERYTHING), names)
        rows = taken.rows.table(EVERYTHING).sort_by("row")
    assert len(rows) == reading.behaviours and pc.all(pc.greater_equal(rows["row"], 0)).as_py()
    assert rows["time"].to_pylist() == columns["times"]
    named = np.array([*SPLITS, ""])[found.splits]
    return Collected(
        reading=reading,
        **columns,
        hashes=rows["user"].to_numpy(),
        user_ids=found.ids.tolist(),
        splits=dict(zip(found.ids.tolist(), named.tolist(), strict=True)),
    )
