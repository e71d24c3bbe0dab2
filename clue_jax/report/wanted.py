"""What a person asks of a page beside the usual."""

from __future__ import annotations

from dataclasses import dataclass

from etils import epath

from clue_jax.errors import ConfigError
from clue_jax.report.labelled import LabelTable


@dataclass(frozen=True)
class Wanted:
    """What to show of an export beside the usual; use `wanted`."""

    labels: LabelTable | None = None  # to colour a map by
    show_texts: bool = False  # of people
    data: str = ""  # prepared dataset that has the texts


USUAL = Wanted()


def wanted(labels: str = "", label: str = "", show_texts: bool = False, data: str = "") -> Wanted:
    """Checked flags of `report`.

    Args:
        labels: a table; its column may be called as itself.
        label: its column.
        show_texts: of a few people, from the dataset `data`.
        data: a prepared dataset.

    Raises:
        ConfigError: a column without a table, texts without a dataset, a dataset without a use.
    """
    if label and not labels:
        raise ConfigError(f"--label={label}: name its table with --labels=TABLE")
    if show_texts and not data:
        raise ConfigError("--show_texts: name the dataset that has them with --data=PREPARED")
    if data and not show_texts:
        raise ConfigError(f"--data={data}: is for --show_texts, which is not given")
    table = LabelTable(labels, label or epath.Path(labels).stem) if labels else None
    return Wanted(table, show_texts, data)
