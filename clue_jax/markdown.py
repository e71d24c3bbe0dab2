"""Pieces of the cards that datasets, runs, encoders and exports have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

CARD = "card.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its cells as they are."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def one_line(value: Any) -> str:
    """Text from outside on one line, and inside its cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'")
