"""Effects that were planted are found with their sign, and claims judged by their intervals."""

import itertools

import numpy as np
import pytest

from clue_jax.scaling.effects import effect
from clue_jax.scaling.questions import CONFIRMED, OPEN, REFUTED, answers
from clue_jax.scaling.selection import sound_runs, tuned_runs
from tests.scaling.planted import result

BATCHES, SAMPLES = (32, 128, 512), 51_200


def log_loss(run):
    return float(np.log(run["loss"]))


def batch_runs(on_small, on_large, rates=(1e-3,)):
    """Losses times 2^(effect x doublings of the batch), at the same samples."""
    runs = []
    for (size, slope), batch, rate, seed in itertools.product(
        (("16x1", on_small), ("256x2", on_large)), BATCHES, rates, (0, 1)
    ):
        effect_of = np.exp(slope * np.log2(batch / 32)) * (1.0 if rate == rates[0] else 1.2)
        run = result(size, SAMPLES // 32, seed, effect=effect_of, noise=0.004)
        named = {"batch": batch, "steps": SAMPLES // batch, "learning_rate": rate}
        cell = f"{size}-{batch}-{rate}"
        runs.append(run | named | {"cell": cell, "run": f"{cell}-{seed}"})
    return runs


def answered(runs):
    sound = sound_runs(runs, calibrated=False)[0]
    return answers(tuned_runs(sound)[0], sound, seed=0)


def test_an_effect_is_that_of_a_doubling_all_else_equal():
    runs = sound_runs(batch_runs(0.04, -0.06), calibrated=False)[0]
    of = {size: [run for run in runs if run["size"] == size] for size in ("16x1", "256x2")}
    small, large = (effect(of[size], "batch", log_loss) for size in of)
    assert small.value == pytest.approx(0.04, abs=0.004)
    assert large.value == pytest.approx(-0.06, abs=0.004)
    assert small.low < 0.04 < small.high and large.low < -0.06 < large.high
    between = large.minus(small)
    assert between.low < -0.1 < between.high < 0 and between.runs == 12
    # Steps differ with the batch; a group is one of as many samples.
    assert effect(of["16x1"], "users", log_loss) is None
    alone = effect([of["16x1"][0], of["16x1"][2]], "batch", log_loss)
    assert np.isnan(alone.low) and alone.runs == 2


def test_claims_are_confirmed_refuted_or_left_open():
    verdict = {a.claim: a.verdict for a in answered(batch_runs(0.04, -0.06))}
    assert verdict["larger batches hurt the smallest encoder, 16x1"] == CONFIRMED
    assert verdict["larger batches help the largest encoder, 256x2"] == CONFIRMED
    both = "batches help 256x2 more than 16x1: both must grow together"
    assert verdict[both] == CONFIRMED
    other = {a.claim: a.verdict for a in answered(batch_runs(-0.04, 0.06))}
    assert other["larger batches hurt the smallest encoder, 16x1"] == REFUTED
    assert other[both] == REFUTED
    neither = {a.claim: a.verdict for a in answered(batch_runs(0.0, 0.0))}
    assert neither["larger batches hurt the smallest encoder, 16x1"] == OPEN


def test_batches_are_compared_at_one_rate_and_at_the_best_of_each():
    found = answered(batch_runs(0.04, -0.06, rates=(1e-3, 4e-3)))
    hurts = [a for a in found if a.claim.startswith("larger batches hurt")]
    assert ["the same" in a.how for a in hurts] == [True, False]
    # Both rates of each, and the better one of each.
    assert [a.runs for a in hurts] == [12, 6]


def test_lengths_are_asked_about_with_their_own_length_and_with_one():
    runs = []
    for length, seed in itertools.product((4, 8, 16), (0, 1)):
        run = result("64x2", 400, seed, noise=0.003) | {"behaviours": length}
        run["loss_own"] = run["loss"] * 2.0 ** (-0.1 * np.log2(length / 4))
        cell = f"t{length}"
        # The seeds of one length draw other noise than those of another.
        jitter = np.exp(0.003 * np.random.default_rng([length, seed]).normal())
        runs.append(run | {"loss": run["loss"] * jitter, "cell": cell, "run": f"{cell}-{seed}"})
    own, fixed = [a for a in answered(runs) if a.claim.startswith("longer histories")]
    assert "own length" in own.how and own.verdict == CONFIRMED
    assert fixed.verdict == OPEN and abs(fixed.value) < 0.01


def test_scores_of_tasks_are_correlated_with_the_loss():
    runs = [
        result("64x2", steps) | {"downstream": {"favourite": {"accuracy": 1 / steps, "other": 0}}}
        for steps in (100, 200, 400, 800, 1_600)
    ]
    found = {a.claim: a for a in answered(runs)}
    task = found["accuracy of favourite follows the pretraining loss closely, r of 0.9 or more"]
    # Here a lower loss comes with a lower accuracy.
    assert task.value > 0.5 and task.verdict == REFUTED and task.runs == 5
    # One that was not scored on the task says nothing of it.
    runs.append(result("64x2", 3_200) | {"downstream": {"spend": {"r2": 0.5}}})
    assert {a.claim: a.runs for a in answered(runs)}[task.claim] == 5
    for run in runs[:5]:
        run["downstream"]["favourite"]["log_loss"] = run["loss"] + 0.1
    losses = {a.claim: a for a in answered(runs)}
    task = losses["log loss of favourite follows the pretraining loss closely, r of 0.9 or more"]
    assert task.value > 0.95 and task.verdict == CONFIRMED
    assert (
        found["MRR of matching follows the pretraining loss closely, r of 0.9 or more"].verdict
        == CONFIRMED
    )
