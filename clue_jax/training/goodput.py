"""How much of a run's time went into steps that count, over all its attempts."""

from __future__ import annotations

import math
import time

from etils import epath

from clue_jax.training.log import Log, Row


class Goodput:
    """Time in useful steps over the time since the run first began, down time included.

    Compiling, evaluating, waiting for data, what the loop is held by saves and by comparing copies,
    and steps that had to be taken again count as lost. `<workdir>/attempts.jsonl` has a line for
    each start: step restored, and time. What the steps of earlier attempts took is read from the
    rows of metrics that still count.

    Args:
        workdir: the run directory.
        restored_step: that this attempt begins with.
        rows: of metrics.jsonl up to that step.
    """

    def __init__(self, workdir: epath.Path, restored_step: int, rows: list[Row]):
        self.useful = sum(row.get("step_seconds", 0.0) for row in rows)
        now = time.time()
        attempts = Log(workdir / "attempts.jsonl", math.inf)
        self.restarts = len(attempts.kept)
        self.began = attempts.kept[0]["time"] if attempts.kept else now
        attempts.write({"step": restored_step, "time": now})

    def row(self, seconds: float) -> Row:
        """Metrics, once the steps of a row have taken so long, without waiting for data."""
        self.useful += seconds
        return {
            "step_seconds": seconds,
            "goodput": self.useful / max(time.time() - self.began, 1e-9),
            "restarts": self.restarts,
        }
