"""Where a run stands: at work and how long it will take, at its end, or stopped on the way."""

from __future__ import annotations

import numpy as np

from clue_jax.console import duration_text
from clue_jax.report.curves import curve, setting
from clue_jax.report.fragments import text
from clue_jax.report.read import Run
from clue_jax.report.results import number

RECENT = 5  # rows whose median rate says how fast the rest will be


def status(run: Run) -> str:
    """A line as HTML; empty where the config does not say how many steps there are."""
    steps = number(setting(run, "train", "steps"))
    if steps is None:
        return ""
    done = run.training[-1]["step"] if run.training else 0
    where = f"step {done:,} of {steps:,.0f}"
    if run.live:
        left = seconds_left(run, steps - done)
        eta = f", about {duration_text(left)} left" if left is not None else ""
        line = f"Running: {where}{eta}."
    elif done >= steps:
        line = f"Complete: {where}."
    else:
        line = f"Stopped at {where}; the same command continues it."
    share = min(1.0, done / steps) if steps else 0.0
    bar = f'<progress max="1" value="{share:.3f}" aria-label="{text(where)}"></progress>'
    return f'<p class="status">{text(line)}{bar if run.live else ""}</p>'


def seconds_left(run: Run, steps: float) -> float | None:
    """What so many more steps take at the rate of the last ones; None where it is not known."""
    batch, rates = (
        number(setting(run, "train", "batch_users")),
        curve(run.training[-RECENT:], "users_per_second"),
    )
    if batch is None or rates is None:
        return None
    rate = float(np.median(rates.values))
    return steps * batch / rate if rate > 0 else None
