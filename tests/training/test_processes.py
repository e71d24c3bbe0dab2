"""Training by several real processes: the same run, stopped together, never waiting in vain."""

import shutil

import pytest
from etils import epath

from clue_jax.leases import lease
from tests.stages import finish_job, rows, start_job, train_arguments


def job_of(processes, *arguments):
    return start_job(processes, "clue_jax", "train", *arguments, devices=8 // processes)


@pytest.mark.parametrize(
    ("processes", "mesh"), [(2, {"data": 2, "fsdp": 2, "tensor": 2}), (4, {"fsdp": 8})]
)
def test_processes_and_meshes_do_not_change_a_run(smoke_data, smoke_run, tmp_path, processes, mesh):
    axes = [f"--config.mesh.{axis}={size}" for axis, size in mesh.items()]
    command = train_arguments(smoke_data, tmp_path / "run", *axes)
    outputs = finish_job(job_of(processes, *command))
    assert "step 20/20" in outputs[0] and "step 20/20" not in outputs[1]
    keys = ["step", "loss", "logit_scale", "gradient_norm", "learning_rate", "mrr", "truncated"]
    if mesh == {"fsdp": 8}:  # as many groups of users, so they are dealt alike
        keys += ["fill", "imbalance"]
    for ours, alone in zip(rows(tmp_path / "run"), rows(smoke_run), strict=True):
        same = {key: value for key, value in alone.items() if key in keys}
        assert {key: ours[key] for key in same} == pytest.approx(same, abs=1e-4, rel=1e-4)
    # The checkpoint is whole, and continues on another mesh in other processes.
    again = finish_job(job_of(2, *train_arguments(smoke_data, tmp_path / "run")))
    assert "continuing from the checkpoint of step 20" in again[0]


def test_what_one_process_may_not_do_all_leave_alone(smoke_data, smoke_run, tmp_path):
    workdir = shutil.copytree(smoke_run, tmp_path / "run")
    with lease(epath.Path(workdir) / "lock"):
        outputs = finish_job(job_of(2, *train_arguments(smoke_data, workdir)), code=8)
    assert "is written by" in outputs[0] or "lock" in outputs[0]
    assert "process 0 could not go on" in outputs[1]
