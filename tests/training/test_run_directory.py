"""A run directory says what a run is, and refuses to become another one."""

import getpass
import json
import socket

import pytest
from etils import epath

from clue_jax.config import (
    AttentionKernel,
    PretrainConfig,
    Remat,
    SamplingConfig,
    Transport,
    to_json,
)
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.errors import CheckpointError
from clue_jax.training.run_directory import (
    MAY_CHANGE,
    MUST_MATCH,
    environment,
    may_change,
    open_run,
)


@pytest.fixture
def dataset(smoke_data):
    return open_dataset(smoke_data)


def test_it_holds_config_environment_dataset_and_tokenizer(tmp_path, dataset):
    config = PretrainConfig(seed=7)
    open_run(epath.Path(tmp_path), config, [dataset])
    assert json.loads((tmp_path / "config.json").read_text()) == to_json(config)
    described = json.loads((tmp_path / "dataset.json").read_text())
    assert described["fingerprint"] == dataset.fingerprint
    assert described["services"] == list(dataset.services)
    assert (tmp_path / "tokenizer.json").read_bytes() == (
        dataset.path / "tokenizer.json"
    ).read_bytes()
    assert json.loads((tmp_path / "environment.json").read_text())["packages"]["jax"]


def test_the_same_run_may_be_opened_again(tmp_path, dataset):
    config = PretrainConfig()
    open_run(epath.Path(tmp_path), config, [dataset])
    config.mesh.data, config.train.log_every, config.checkpoint.keep = 2, 3, 4
    # All of these compute the same.
    config.encoder.remat, config.encoder.attention = Remat.FULL, AttentionKernel.DENSE
    config.loss.tile, config.loss.transport = 7, Transport.RING
    open_run(epath.Path(tmp_path), config, [dataset])
    assert json.loads((tmp_path / "config.json").read_text())["train"]["log_every"] == 3


def test_each_changed_key_is_named_with_both_values(tmp_path, dataset):
    open_run(epath.Path(tmp_path), PretrainConfig(), [dataset])
    before = (tmp_path / "config.json").read_bytes()
    config = PretrainConfig(seed=3, sampling=SamplingConfig(token_dropout=0.25))
    with pytest.raises(CheckpointError) as refusal:
        open_run(epath.Path(tmp_path), config, [dataset])
    assert "config.seed: 0 -> 3" in str(refusal.value)
    assert "config.sampling.token_dropout: 0.0 -> 0.25" in str(refusal.value)
    assert "config.optim" not in str(refusal.value)
    assert (tmp_path / "config.json").read_bytes() == before


def keys(value, prefix=""):
    if not isinstance(value, dict):
        return [prefix]
    return [key for name in value for key in keys(value[name], f"{prefix}.{name}".lstrip("."))]


def test_the_table_of_what_may_change_has_every_setting():
    settings = keys(to_json(PretrainConfig()))
    assert len(settings) > 50
    for key in settings:
        assert key.startswith((*MAY_CHANGE, *MUST_MATCH)), f"{key}: say whether it may change"
    for start in (*MAY_CHANGE, *MUST_MATCH):
        assert any(key.startswith(start) for key in settings), f"{start}: no setting begins so"
    assert may_change("loss.tile") and may_change("train.eval_every") and may_change("mesh.fsdp")
    assert not (may_change("loss.form") or may_change("train.steps") or may_change("dataset"))


def test_another_dataset_is_refused(tmp_path, dataset, monkeypatch):
    open_run(epath.Path(tmp_path), PretrainConfig(), [dataset])
    monkeypatch.setitem(dataset.manifest, "fingerprint", "0" * 64)
    with pytest.raises(CheckpointError, match="dataset.fingerprint: '.*' -> '0000"):
        open_run(epath.Path(tmp_path), PretrainConfig(), [dataset])


def test_datasets_are_recorded_in_their_order(tmp_path, dataset):
    other = Dataset(dataset.path / "elsewhere", dict(dataset.manifest), dataset.tokenizer)
    other.manifest.update(fingerprint="f" * 64, services=["news", "books"])
    open_run(epath.Path(tmp_path), PretrainConfig(), [dataset, other])
    described = json.loads((tmp_path / "dataset.json").read_text())
    assert described["fingerprint"] == f"{dataset.fingerprint}+{'f' * 64}"
    assert described["services"] == ["search", "shop", "news", "books"]
    moved = Dataset(dataset.path / "moved", other.manifest, dataset.tokenizer)
    open_run(epath.Path(tmp_path), PretrainConfig(), [dataset, moved])
    described = json.loads((tmp_path / "dataset.json").read_text())
    assert described["path"] == [str(dataset.path), str(moved.path)]
    for others in ([dataset], [other, dataset], [dataset, other, other]):
        with pytest.raises(CheckpointError, match=r"dataset.fingerprint: '.*' -> '"):
            open_run(epath.Path(tmp_path), PretrainConfig(), others)


def test_the_environment_names_neither_host_nor_person():
    text = json.dumps(environment())
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
