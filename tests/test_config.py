"""Configs survive the way through JSON, and refuse what cannot work, by key."""

import dataclasses
import enum
import importlib
import inspect
import json
import math
import pkgutil
import re
from dataclasses import dataclass, field

import pytest

from clue_jax import cli_help
from clue_jax import config as c
from clue_jax.errors import ConfigError

KINDS = [
    c.SynthesizeConfig,
    c.PrepareConfig,
    c.PretrainConfig,
    c.ExportConfig,
    c.EvaluateConfig,
    c.ScaleConfig,
]


@dataclass
class Inner:
    rate: float = 0.5
    kind: c.Activation = c.Activation.GELU


@dataclass
class Outer:
    count: int = 1
    name: str = "a"
    on: bool = False
    limit: int | None = None
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()


@pytest.mark.parametrize("kind", KINDS)
def test_json_round_trip_of_defaults(kind):
    values = json.loads(json.dumps(c.to_json(kind())))
    assert c.from_json(kind, values) == kind()


def test_json_round_trip_of_everything_a_config_may_hold():
    original = Outer(
        2, "b", True, 3, ("x", "y"), Inner(0.25, c.Activation.SWIGLU), (Inner(), Inner(1.0))
    )
    values = json.loads(json.dumps(c.to_json(original)))
    assert values["inner"]["kind"] == "swiglu"
    assert c.from_json(Outer, values) == original
    assert c.from_json(Outer, c.to_json(Outer())) == Outer()


def test_absent_keys_take_their_default():
    assert c.from_json(Outer, {"inner": {"rate": 0.1}}) == Outer(inner=Inner(rate=0.1))


def test_a_whole_number_is_a_float():
    rate = c.from_json(Outer, {"inner": {"rate": 1}}).inner.rate
    assert rate == 1.0 and isinstance(rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 1}, r"config\.cuont: no such key"),
        ({"inner": {"rat": 1}}, r"config\.inner\.rat: no such key"),
        ({"count": "1"}, r"config\.count: expected int, found '1'"),
        ({"count": 1.5}, r"config\.count: expected int"),
        ({"count": True}, r"config\.count: expected int"),
        ({"on": 1}, r"config\.on: expected bool"),
        ({"name": 1}, r"config\.name: expected str"),
        ({"limit": "a"}, r"config\.limit: expected int or none"),
        ({"names": "ab"}, r"config\.names: expected a list"),
        ({"names": ["a", 1]}, r"config\.names\[1\]: expected str"),
        ({"inner": 3}, r"config\.inner: expected an object"),
        ({"inner": {"kind": "relu"}}, r"config\.inner\.kind: 'relu' is not one of gelu, swiglu"),
        ({"many": [{}, {"rate": "x"}]}, r"config\.many\[1\]\.rate: expected float"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(values, message):
    with pytest.raises(ConfigError, match=message):
        c.from_json(Outer, values)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_have_real_types_that_flags_can_parse(kind):
    assert not [f.name for f in dataclasses.fields(kind) if isinstance(f.type, str)]


# Key -> value that cannot work; the message must name the key.
PRETRAIN = {
    "encoder.item.num_layers": -1,
    "encoder.service.num_layers": 33,
    "encoder.service.num_heads": 3,
    "encoder.embedding_width": 64,
    "encoder.max_item_tokens": 10_000,
    "encoder.max_history": 10_000,
    "encoder.item_rows": 0,
    "encoder.history_rows": -1,
    "loss.tile": 0,
    "loss.matryoshka": (4, 8),
    "sampling.behaviours_kept": 0.0,
    "sampling.token_dropout": 1.5,
    "sampling.generic_guide": -0.1,
    "sampling.layer_dropout": 1.0,
    "sampling.within_service_weight": -1.0,
    "sampling.min_behaviours": 0,
    "sampling.most_users": -1,
    "sampling.item_steps": 2_000,
    "sampling.history_schedule.start": 0,
    "sampling.history_schedule.steps": 2_000,
    "sampling.dataset_weights[1]": (1.0, 0.0),
    "data.in_memory_mb": -1,
    "train.steps": 0,
    "train.batch_users": 1,
    "loss.temperature": 0.0,
    "loss.max_logit_scale": 1.0,
    "optim.learning_rate": 0.0,
    "checkpoint.every_steps": 0,
    "checkpoint.keep": 0,
}
SYNTHESIZE = {
    "num_users": 0,
    "num_days": 0,
    "users_per_file": 0,
    "interests_per_user": 100,
    "seed": -1,
    "services": (),
    "num_topics": 1,
    "items_per_service": 3,
    "drift": 1.1,
    "missing_service": -0.1,
    "repeat": 2.0,
    "noise": -1.0,
    "zipf_exponent": -1.0,
    "mean_behaviours": 0.0,
    "behaviours_sigma": 4.0,
    "first_day": "01.02.2024",
}


EVALUATE = {
    "matching.services": ("shop", "shop"),
    "matching.splits": (),
    "matching.min_behaviours": 0,
    "matching.block": 1,
    "matching.bootstrap": 0,
    "matching.baselines": ("none_such",),
    "seed": -1,
}
PREPARE = {
    "source": "",
    "sources": (),
    "split.validation": -0.1,
    "split": c.SplitConfig(validation=0.5, test=0.5),
    "max_item_tokens": 1,
    "min_behaviours": 0,
    "min_service_behaviours": 0,
    "max_behaviours": -1,
    "max_user_share": 0.0,
    "memory_mb": 100,
    "processes": 5,
    "max_history": 0,
    "users_per_shard": 0,
    "max_bad_rows": -1,
    "max_text_bytes": 0,
    "pseudonym": c.PseudonymConfig(key_file="a", key_env="b"),
}
# The same for one source of logs.
SOURCE = {
    "path": "../a.csv",
    "format": "xls",
    "delimiter": "::",
    "service": "a b",
    "user_id": "",
    "text": "",
    "order": "position",
}


def _prepare():
    return c.PrepareConfig(source="d", sources=(c.SourceConfig(path="a.csv", service="shop"),))


def _set(config, key, value):
    *groups, name = key.partition("[")[0].split(".")
    for group in groups:
        config = getattr(config, group)
    setattr(config, name, value)


def test_defaults_are_valid():
    c.validate_pretrain(c.PretrainConfig())
    c.validate_synthesize(c.SynthesizeConfig())
    c.validate_evaluate(c.EvaluateConfig())
    c.validate_prepare(_prepare())


@pytest.mark.parametrize("key", PRETRAIN)
def test_a_training_config_that_cannot_work_names_its_key(key):
    config = c.PretrainConfig()
    config.encoder.project = key != "encoder.embedding_width"
    _set(config, key, PRETRAIN[key])
    with pytest.raises(ConfigError, match=f"{re.escape(f'config.{key}')}: ."):
        c.validate_pretrain(config)


@pytest.mark.parametrize(
    ("loss", "key"),
    [
        (c.LossConfig(temperature=1e-40), "max_logit_scale"),
        (c.LossConfig(temperature=float("nan")), "temperature"),
        (c.LossConfig(max_logit_scale=1e39), "max_logit_scale"),
        (c.LossConfig(max_logit_scale=float("nan")), "max_logit_scale"),
        (c.LossConfig(bias=-math.inf), "bias"),
    ],
)
def test_a_scale_that_overflows_is_refused(loss, key):
    with pytest.raises(ConfigError, match=f"config.loss.{key}: "):
        c.validate_pretrain(c.PretrainConfig(loss=loss))


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        (c.PairWeight("shop", "shop"), r"[1]: pairs 'shop' with itself"),
        (c.PairWeight("shop", "search"), r"[1]: search and shop have a weight already"),
        (c.PairWeight("shop", "news", -1.0), r"[1].weight: -1.0 is no weight"),
        (c.PairWeight("shop", "news", float("nan")), r"[1].weight: nan is no weight"),
    ],
)
def test_a_weight_of_a_pair_that_cannot_work_is_named(named, problem):
    config = c.PretrainConfig()
    config.sampling.pair_weights = (c.PairWeight("search", "shop", 0.0), named)
    with pytest.raises(ConfigError, match=re.escape(f"config.sampling.pair_weights{problem}")):
        c.validate_pretrain(config)


@pytest.mark.parametrize("key", SYNTHESIZE)
def test_a_generator_config_that_cannot_work_names_its_key(key):
    config = c.SynthesizeConfig()
    _set(config, key, SYNTHESIZE[key])
    with pytest.raises(ConfigError, match=f"config.{key}: ."):
        c.validate_synthesize(config)


@pytest.mark.parametrize("key", EVALUATE)
def test_an_evaluation_that_cannot_work_names_its_key(key):
    config = c.EvaluateConfig()
    _set(config, key, EVALUATE[key])
    with pytest.raises(ConfigError, match=f"config.{key.replace('.', '[.]')}: ."):
        c.validate_evaluate(config)


@pytest.mark.parametrize("key", PREPARE)
def test_a_prepare_config_that_cannot_work_names_its_key(key):
    config = _prepare()
    _set(config, key, PREPARE[key])
    with pytest.raises(ConfigError, match=f"config.{key.replace('.', '[.]')}: ."):
        c.validate_prepare(config)


@pytest.mark.parametrize("key", SOURCE)
def test_a_source_that_cannot_work_names_its_key(key):
    config = _prepare()
    _set(config.sources[0], key, SOURCE[key])
    with pytest.raises(ConfigError, match=rf"config.sources\[0\].{key}: ."):
        c.validate_prepare(config)


def test_a_window_needs_times():
    config = _prepare()
    config.start = "2024-01-01"
    c.validate_prepare(config)
    config.sources[0].timestamp = ""
    with pytest.raises(ConfigError, match=r"config.start: .*a timestamp"):
        c.validate_prepare(config)


def test_dated_and_undated_sources_do_not_mix():
    config = _prepare()
    config.sources += (c.SourceConfig(path="b.csv", service="news", timestamp=""),)
    with pytest.raises(ConfigError, match=r"config.sources: some have a timestamp"):
        c.validate_prepare(config)


def without_comment(kind):
    """Fields or members that say nothing of themselves; groups of settings have docstrings."""
    if issubclass(kind, enum.Enum):
        names = list(kind.__members__)
    else:
        names = [f.name for f in dataclasses.fields(kind) if not inspect.isclass(f.default_factory)]
    return [name for name in names if not cli_help.comments(kind).get(name)]


def kinds_of(module):
    """Dataclasses and enumerations that a module of clue_jax.config defines."""
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
    own = [kind for kind in found if kind.__module__ == module.__name__]
    return [k for k in own if dataclasses.is_dataclass(k) or issubclass(k, enum.Enum)]


def test_every_field_and_choice_says_what_it_is():
    modules = [
        importlib.import_module(f"{c.__name__}.{found.name}")
        for found in pkgutil.iter_modules(c.__path__)
    ]
    kinds = [kind for module in modules for kind in kinds_of(module)]
    assert set(KINDS) <= set(kinds)
    silent = {kind.__name__: without_comment(kind) for kind in kinds}
    assert {name: fields for name, fields in silent.items() if fields} == {}


def test_a_field_without_a_comment_is_found():
    @dataclass
    class Config:
        said: int = 1  # what it is
        silent: int = 2
        group: Inner = field(default_factory=Inner)

    assert without_comment(Config) == ["silent"]
