"""A step that is not finite changes nothing, is on record, and may not be one of many in a row."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from clue_jax.config import TrainConfig
from clue_jax.errors import NonFiniteError
from clue_jax.training.checkpoint import Checkpoints
from clue_jax.training.optim import updates_made
from clue_jax.training.skips import RECORDED_USERS, Skips
from clue_jax.training.spikes import Reason
from clue_jax.training.state import state_of
from tests.training.test_step import Trial, config_of

STOPS = TrainConfig(max_skipped=3, skip_batches="0:1")
GOOD = {"loss": 1.0, "gradient_norm": 2.0, "skipped": 0.0}


def users_of(step):
    return np.arange(4) + 4 * step


def lines(folder):
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("poison", [jnp.nan, jnp.inf, 0.0])
def test_a_step_that_is_not_finite_leaves_parameters_and_optimizer(poison):
    trial = Trial(config_of(), 2)
    state = trial.state
    embedding = state.params["encoder"]["embedding"]
    state.params["encoder"]["embedding"] = jax.tree.map(lambda a: a.at[1:].add(poison), embedding)
    before = jax.device_get((state.params, state.opt_state))
    after, metrics = trial.step(
        state_of(state.step, state.parts()), trial.batches.global_batch(0).packed
    )
    same = jax.tree.map(
        lambda a, b: np.array_equal(a, np.asarray(b), equal_nan=True),
        before,
        (after.params, after.opt_state),
    )
    assert int(after.step) == 1
    if poison:
        assert float(metrics["skipped"]) == 1 and jax.tree.all(same)
        assert updates_made(after.opt_state) == 0
    else:  # the control
        assert float(metrics["skipped"]) == 0 and not jax.tree.all(same)
        assert updates_made(after.opt_state) == 1


@pytest.mark.parametrize(
    "bad", [{"loss": np.nan, "skipped": 1.0}, {"gradient_norm": np.inf, "skipped": 1.0}]
)
def test_skipped_steps_are_on_record_with_their_users(tmp_path, bad):
    skips = Skips(epath.Path(tmp_path), 0, STOPS, users_of)
    noted = [skips.note(step, GOOD | (bad if step == 2 else {})) for step in (1, 2, 3)]
    assert noted == [False, True, False]
    (row,) = lines(tmp_path)
    assert row["step"] == 2 and row["users"] == [4, 5, 6, 7] and len(row["users_sha256"]) == 64


def test_only_the_first_users_of_a_large_batch_are_written(tmp_path):
    skips = Skips(epath.Path(tmp_path), 0, STOPS, lambda step: np.arange(5_000))
    skips.note(1, GOOD | {"loss": np.nan, "skipped": 1.0})
    assert lines(tmp_path)[0]["users"] == list(range(RECORDED_USERS))


def test_too_many_in_a_row_stop_the_run(tmp_path):
    skips = Skips(epath.Path(tmp_path), 0, STOPS, users_of)
    bad = GOOD | {"loss": np.nan, "skipped": 1.0}
    for step, metrics in enumerate([bad, bad, GOOD, bad, bad], start=1):
        skips.note(step, metrics)
    with pytest.raises(NonFiniteError, match=r"step 6: loss nan.*last of 3 steps in a row"):
        skips.note(6, bad)
    # A resumed run takes the steps after its checkpoint again.
    Skips(epath.Path(tmp_path), 4, STOPS, users_of)
    assert [row["step"] for row in lines(tmp_path)] == [1, 2, 4]


def test_a_resumed_run_counts_on_from_the_steps_before(tmp_path):
    bad = GOOD | {"loss": np.nan, "skipped": float(Reason.NOT_FINITE)}
    asked = GOOD | {"skipped": float(Reason.ASKED)}
    skips = Skips(epath.Path(tmp_path), 0, STOPS, users_of)
    for step, metrics in enumerate([bad, GOOD, bad, asked, bad], start=1):
        skips.note(step, metrics)
    again = Skips(epath.Path(tmp_path), 5, STOPS, users_of)
    assert skips.in_a_row == again.in_a_row == 2
    with pytest.raises(NonFiniteError, match=r"last of 3 steps in a row.*skip_batches=0:1,3:6"):
        again.note(6, bad)
    assert Skips(epath.Path(tmp_path), 2, STOPS, users_of).in_a_row == 0


def test_what_is_not_finite_is_never_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    good = {"params": {"a": jnp.ones(3)}, "optimizer": {"count": jnp.zeros((), jnp.int32)}}
    checkpoints.save(1, good, None)
    with pytest.raises(NonFiniteError, match=r"c/2: not written, since \['params'\]\['a'\]"):
        checkpoints.save(2, good | {"params": {"a": jnp.ones(3).at[1].set(jnp.nan)}}, None)
    checkpoints.wait()
    assert checkpoints.steps() == [1]
    checkpoints.close()
