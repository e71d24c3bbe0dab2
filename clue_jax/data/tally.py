"""What has been read of the logs, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What a process has read so far, in numbers."""

    services: dict[str, int] = field(default_factory=dict)  # numbered as they appear
    filtered: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    behaviours: int = 0
    rows: dict[int, int] = field(default_factory=dict)  # read, by unit

    def merge(self, other: Tally) -> None:
        """Takes those of another process; numbers of services are each process's own."""
        self.services |= dict.fromkeys(other.services, 0)
        self.filtered += other.filtered
        self.replaced += other.replaced
        self.behaviours += other.behaviours
        self.rows |= other.rows
