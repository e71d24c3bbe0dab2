"""What the paper found, asked of a study's own runs, with intervals.

The paper (arXiv 2111.11294) measured each run with its own history length, and its batches changed
the negatives too, so that a longer history and a smaller batch also made the test easier; and it
does not say that learning rates were tuned again for each batch. So each question is asked twice
where these could be the answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clue_jax.evaluation.bootstrap import percentile_interval
from clue_jax.scaling.effects import Effect, Score, effect
from clue_jax.scaling.results import Result
from clue_jax.scaling.selection import grouped

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "not resolved"
CLOSELY = 0.9  # a correlation that lets one choose models by their pretraining loss
_FEWEST_CELLS = 4
_LOSSES = ("log_loss", "rmse")  # metrics of tasks that a better model lowers
_SAME_RATE = ("learning_rate", "temperature")


@dataclass(frozen=True)
class Answer:
    """One claim and what the runs say of it.

    Attributes:
        claim: of the paper.
        how: what was compared.
        verdict: confirmed where the whole interval is on the claim's side (of a correlation: at
            least `CLOSELY`, with the right sign), refuted where it is on the other, else not
            resolved.
        value: an effect on the log loss for each doubling, or a correlation.
        low, high: its 95 % interval; NaN where there are too few runs.
        runs: that it is from.
    """

    claim: str
    how: str
    verdict: str
    value: float
    low: float
    high: float
    runs: int


def answers(tuned: Sequence[Result], sound: Sequence[Result], seed: int) -> list[Answer]:
    """All questions that the runs say something about.

    Args:
        tuned: runs with the best learning rate and temperature of each experiment.
        sound: all runs that learnt something.
        seed: of resamples.
    """
    return [
        *_of_users(tuned),
        *_of_size(tuned),
        *_of_length(tuned),
        *_of_batch(tuned, sound),
        *_of_downstream(tuned, seed),
    ]


def _log_loss(run: Result) -> float:
    return math.log(run["loss"])


def _log_own_loss(run: Result) -> float:
    return math.log(run["loss_own"])


def _of_size(tuned: Sequence[Result]) -> list[Answer]:
    found = effect([{**run, "size": ""} for run in tuned], "parameters", _log_loss)
    how = "parameters doubled, the same samples"
    return _answered("larger encoders lower the loss", how, found, falls=True)


def _of_users(tuned: Sequence[Result]) -> list[Answer]:
    found = effect(tuned, "users", _log_loss)
    return _answered("more users lower the loss", "users doubled", found, falls=True)


def _of_length(tuned: Sequence[Result]) -> list[Answer]:
    found: list[Answer] = []
    for score, how in (
        (
            _log_own_loss,
            "behaviours doubled, each run measured with its own length, as in the paper",
        ),
        (_log_loss, "behaviours doubled, all runs measured with one length"),
    ):
        effects = _by_size(tuned, "behaviours", score)
        for size, told in effects:
            claim = f"longer histories lower the loss, {size}"
            found += _answered(claim, how, told, falls=True)
        found += _of_ends(effects, "longer histories help {large} more than {small}", how)
    return found


def _of_batch(tuned: Sequence[Result], sound: Sequence[Result]) -> list[Answer]:
    found: list[Answer] = []
    for runs, same, rates in (
        (sound, _SAME_RATE, "the same learning rate and temperature"),
        (tuned, (), "the best learning rate and temperature of each"),
    ):
        how = f"batch doubled, as many samples and negatives, {rates}"
        effects = _by_size(runs, "batch", _log_loss, same)
        if effects:
            claim = f"larger batches hurt the smallest encoder, {effects[0][0]}"
            found += _answered(claim, how, effects[0][1], falls=False)
        if len(effects) > 1:
            claim = f"larger batches help the largest encoder, {effects[-1][0]}"
            found += _answered(claim, how, effects[-1][1], falls=True)
        both = "batches help {large} more than {small}: both must grow together"
        found += _of_ends(effects, both, how)
    return found


def _by_size(
    runs: Sequence[Result], factor: str, score: Score, same: Sequence[str] = ()
) -> list[tuple[str, Effect]]:
    """Sizes that say something about a factor, the smallest first, and what it does to them."""
    found = ((size, effect(own, factor, score, same)) for (size,), own in _sizes(runs))
    return [(size, told) for size, told in found if told is not None]


def _of_ends(effects: Sequence[tuple[str, Effect]], claim: str, how: str) -> list[Answer]:
    """Whether a factor helps the largest encoder more than the smallest one."""
    if len(effects) < 2:
        return []
    (small, on_small), (large, on_large) = effects[0], effects[-1]
    named = claim.format(small=small, large=large)
    return _answered(named, how, on_large.minus(on_small), falls=True)


def _of_downstream(tuned: Sequence[Result], seed: int) -> list[Answer]:
    found = _correlated(tuned, "MRR of matching", lambda run: float(run["mrr"]), seed)
    tasks = {task: scores for run in tuned for task, scores in run.get("downstream", {}).items()}
    for task, scores in tasks.items():
        metric = _metric_of(scores)
        scored = [run for run in tuned if metric in run.get("downstream", {}).get(task, {})]
        name, score = f"{metric.replace('_', ' ')} of {task}", _task_score(task, metric)
        found += _correlated(scored, name, score, seed, metric in _LOSSES)
    return found


def _metric_of(scores: Mapping[str, float]) -> str:
    """The metric of a task that is most like its loss."""
    return next((metric for metric in _LOSSES if metric in scores), next(iter(scores)))


def _task_score(task: str, metric: str) -> Score:
    return lambda run: float(run["downstream"][task][metric])


def _correlated(
    runs: Sequence[Result], name: str, score: Score, seed: int, rises: bool = False
) -> list[Answer]:
    """Correlation of the log loss with a score, over means of the seeds of each cell."""
    cells = list(grouped(runs, ("cell",)).values())
    if len(cells) < _FEWEST_CELLS:
        return []
    pairs = [[(_log_loss(run), score(run)) for run in own] for own in cells]
    means_C2 = np.array([np.mean(own, axis=0) for own in pairs])
    if not (np.ptp(means_C2, axis=0) > 0).all():
        return []
    value, (low, high) = _correlation(means_C2, seed)
    sign = 1.0 if rises else -1.0
    least, most = sorted((sign * low, sign * high))
    verdict = _verdict(least - CLOSELY, most - CLOSELY, falls=False)
    claim = f"{name} follows the pretraining loss closely, r of {CLOSELY:g} or more"
    how = "correlation over runs (.978 in the paper, between losses)"
    return [Answer(claim, how, verdict, value, low, high, len(cells))]


def _correlation(pairs_C2: np.ndarray, seed: int) -> tuple[float, tuple[float, float]]:
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(1_000):
        some = pairs_C2[rng.integers(len(pairs_C2), size=len(pairs_C2))]
        if (np.ptp(some, axis=0) > 0).all():
            drawn.append(np.corrcoef(some.T)[0, 1])
    low, high = percentile_interval(np.array(drawn))
    return float(np.corrcoef(pairs_C2.T)[0, 1]), (float(low), float(high))


def _sizes(runs: Sequence[Result]) -> list[tuple[tuple[str], list[Result]]]:
    """Runs of each size, the smallest first."""
    groups = grouped(runs, ("size",))
    return sorted(groups.items(), key=lambda item: item[1][0]["parameters"])


def _answered(claim: str, how: str, found: Effect | None, falls: bool) -> list[Answer]:
    if found is None:
        return []
    verdict = _verdict(found.low, found.high, falls)
    return [Answer(claim, how, verdict, found.value, found.low, found.high, found.runs)]


def _verdict(low: float, high: float, falls: bool) -> str:
    if math.isnan(low) or low <= 0 <= high:
        return OPEN
    return CONFIRMED if (high < 0) == falls else REFUTED
