"""A plan has each run once, whoever asks for it, and refuses what cannot work by its key."""

import dataclasses

import pytest

from clue_jax.config import (
    DownstreamRuns,
    EncoderConfig,
    PretrainConfig,
    RateRule,
    ScaleConfig,
    Sweep,
    TransformerConfig,
)
from clue_jax.errors import ConfigError
from clue_jax.model.sizes import parameter_count, preset
from clue_jax.scaling.plan import planned_runs, resized
from clue_jax.scaling.results import PF_DAY
from clue_jax.scaling.runs import _time_left


def config_of(*sweeps, **changes):
    base = PretrainConfig(encoder=EncoderConfig(width=16, item=TransformerConfig(1, 1, 64)))
    return dataclasses.replace(ScaleConfig(base=base, sweeps=sweeps), **changes)


def work(run):
    """A stand-in for FLOPs of a step."""
    read = run.train.batch_users * run.encoder.max_history
    return 6.0 * read * parameter_count(run.encoder, 0)


def plan_of(config):
    return planned_runs(config, work)


def test_all_combinations_the_cheapest_first_each_once():
    runs = plan_of(
        config_of(
            Sweep("a", sizes=("16x1", "32x2"), steps=(50, 100), seeds=(0, 1)),
            Sweep("b", sizes=("32x2",), steps=(100, 400)),
        )
    )
    assert len(runs) == 9 and len({run.name for run in runs}) == 9
    assert len({run.cell for run in runs}) == 5
    both = [run for run in runs if run.sweeps == ("a", "b")]
    assert [(run.size, run.config.train.steps, run.config.seed) for run in both] == [
        ("32x2", 100, 0)
    ]
    computed = [run.compute for run in runs]
    assert computed == sorted(computed)
    assert computed[0] == pytest.approx(50 * work(runs[0].config) / PF_DAY)


def test_each_factor_reaches_its_setting():
    sweep = Sweep(
        "a",
        sizes=("64x3",),
        users=(100,),
        behaviours=(128,),
        batches=(1_024,),
        steps=(7,),
        rates=(0.5,),
        temperatures=(0.2,),
        seeds=(5,),
    )
    (run,) = plan_of(config_of(sweep, rate=RateRule(4e-3, 16, 0.5, 256, 0.5)))
    config = run.config
    assert (config.encoder.width, config.encoder.item.num_layers) == (64, 3)
    assert config.encoder.service == TransformerConfig(3, 2, 256)
    assert config.sampling.most_users == 100 and config.seed == 5
    assert config.encoder.max_history == config.encoder.row_behaviours == 128
    assert (config.train.batch_users, config.train.steps) == (1_024, 7)
    assert config.loss.temperature == 0.2
    # Half of the rule's: 4e-3 (16 / 64)^.5 (1024 / 256)^.5.
    assert config.optim.learning_rate == pytest.approx(2e-3)


def test_samples_and_budgets_say_how_many_steps_a_run_has():
    by_samples = plan_of(config_of(Sweep("a", batches=(32, 256), samples=(12_800,))))
    assert [run.config.train.steps for run in by_samples] == [50, 400]
    sizes = ("16x1", "64x2")
    by_budget = plan_of(config_of(Sweep("a", sizes=sizes, budgets=(1e-8,), seeds=(0, 1))))
    assert len({run.cell for run in by_budget}) == 2
    for run in by_budget:
        assert run.compute == pytest.approx(1e-8, rel=0.5 * work(run.config) / (1e-8 * PF_DAY))
        assert run.config.train.steps == round(1e-8 * PF_DAY / work(run.config))


def test_a_preset_lends_its_shape_alone():
    base = EncoderConfig(max_item_tokens=7)
    small = resized(base, "4M")
    assert small.max_item_tokens == 7 and small.precision is base.precision
    assert (small.width, small.item) == (preset("4M").width, preset("4M").item)


def test_other_settings_of_the_base_are_another_run():
    (one,) = plan_of(config_of(Sweep()))
    other = config_of(Sweep())
    other.base.sampling.behaviours_kept = 0.5
    assert plan_of(other)[0].name != one.name


@pytest.mark.parametrize(
    ("sweeps", "changes", "problem"),
    [
        ((), {}, "config.sweeps: name one sweep or more"),
        ((Sweep("a"), Sweep("a")), {}, "config.sweeps: a name is there twice"),
        ((Sweep(sizes=("64",)),), {}, "config.sweeps: '64' is no size such as 64x2"),
        ((Sweep(steps=(5, 0)),), {}, r"config.sweeps\[0\].steps: 0 must be positive"),
        ((Sweep(seeds=()),), {}, r"config.sweeps\[0\].seeds: name one seed"),
        ((Sweep(),), {"retries": -1}, "config.retries: -1"),
        ((Sweep(),), {"rate": RateRule(width=0)}, "config.rate.width: 0"),
        ((Sweep(batches=(1,)),), {}, "config.train.batch_users"),
        (
            (Sweep(steps=(5,), samples=(5,)),),
            {},
            r"sweeps\[0\].samples: steps and samples are both",
        ),
        ((Sweep(samples=(5,)),), {}, "sweeps: grid: samples 5 are less than a step of 256 users"),
        ((Sweep(budgets=(1e-15,)),), {}, "sweeps: grid: budgets 1e-15 are less than a step"),
        (
            (Sweep(),),
            {"downstream": DownstreamRuns(sweeps=("other",))},
            "config.downstream.sweeps: 'other' is no sweep; there are grid",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_key(sweeps, changes, problem):
    with pytest.raises(ConfigError, match=problem):
        plan_of(config_of(*sweeps, **changes))


def test_the_time_left_is_that_of_the_pace_so_far():
    assert _time_left(0.0, 9.0, 5.0) == ""
    assert _time_left(2.0, 60.0, 5.0) == "; eta 2:30"
