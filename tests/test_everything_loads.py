"""The first test of all: every module imports, every config resolves, every command has help."""

import importlib
import importlib.util
import json
from pathlib import Path

import pytest

from clue_jax import cli
from clue_jax import config as configs
from clue_jax.config import from_json, to_json
from clue_jax.errors import ConfigError

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "clue_jax").rglob("*.py")
)
CONFIG_FILES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py"))
VALIDATORS = {
    configs.SynthesizeConfig: configs.validate_synthesize,
    configs.PrepareConfig: configs.validate_prepare,
    configs.PretrainConfig: configs.validate_pretrain,
    configs.ExportConfig: configs.validate_export,
    configs.EvaluateConfig: configs.validate_evaluate,
    configs.ScaleConfig: configs.validate_scale,
}


def _load(file):
    spec = importlib.util.spec_from_file_location("config_under_test", ROOT / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_module_imports(name):
    assert importlib.import_module(name).__doc__, "a module says first what it is"


@pytest.mark.parametrize("file", CONFIG_FILES)
def test_config_resolves_in_every_variant(file):
    module = _load(file)
    assert module.VARIANTS, "VARIANTS lists what get_config takes; '' is the default"
    for variant in module.VARIANTS:
        config = module.get_config(variant)
        assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config
        VALIDATORS.get(type(config), lambda config: None)(config)
    assert module.get_config(module.VARIANTS[0]) == module.get_config(module.VARIANTS[0])


@pytest.mark.parametrize("file", CONFIG_FILES)
def test_an_unknown_variant_is_refused_by_name(file):
    with pytest.raises(ConfigError, match="none_such.*no such variant") as raised:
        _load(file).get_config("none_such")
    for variant in _load(file).VARIANTS:
        assert variant in str(raised.value)


@pytest.mark.parametrize("file", CONFIG_FILES)
def test_a_config_belongs_to_a_stage(file):
    module = _load(file)
    kinds = {type(module.get_config(variant)) for variant in module.VARIANTS}
    assert len(kinds) == 1
    assert kinds <= {stage.config for stage in cli.STAGES.values()}


@pytest.mark.parametrize("stage", cli.STAGES)
def test_command_answers_help(stage, capsys):
    assert cli.main([*stage.split(), "--help"]) == 0
    assert stage in capsys.readouterr().out


def test_default_configs_exist():
    for stage in cli.STAGES.values():
        assert not stage.default_config or (ROOT / stage.default_config).is_file()
