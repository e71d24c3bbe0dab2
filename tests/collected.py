"""All that `read_events` hands on, in memory, and what `Intake` makes of it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clue_jax.data import events
from clue_jax.data.histories import people
from clue_jax.data.intake import Intake
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.privacy import Pseudonyms
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

        reading = events.read_events(config, sink, rejects_path)
        intake.close()
        found = people(intake.users.table(EVERYTHING), intake.files)
        rows = intake.rows.table(EVERYTHING).sort_by("row")
    assert rows["row"].to_pylist() == list(range(reading.behaviours))
    assert rows["time"].to_pylist() == columns["times"]
    named = np.array([*SPLITS, ""])[found.splits]
    return Collected(
        reading=reading,
        **columns,
        hashes=rows["user"].to_numpy(),
        user_ids=found.ids.tolist(),
        splits=dict(zip(found.ids.tolist(), named.tolist(), strict=True)),
    )
