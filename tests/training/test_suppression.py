"""Users on a suppression list are not learnt from, from the step at which the list is given."""

import json

import numpy as np
import pytest
from etils import epath

from clue_jax.config import DataConfig, PretrainConfig, TrainConfig
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.id_list import suppression
from clue_jax.data.source import open_dataset
from clue_jax.data.suppressed import drawable, unlisted
from clue_jax.errors import CheckpointError
from clue_jax.parallel.mesh import single_device_mesh
from clue_jax.training.suppression import record_suppression
from clue_jax.training.trained import SUPPRESSED
from tests.samples import sample_users
from tests.stages import run_stage, train_arguments

CONFIG = PretrainConfig(train=TrainConfig(batch_users=8, steps=20))


def id_file(folder, ids, name="list.txt"):
    path = folder / name
    path.write_text("".join(f"{user}\n" for user in ids))
    return str(path)


def rows_to_draw(users, steps=20):
    """Who may be drawn, after some batches have been read."""
    batches = TrainBatches([Source("x", "f" * 64, users)], CONFIG, single_device_mesh())
    members = set(batches.candidates[0].members["row"].tolist())
    for step in range(steps):
        batches.host_batch(step)
        assert set(batches.drawn(step)[0].tolist()) <= members
    return members


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_nobody_on_the_list_is_drawn_and_all_others_are(smoke_data, tmp_path, where):
    dataset = open_dataset(smoke_data)
    data = DataConfig(in_memory_mb=256 if where == "memory" else 0, cache=str(tmp_path))
    users = dataset.table("train", data)
    assert np.array_equal(
        np.concatenate(list(users.identities(7))), dataset.users("train").user_ids
    )
    everyone = rows_to_draw(users)
    gone = sorted(everyone)[::9]
    listed = dataset.users("train").user_ids[gone].tolist()
    suppressed = suppression(id_file(tmp_path, listed))
    drawn = rows_to_draw(drawable(dataset, "train", PretrainConfig(data=data), suppressed))
    assert drawn == everyone - set(gone)


def test_what_is_on_the_list_cannot_be_read_and_others_keep_their_rows():
    users = sample_users(10, seed=1)
    rest = unlisted(users, [users.user_ids[3], "somebody else"])
    assert len(rest) == 10
    assert np.concatenate([part.rows for part in rest.outlines()]).tolist() == [
        0, 1, 2, 4, 5, 6, 7, 8, 9,
    ]  # fmt: skip
    assert rest.take([4]).user_ids.tolist() == [users.user_ids[4]]
    with pytest.raises(ValueError, match="suppression list"):
        rest.take([4, 3])
    assert unlisted(users, ["somebody else"]) is users


def test_each_list_is_on_record_with_its_step_and_none_is_forgotten(tmp_path):
    run, one = epath.Path(tmp_path), id_file(tmp_path, ["a", "b"])
    more = id_file(tmp_path, ["a", "b", "c"], "more.txt")
    record_suppression(run, 0, None)
    assert not (tmp_path / SUPPRESSED).exists()
    for step, path in ((0, one), (4, one), (4, more), (6, more)):
        record_suppression(run, step, suppression(path))
    lines = [json.loads(line) for line in (tmp_path / SUPPRESSED).read_text().splitlines()]
    assert [(line["step"], line["ids"]) for line in lines] == [(0, 2), (4, 3)]
    with pytest.raises(
        CheckpointError, match="a suppression list of 3 ids.*--config.sampling.supp"
    ):
        record_suppression(run, 6, None)
    record_suppression(run, 3, suppression(one))  # from a checkpoint before the longer list
    assert len((tmp_path / SUPPRESSED).read_text().splitlines()) == 1


def test_a_run_goes_on_with_a_longer_list_and_not_without(smoke_data, tmp_path):
    users = open_dataset(smoke_data).users("train").user_ids.tolist()
    arguments = train_arguments(smoke_data, tmp_path / "run", "--config.checkpoint.every_steps=5")
    given = f"--config.sampling.suppress={id_file(tmp_path, users[:3])}"
    run_stage("train", *arguments, given)
    run_stage("train", *arguments, code=4)
    run_stage("train", *arguments, f"{given}.none", code=2)
    assert json.loads((tmp_path / "run" / SUPPRESSED).read_text())["ids"] == 3
