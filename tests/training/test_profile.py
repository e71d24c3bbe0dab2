"""A trace of the steps that were asked for, and training that is the same with it."""

import pytest

from clue_jax.config import PretrainConfig, validate_pretrain
from clue_jax.errors import ConfigError
from clue_jax.training.run_directory import may_change
from tests.stages import rows, run_stage, train_arguments


def traces(run):
    return sorted((run / "profile").rglob("*.xplane.pb"))


def test_a_range_of_steps_is_traced(smoke_run, smoke_data, tmp_path, capsys):
    run = tmp_path / "run"
    run_stage("train", *train_arguments(smoke_data, run, "--config.train.profile=4:6"))
    (trace,) = traces(run)
    assert trace.stat().st_size > 1_000 and "profile of steps 4 to 6" in capsys.readouterr().out
    assert not traces(smoke_run) and rows(run) == rows(smoke_run)


def test_a_run_that_ends_in_between_has_a_trace(smoke_data, tmp_path):
    run, short = tmp_path / "run", ("--config.train.steps=3", "--config.train.eval_every=0")
    profile = "--config.train.profile=2:90"
    run_stage("train", *train_arguments(smoke_data, run, *short, profile))
    assert len(traces(run)) == 1
    assert may_change("train.profile")


@pytest.mark.parametrize("value", ["5", "6:5", "a:b", "1:2,3:4", "1000:1001"])
def test_what_is_no_range_is_refused(value):
    config = PretrainConfig()
    config.train.profile = value
    with pytest.raises(ConfigError, match=r"train\.profile"):
        validate_pretrain(config)
    config.train.profile = "100:105"
    validate_pretrain(config)
