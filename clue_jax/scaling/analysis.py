"""What the runs of a plan say: laws with intervals, a forecast that is checked, what to buy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clue_jax.errors import DataError
from clue_jax.scaling.fit import Fit, fit
from clue_jax.scaling.forecasts import Checked, checked_forecast
from clue_jax.scaling.forms import (
    CRITICAL_BATCH,
    EVERYTHING,
    INTERACTIONS,
    OF_COMPUTE,
    SIZE_AND_SAMPLES,
    SIZE_AND_SAMPLES_FROM_CHANCE,
    SIZE_AND_USERS,
    Form,
)
from clue_jax.scaling.questions import Answer, answers
from clue_jax.scaling.rates import BestRate, FittedRule, best_rates, fitted_rule
from clue_jax.scaling.results import Result
from clue_jax.scaling.selection import (
    comparable,
    grouped,
    of_one_protocol,
    on_frontier,
    points_of,
    sound_runs,
    tuned_runs,
)
from clue_jax.scaling.spending import Tried, tried


@dataclass(frozen=True)
class Analysis:
    """Everything that was concluded.

    Attributes:
        kept: runs that count, of each experiment those with the best learning rate and temperature.
        excluded: run -> why it does not count.
        best: runs that nothing cheaper beats, of those that differ in size and samples alone.
        fits: laws that the runs say something about; those of the critical batch are named after
            the size of the encoder.
        fitted_to: law -> its runs, and what they cost.
        refused: form -> why nothing was fitted.
        forecast: of the largest budget by laws that did not see it; None: too few runs.
        answers: to the paper's questions.
        best_rates: of sizes and batches for which three learning rates or more were tried.
        rule: through them; None: none of them is known.
    """

    kept: list[Result]
    excluded: dict[str, str]
    best: list[Result]
    fits: dict[str, Fit]
    fitted_to: dict[str, Tried]
    refused: dict[str, str]
    forecast: Checked | None
    answers: list[Answer]
    best_rates: list[BestRate]
    rule: FittedRule | None


def analyse(
    results: Sequence[Result], resamples: int, seed: int, calibrated: bool = False
) -> Analysis:
    """Concludes from results of `measured`.

    Args:
        results: of runs, failed ones too.
        resamples: of the runs, for intervals.
        seed: of the resamples.
        calibrated: whether the loss is that of the best temperature, not of the learned one.

    Raises:
        DataError: no run can be used.
    """
    sound, excluded = sound_runs(results, calibrated)
    kept, untuned = tuned_runs(sound)
    excluded |= untuned
    if not kept:
        raise DataError(f"no run of {len(results)} can be used: {'; '.join(excluded.values())}")
    laws = _Laws(kept, resamples, seed)
    told = None
    try:
        told = checked_forecast(of_one_protocol(kept))
    except DataError as error:
        laws.refused["forecast"] = str(error)
    rates = best_rates(sound)
    return Analysis(
        kept=kept,
        excluded=excluded,
        best=laws.best,
        fits=laws.fits,
        fitted_to=laws.fitted_to,
        refused=laws.refused,
        forecast=told,
        answers=answers(kept, sound, seed),
        best_rates=rates,
        rule=fitted_rule(rates),
    )


JOINT = (
    SIZE_AND_SAMPLES,
    SIZE_AND_SAMPLES_FROM_CHANCE,
    SIZE_AND_USERS,
    INTERACTIONS,
    EVERYTHING,
)


class _Laws:
    """All laws that runs say something about, and why not the others."""

    def __init__(self, kept: Sequence[Result], resamples: int, seed: int):
        self._resamples, self._seed = resamples, seed
        self.fits: dict[str, Fit] = {}
        self.fitted_to: dict[str, Tried] = {}
        self.refused: dict[str, str] = {}
        self.best = on_frontier(of_one_protocol(kept))
        for form in OF_COMPUTE:
            self._fit(form.name, form, self.best)
        for form in JOINT:
            self._fit(form.name, form, kept)
        for (size,), own in grouped(kept, ("size",)).items():
            if len({run["batch"] for run in own}) > 1:
                self._fit(f"{CRITICAL_BATCH.name}, {size}", CRITICAL_BATCH, own)

    def _fit(self, name: str, form: Form, runs: Sequence[Result]) -> None:
        try:
            own = list(runs) if form in OF_COMPUTE else comparable(runs, form)
            self.fits[name] = fit(form, points_of(own), self._resamples, self._seed)
        except DataError as error:
            self.refused[name] = str(error)
            return
        self.fitted_to[name] = tried(own)
