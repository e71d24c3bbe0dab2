"""Retention windows: behaviour is kept for so many days, and no longer read once it is older."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from clue_jax.config import epoch_seconds


def today() -> datetime.date:
    """The date in UTC; a window begins and ends at midnight there, so that a day's runs agree."""
    return datetime.datetime.now(datetime.UTC).date()


def window_start(days: int) -> str:
    """ISO date of the first day that a window of so many days, today included, still has."""
    try:
        return (today() - datetime.timedelta(days=days - 1)).isoformat()
    except OverflowError:  # before the year 1: everything
        return datetime.date.min.isoformat()


def later(start: str, other: str) -> str:
    """The later of two ISO times; an empty one is no bound."""
    if not start or not other:
        return start or other
    return max(start, other, key=epoch_seconds)


def shortest(days: int, manifest: Mapping[str, Any]) -> int:
    """The stricter of a window that is asked for and that of a dataset; 0: neither has one.

    Args:
        days: asked for; 0: none.
        manifest: of the prepared dataset.
    """
    windows = [days, (manifest.get("retention") or {}).get("days", 0)]
    return min(filter(None, windows), default=0)
