"""A run that starts from the parameters of another: which fit, where they come from, what stays."""

import json
import shutil

from tests.stages import rows, run_stage, train_arguments
from tests.training.test_loop import fingerprints

SHORT = "--config.train.steps=2", "--config.train.log_every=1", "--config.seed=5"


def continued(data, source, workdir, *overrides, code=0):
    start = f"--config.init_from={source}"
    run_stage("train", *train_arguments(data, workdir, *SHORT, start, *overrides), code=code)


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
    run_stage(
        "train",
        *train_arguments(smoke_data, tmp_path / "run", *SHORT, f"--config.init_from={source}"),
    )
    assert "continuing from the checkpoint of step 2" in capfd.readouterr().out


def test_another_tokenizer_is_refused_with_both(smoke_data, smoke_run, tmp_path, capfd):
    source = shutil.copytree(smoke_run, tmp_path / "source")
    described = json.loads((source / "dataset.json").read_text())
    own = described["tokenizer_sha256"]
    (source / "dataset.json").write_text(json.dumps(described | {"tokenizer_sha256": "f" * 64}))
    continued(smoke_data, source, tmp_path / "run", code=4)
    error = capfd.readouterr().err
    assert "f" * 12 in error and own[:12] in error and "--config.tokenizer.path=" in error
    assert not (tmp_path / "run" / "config.json").exists()


def test_another_shape_is_refused_by_parameter(smoke_data, smoke_run, tmp_path, capfd):
    continued(smoke_data, smoke_run, tmp_path / "run", "--config.encoder.width=64", code=4)
    error = capfd.readouterr().err
    assert "config.init_from: params['encoder']" in error and "64" in error


def test_what_is_no_run_is_refused(smoke_data, tmp_path, capfd):
    continued(smoke_data, tmp_path / "none", tmp_path / "run", code=4)
    assert "none/config.json: no such file" in capfd.readouterr().err
