"""A run that starts from the parameters of another: which fit, where they come from, what stays."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from clue_jax import UserEncoder
from clue_jax.config import MeshConfig, PretrainConfig, from_json
from clue_jax.data.source import open_dataset
from clue_jax.data.tokenizer import FIRST_SERVICE_GUIDE, GENERIC_GUIDE
from clue_jax.errors import CheckpointError, ConfigError
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh
from clue_jax.training.initial import initial_params
from clue_jax.training.parameters import load_params
from clue_jax.training.state import init_state, state_shardings
from tests.company import prepare_company
from tests.stages import rows, run_stage, train_arguments
from tests.training.test_loop import fingerprints

SHORT = "--config.train.steps=2", "--config.train.log_every=1", "--config.seed=5"


@pytest.fixture(scope="module")
def company(smoke_run, company_logs, tmp_path_factory):
    """A company of services that the run never saw, with a reserved guide for each."""
    out = tmp_path_factory.mktemp("company") / "data"
    return prepare_company(company_logs, smoke_run, out, "--config.tokenizer.new_services=RESERVED")


def continued(data, source, workdir, *overrides, code=0):
    start = f"--config.init_from={source}"
    run_stage("train", *train_arguments(data, workdir, *SHORT, start, *overrides), code=code)


def config_of(run, **changes):
    config = from_json(PretrainConfig, json.loads((run / "config.json").read_text()))
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def drawn(config, vocab_size):
    lies = state_shardings(config, make_mesh(config.mesh))
    return jax.jit(lambda: init_state(config, vocab_size), out_shardings=lies)().params


def saved(run, vocab_size, step=-1):
    make = lambda: clue.init_run(config_of(run), vocab_size)  # noqa: E731
    return load_params(run / "checkpoints", make, step).parts["params"]


def test_parameters_are_the_sources_but_for_untrained_guides_and_a_fixed_temperature(
    smoke_run, company, tmp_path
):
    dataset = open_dataset(company)
    assert dataset.manifest["guides"] == {"press": 2, "query": 3, "store": 4}
    config = config_of(smoke_run, init_from=str(smoke_run), seed=5)
    config.mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    config.loss.temperature, config.loss.learn_temperature = 0.25, False
    before = drawn(config, dataset.tokenizer.vocab_size)
    found = initial_params(config, epath.Path(tmp_path), [dataset], before)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, found, before))
    expected = jax.tree.map(np.array, saved(smoke_run, dataset.tokenizer.vocab_size))
    embedding_VD = expected["encoder"]["embedding"]
    reserved = slice(GENERIC_GUIDE + 1, FIRST_SERVICE_GUIDE)
    assert (embedding_VD[reserved] != embedding_VD[GENERIC_GUIDE]).all(axis=1).all()
    embedding_VD[reserved] = embedding_VD[GENERIC_GUIDE]
    assert expected["log_scale"] != before["log_scale"]
    expected["log_scale"] = np.array(before["log_scale"])
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, found), expected)


def test_a_run_starts_where_another_ended(smoke_data, smoke_run, tmp_path, capfd):
    source = shutil.copytree(smoke_run, tmp_path / "source")
    continued(smoke_data, source, tmp_path / "run", "--config.mesh.fsdp=2")
    step, fingerprint = fingerprints(smoke_run)
    origin = json.loads((tmp_path / "run" / "init.json").read_text())
    assert origin == {"step": step, "fingerprint": fingerprint}
    assert f"starting from the parameters of step {step}" in capfd.readouterr().out
    run_stage("train", *train_arguments(smoke_data, tmp_path / "scratch", *SHORT))
    losses = [rows(tmp_path / run)[0]["loss"] for run in ("run", "scratch")]
    assert losses[0] < losses[1] - 0.05
    # From then on it is a run of its own.
    shutil.rmtree(source)
    continued(smoke_data, source, tmp_path / "run")
    assert "continuing from the checkpoint of step 2" in capfd.readouterr().out
    continued(smoke_data, tmp_path / "other", tmp_path / "run", code=4)
    assert "config.init_from: '" in capfd.readouterr().err


def test_a_run_stopped_before_it_saved_begins_at_the_same_step(smoke_data, smoke_run, tmp_path):
    dataset, source = open_dataset(smoke_data), shutil.copytree(smoke_run, tmp_path / "source")
    directory, vocab_size = epath.Path(tmp_path / "run"), dataset.tokenizer.vocab_size
    config = config_of(smoke_run, init_from=str(source), init_step=15)
    before = drawn(config, vocab_size)
    initial_params(config, directory, [dataset], before)
    config.init_step = -1  # as if the source had been trained on meanwhile
    again = initial_params(config, directory, [dataset], before)
    then, now = (float(saved(smoke_run, vocab_size, step)["log_scale"]) for step in (15, 20))
    assert float(again["log_scale"]) == then != now
    (directory / "init.json").write_text(json.dumps({"step": 20, "fingerprint": "0" * 16}))
    with pytest.raises(CheckpointError, match="began from other parameters of step 20"):
        initial_params(config, directory, [dataset], before)
    shutil.rmtree(source / "checkpoints")
    with pytest.raises(CheckpointError, match="source/checkpoints: no such directory; train first"):
        initial_params(config, directory, [dataset], before)


def test_a_continued_run_hands_its_guides_on(smoke_run, company, company_logs, tmp_path):
    run = tmp_path / "run"
    continued(company, smoke_run, run)
    own = json.loads((smoke_run / "guides.json").read_text())
    assert own == {"search": 66, "shop": 67, "news": 68}
    guides = json.loads((run / "guides.json").read_text())
    assert guides == own | {"press": 2, "query": 3, "store": 4}
    vocab_size = open_dataset(company).tokenizer.vocab_size
    embedding_VD = np.array(saved(run, vocab_size)["encoder"]["embedding"])
    learned = (embedding_VD != embedding_VD[FIRST_SERVICE_GUIDE - 1]).all(axis=1)
    assert learned[[2, 3, 4]].all() and not learned[5:FIRST_SERVICE_GUIDE].any()
    encoder, folder = UserEncoder.from_pretrained(run), tmp_path / "encoder"
    encoder.save(folder)
    shared = UserEncoder.from_pretrained(folder)
    users = [{"press": ["a red pen"], "unheard of": ["a red pen"]}]
    vectors = [e.encode_services(users) for e in (encoder, shared)]
    assert set(encoder.services) == set(guides) == set(shared.services)
    np.testing.assert_array_equal(vectors[0]["press"], vectors[1]["press"])
    assert abs(vectors[1]["press"] - vectors[1]["unheard of"]).max() > 1e-6
    # What is prepared with it gives the trained guides to their services and no other.
    names = {"query": "query", "store": "market", "press": "press"}
    later = prepare_company(company_logs, run, tmp_path / "later", services=names)
    assert open_dataset(later).manifest["guides"] == {"press": 2, "query": 3, "store": 4}
    reserved = "--config.tokenizer.new_services=RESERVED"
    later = prepare_company(company_logs, run, tmp_path / "reserved", reserved, services=names)
    assert open_dataset(later).manifest["guides"]["market"] == 5
    # With the tokenizer of the first run alone, guides would come to mean two services.
    wrong = prepare_company(company_logs, smoke_run, tmp_path / "wrong", reserved, services=names)
    assert open_dataset(wrong).manifest["guides"]["market"] == 2
    with pytest.raises(CheckpointError, match="guide 2 is of service 'press' and of 'market'"):
        initial_params(config_of(run, init_from=str(run)), run, [open_dataset(wrong)], {})
    export = f"--workdir={run}", f"--data={wrong}", f"--out={tmp_path / 'users'}"
    run_stage("export", *export, code=4)
    mixed = train_arguments(company, tmp_path / "mixed", f"--data={wrong}")
    run_stage("train", *mixed, code=ConfigError.exit_code)


def test_another_tokenizer_is_refused_with_both(smoke_data, smoke_run, tmp_path, capfd):
    source = shutil.copytree(smoke_run, tmp_path / "source")
    described = json.loads((source / "dataset.json").read_text())
    own = described["tokenizer_sha256"]
    changed = {"tokenizer_sha256": "f" * 64, "vocab_size": 1_023}
    (source / "dataset.json").write_text(json.dumps(described | changed))
    continued(smoke_data, source, tmp_path / "run", code=4)
    error = capfd.readouterr().err
    assert "f" * 12 in error and own[:12] in error and "--config.tokenizer.path=" in error
    assert "of 1,023, which" in error and f"of {described['vocab_size']:,} tokens" in error
    assert "params/encoder/embedding" in error
    assert not (tmp_path / "run" / "config.json").exists()


def test_another_shape_is_refused_by_parameter(smoke_data, smoke_run, tmp_path, capfd):
    continued(smoke_data, smoke_run, tmp_path / "run", "--config.encoder.width=64", code=4)
    error = capfd.readouterr().err
    assert "config.init_from: params['encoder']" in error and "64" in error
    continued(smoke_data, smoke_run, tmp_path / "run", "--config.loss.form=SIGMOID", code=4)
    assert "params['bias'] has shape none in" in capfd.readouterr().err


def test_what_is_no_run_is_refused(smoke_data, tmp_path, capfd):
    continued(smoke_data, tmp_path / "none", tmp_path / "run", code=4)
    assert "none/config.json: no such file" in capfd.readouterr().err
