"""Training on two datasets as a person runs it."""

import json

import pytest

from clue_jax.training.checkpoint import Checkpoints
from tests.compilations import compiled_after_steps
from tests.stages import rows, run_stage, train_arguments

WEIGHTS = "--config.sampling.dataset_weights=(3,1)"


def arguments(first, second, workdir, *overrides):
    return [*train_arguments(first, workdir, *overrides), f"--data={second}"]


@pytest.fixture(scope="module")
def mixed(smoke_data, second_data, tmp_path_factory):
    """A run of 20 steps, and what had been compiled after each."""
    workdir = tmp_path_factory.mktemp("mixed") / "run"
    with compiled_after_steps() as after:
        run_stage(
            "train",
            *arguments(smoke_data, second_data, workdir, WEIGHTS, "--config.train.log_every=1"),
        )
    return workdir, after


def test_a_run_tells_what_it_drew_of_each_dataset(mixed, smoke_data, second_data):
    training = [row for row in rows(mixed[0]) if "loss" in row]
    for row in training:
        drawn = [row[f"users/{data}"] for data in (smoke_data, second_data)]
        assert sum(drawn) == 32 * row["step"] and drawn[0] == 24 * row["step"]
        epochs = [row[f"epoch/{data}"] for data in (smoke_data, second_data)]
        assert row["epoch"] == min(epochs) and epochs[0] != epochs[1]


def test_each_dataset_is_validated_and_their_mean_decides(mixed, smoke_data, second_data):
    workdir, _ = mixed
    *_, first, second, mean = (row for row in rows(workdir) if "split" in row)
    assert [first["dataset"], second["dataset"]] == [str(smoke_data), str(second_data)]
    assert {row["step"] for row in (first, second, mean)} == {20}
    for key in ("recall_at_1", "recall_at_10", "mrr"):
        assert mean[key] == pytest.approx((first[key] + second[key]) / 2)
    means = {r["step"]: r["recall_at_10"] for r in rows(workdir) if "split" in r}  # the last wins
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert means[checkpoints.best_step()] == max(means.values())
    metrics = json.loads((workdir / "checkpoints" / "20" / "metrics" / "metrics").read_text())
    assert metrics["recall_at_10"] == mean["recall_at_10"]
    checkpoints.close()


def test_nothing_compiles_after_the_first_of_everything(mixed):
    _, after = mixed
    assert list(after) == list(range(1, 21))
    assert after[1] > 0 and {after[k] for k in (2, 3, 4)} == {after[1]}
    assert {after[k] for k in range(6, 21)} == {after[5]}


def test_the_same_command_continues_and_another_order_is_refused(
    mixed, smoke_data, second_data, capfd
):
    workdir, _ = mixed
    before = rows(workdir)
    run_stage("train", *arguments(smoke_data, second_data, workdir, WEIGHTS))
    assert "continuing from the checkpoint of step 20" in capfd.readouterr().out
    assert rows(workdir) == before
    run_stage("train", *arguments(second_data, smoke_data, workdir, WEIGHTS), code=4)
    ours, theirs = (
        json.loads((data / "manifest.json").read_text())["fingerprint"]
        for data in (smoke_data, second_data)
    )
    assert f"dataset.fingerprint: '{ours}+{theirs}' -> '{theirs}+{ours}'" in capfd.readouterr().err
    equal = "--config.sampling.dataset_weights=(1,1)"
    run_stage("train", *arguments(smoke_data, second_data, workdir, equal), code=4)
    assert "dataset_weights: [3.0, 1.0] -> [1.0, 1.0]" in capfd.readouterr().err
    run_stage("train", *train_arguments(smoke_data, workdir, WEIGHTS), code=2)
    assert "2 weights for 1 --data" in capfd.readouterr().err
