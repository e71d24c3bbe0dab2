"""A plan that is really run: resumed, shared by workers, concluded and drawn; failed runs named."""

import json
import shutil

import numpy as np
import pytest

from clue_jax.config import HeldOutConfig
from clue_jax.errors import DataError
from clue_jax.scaling import runs as scaling_runs
from clue_jax.scaling.measure import Matching
from tests.stages import run_stage

SMOKE = "--config=configs/scaling/cpu.py:smoke"


def command(data, workdir, *overrides):
    # So few users teach nothing about others.
    own = "--config.held_out.split=train"
    return ("scale", SMOKE, own, f"--data={data}", f"--workdir={workdir}", *overrides)


@pytest.fixture(scope="module")
def study(smoke_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("scale") / "study"
    # A piece at a time: a worker that has no more than this begins one run.
    run_stage(*command(smoke_data, workdir, "--config.minutes=1e-6"))
    run_stage(*command(smoke_data, workdir))
    return workdir


def results_of(workdir):
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def test_a_study_in_pieces_ends_with_laws_figures_and_a_report(study, smoke_data, capsys):
    results = results_of(study)
    assert len(results) == 3 and not any("failed" in result for result in results)
    by_cell = {(r["size"], r["steps"]): r for r in results}
    small, large = by_cell["8x1", 20], by_cell["16x1", 60]
    assert 0 < small["compute"] < large["compute"] < large["compute_dense"]
    assert small["parameters"] < large["parameters"] < large["parameters_with_embedding"]
    assert large["loss"] < small["loss"] and large["loss_best_scale"] <= large["loss"]
    assert large["held_out_users"] > 8 and large["chance"] == pytest.approx(np.log(8))
    laws = {law["name"] for law in json.loads((study / "fits.json").read_text())["laws"]}
    assert "power law" in laws
    figures = {path.stem for path in (study / "figures").iterdir()}
    assert {"compute", "residuals", "downstream"} <= figures
    assert "below the paper's range" in (study / "report.md").read_text()
    assert "Questions of the paper" in (study / "report.html").read_text()
    # Again: nothing is trained, and the same is concluded.
    before = (study / "report.md").read_bytes()
    capsys.readouterr()
    run_stage(*command(smoke_data, study))
    assert "run 1 of 3" not in capsys.readouterr().out
    assert (study / "report.md").read_bytes() == before


def test_a_run_that_fails_is_tried_again_and_then_named(study, smoke_data, tmp_path, monkeypatch):
    workdir = shutil.copytree(study, tmp_path / "study")
    lost = sorted((workdir / "results").iterdir())[0]
    lost.unlink()
    tried = []

    def fails(argv, output):
        tried.append(argv)
        output.write("clue-jax train: error: a bad day\n")
        return 1

    monkeypatch.setattr(scaling_runs, "run_stage", fails)
    run_stage(*command(smoke_data, workdir, "--config.retries=2"))
    assert len(tried) == 3
    assert json.loads(lost.read_text())["failed"] == "exit code 1: clue-jax train: error: a bad day"
    report = (workdir / "report.md").read_text()
    assert f"- {lost.stem}: exit code 1" in report and report.endswith("Not yet run\n\nNone.\n")
    lost.unlink()
    monkeypatch.setattr(scaling_runs, "run_stage", lambda argv, output: 75)
    run_stage(*command(smoke_data, workdir), code=75)
    assert not lost.exists()


def test_a_run_that_another_worker_has_is_passed_over(study, smoke_data, tmp_path, capsys):
    from etils import epath

    from clue_jax.leases import lease

    workdir = shutil.copytree(study, tmp_path / "study")
    taken = sorted((workdir / "results").iterdir())[0]
    taken.unlink()
    with lease(epath.Path(workdir) / "locks" / taken.stem):
        run_stage(*command(smoke_data, workdir))
    assert "another worker is at it" in capsys.readouterr().out
    assert not taken.exists() and len(results_of(workdir)) == 2
    assert f"Not yet run\n\n- {taken.stem}\n" in (workdir / "report.md").read_text()


def test_a_plan_is_shown_with_what_its_runs_will_compute(study, smoke_data, tmp_path, capsys):
    empty = tmp_path / "other"
    known = f"--config.known=('{study / 'results.jsonl'}',)"
    run_stage(*command(smoke_data, empty, "--config.plan_only=true", known))
    shown = capsys.readouterr().out
    assert not empty.exists() and shown.count("| done |") == 3
    assert "3 runs; 0.00e+00 PF-days (0.00e+00 FLOPs) are left to compute" in shown
    # What was planned is what was executed, but for which batches the mean is over.
    for result in results_of(study):
        (line,) = (line for line in shown.splitlines() if result["run"] in line)
        assert float(line.split("|")[4]) == pytest.approx(result["compute"], rel=0.1)


def test_a_study_goes_on_from_results_made_elsewhere(study, smoke_data, tmp_path, capsys):
    lines = (study / "results.jsonl").read_text().splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join(lines[:2]))
    elsewhere = tmp_path / "elsewhere"
    # Only what is not known would be made, and for that there is no time.
    known = f"--config.known=('{tmp_path / 'some.jsonl'}',)"
    shutil.copytree(study / "results", elsewhere / "results")
    for line in lines[:2]:
        (elsewhere / "results" / f"{json.loads(line)['run']}.json").unlink()
    run_stage(*command(smoke_data, elsewhere, known))
    assert "3 runs in 2 sweeps, 2 of them known" in capsys.readouterr().out
    assert not (elsewhere / "runs").exists()
    assert results_of(elsewhere) == results_of(study)
    assert (elsewhere / "report.md").read_bytes() == (study / "report.md").read_bytes()


def test_the_loss_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    z_NSE = rng.normal(size=(11, 2, 4))
    z_NSE /= np.linalg.norm(z_NSE, axis=2, keepdims=True)
    held_out = HeldOutConfig(negatives=4)
    matching = Matching(z_NSE, np.ones((11, 2), bool), held_out)
    rows = np.random.default_rng(held_out.seed).permutation(11)[:10]
    expected = []
    for block in (rows[:5], rows[5:]):
        logits = 7.0 * z_NSE[block, 0] @ z_NSE[block, 1].T
        for directed in (logits, logits.T):
            expected += list(np.log(np.exp(directed).sum(axis=1)) - np.diag(directed))
    assert matching.loss(7.0, 4) == pytest.approx(np.mean(expected))
    assert matching.loss(1e-9, 4) == pytest.approx(np.log(5))
    with pytest.raises(DataError, match="no two services share 12 held-out users"):
        Matching(z_NSE, np.ones((11, 2), bool), HeldOutConfig(negatives=11))
