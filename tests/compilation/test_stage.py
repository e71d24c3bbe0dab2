"""Compiling ahead: figures of the real step on emulated devices, refusals, and a real topology."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from clue_jax.compilation import stage
from clue_jax.compilation.report import lines
from clue_jax.compilation.workload import UserProfile, assume, profile_of
from clue_jax.config import (
    EncoderConfig,
    MeshConfig,
    PretrainConfig,
    SamplingConfig,
    TrainConfig,
    TransformerConfig,
)
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError
from clue_jax.model.sizes import step_flops
from clue_jax.parallel.chips import chip_of_topology
from clue_jax.parallel.mesh import make_mesh
from tests.stages import run_stage

LAYER = TransformerConfig(2, 2, 32)
PROFILE = UserProfile(services=2, behaviours=6, items=8, tokens=4, vocabulary=64)
V5E = chip_of_topology("v5e:4x4")


def config_of(**axes):
    encoder = EncoderConfig(
        width=16,
        embedding_width=16,
        item=LAYER,
        service=LAYER,
        row_tokens=32,
        row_behaviours=64,
        item_rows=2,
        history_rows=2,
    )
    return PretrainConfig(
        encoder=encoder, mesh=MeshConfig(**axes), train=TrainConfig(batch_users=64)
    )


def workload(**axes):
    config = config_of(**axes)
    return assume(config, make_mesh(config.mesh), PROFILE)


def report(program, chip=V5E, **axes):
    return stage._attempt(workload(**axes), program, chip, "v5e:4x4", 1)


def test_a_step_is_counted_as_the_loop_counts_it():
    work = workload()
    counts = {
        "tokens": 64 * 8 * 4,
        "token_pairs": 64 * 8 * 16,
        "behaviours": 64 * 2 * 6,
        "behaviour_pairs": 64 * 2 * 36,
        "views": 128,
    }
    assert work.useful_flops() == step_flops(work.config, counts, 1)
    # 8 users x 32 tokens in chunks of 64 slots, 8 x 12 behaviours in chunks of 128.
    assert (work.item_chunks, work.view_chunks) == (5, 1)
    assert work.capacity.items == 96 and work.capacity.item_chunks > 5


@pytest.fixture(scope="module")
def dealt():
    return report("step", fsdp=4, tensor=2)


def test_the_step_of_sharded_parameters_gathers_and_scatters_each_once(dealt):
    assert dealt.mesh == {"data": 1, "fsdp": 4, "tensor": 2}
    rows = {(row["kind"], row["arrays"]): row for row in dealt.collectives}
    up, embedding = rows["all-gather", "f32[2,16,1,16]"], rows["all-gather", "f32[64,16]"]
    # Of both levels; a device sends 3/4 of what it gets.
    assert (up["devices"], up["count"], up["times"]) == (4, 2, 1)
    assert up["bytes"] == 2 * (2 * 16 * 16 * 4) * 3 // 4
    assert (embedding["devices"], embedding["count"]) == (8, 1)
    back = [row for row in dealt.collectives if row["kind"] == "reduce-scatter"]
    assert sum(row["count"] for row in back) >= 9


def test_sums_over_tensor_run_in_every_block_of_every_chunk(dealt):
    blocks = [row for row in dealt.collectives if row["arrays"] == "f32[2,32,16]"]
    assert {row["kind"] for row in blocks} == {"all-reduce"}
    assert {row["devices"] for row in blocks} == {2}
    # Layers x expected chunks of the 16 users of a group; two sums a block on the way there, two
    # when it is computed again and two of gradients.
    assert {(row["times"], row["count"]) for row in blocks} == {(2 * 9, 6)}


def test_the_figures_are_written_and_read(dealt):
    found = json.loads(json.dumps(dealt.to_json()))
    assert found["memory"]["total"] == sum(
        found["memory"][part] for part in ("state", "batch", "results", "temporaries", "code")
    )
    assert found["memory"]["usable"] == V5E.usable_hbm_bytes
    bounds = found["bounds"]
    assert bounds["compute"] == pytest.approx(found["flops"]["executed"] / 197e12)
    assert bounds["overlapped"] <= bounds["serial"] and bounds["mfu_overlapped"] <= 0.75
    text = "\n".join(lines(dealt))
    assert "8 devices, mesh fsdp 4 x tensor 2" in text and "bytes per device" in text
    assert max(map(len, text.splitlines())) <= 130


def test_the_loss_alone_has_four_products_and_its_own_traffic():
    found = report("loss")
    assert found.flops["executed"] == 4 * 2 * 64 * 64 * 16 / 8
    assert {"all-gather", "reduce-scatter"} <= {row["kind"] for row in found.collectives}
    assert any("the loss alone, without keys, 64 users" in line for line in lines(found))


def test_a_batch_that_does_not_fit_names_the_largest_that_does():
    tried = []

    def attempt(users):
        tried.append(users)
        if users > 28:
            raise stage.TooLarge(users)

    error = stage.TooLarge(2**34)
    message = stage._does_not_fit(64, error, V5E, attempt, devices=8)
    assert message.startswith("config.train.batch_users: 64 users need 16.0 GiB of each v5e device")
    assert message.endswith("the largest batch that fits: 24")
    assert tried == [32, 16, 24]
    nothing = stage._does_not_fit(64, error, V5E, _never, devices=8)
    assert "config.mesh.fsdp" in nothing


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("RESOURCE_EXHAUSTED: ... Used 1.50G of 15.75G hbm. Exceeded", 3 * 2**29),
        ("RESOURCE_EXHAUSTED: ... HLO temporaries (29.00G) exceeds available HBM", 29 * 2**30),
        ("RESOURCE_EXHAUSTED: in other words", 0),
    ],
)
def test_the_compilers_words_for_too_much_are_read(message, needed):
    assert stage._needed(RuntimeError(message)) == needed
    with pytest.raises(RuntimeError, match="INTERNAL"):
        stage._needed(RuntimeError("INTERNAL: (3.0G) exceeds"))


def _never(users):
    raise stage.TooLarge(users)


def test_what_the_chip_cannot_hold_is_too_large():
    small = dataclasses.replace(V5E, usable_hbm_bytes=1_000)
    with pytest.raises(stage.TooLarge):
        report("loss", small)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--topology=v5e:16x16", "--only=all"], "--only=all: one of step, loss"),
        (["--topology=v5e:16x16", "--items=few"], "--items=few: a number is needed"),
        (["--topology=v5e:16x16", "--slices=-1"], "--slices=-1: a number is needed"),
        (["--topology=v9:4x4"], "--topology=v9:4x4: no chip of that name"),
        ([], "--topology is missing"),
    ],
)
def test_what_cannot_work_is_refused(flags, problem, capfd):
    run_stage("compile", "--config=configs/pods.py:160M_v5e_256", *flags, code=2)
    assert problem in capfd.readouterr().err


def test_users_may_be_those_of_a_dataset(smoke_data):
    dataset = open_dataset(smoke_data)
    users, found = dataset.users("train"), profile_of([dataset], PretrainConfig())
    assert found.services == len(users.services) == dataset.users("train").counts().shape[1]
    assert 0 <= found.items - len(users.item_ids) / len(users) < 1
    assert 0 <= found.tokens - np.diff(users.token_offsets).mean() < 1
    assert found.vocabulary == dataset.manifest["vocab_size"]
    counts = users.counts()
    assert 0 <= found.behaviours - counts.sum() / (counts > 0).sum() < 1


def test_an_average_user_of_datasets_is_one_of_their_mixture(smoke_data, second_data):
    datasets = [open_dataset(path) for path in (smoke_data, second_data)]
    alone = [profile_of([dataset], PretrainConfig()) for dataset in datasets]
    found = {
        weights: profile_of(
            datasets, PretrainConfig(sampling=SamplingConfig(dataset_weights=weights))
        )
        for weights in ((), (1e6, 1.0), (1.0, 1e6), (1.0, 1.0))
    }
    assert all(profile.services == 4 for profile in found.values())
    for name in ("behaviours", "items", "tokens"):
        first, second = (getattr(profile, name) for profile in alone)
        assert getattr(found[1e6, 1.0], name) == first
        assert getattr(found[1.0, 1e6], name) == second
        assert min(first, second) <= getattr(found[()], name) <= max(first, second)
    assert alone[0].items != alone[1].items or alone[0].tokens != alone[1].tokens


def test_users_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="--tokens=0: at least 1"):
        UserProfile(tokens=0)


def test_a_real_topology(capfd, tmp_path):
    pytest.importorskip("libtpu")
    out = tmp_path / "figures.json"
    arguments = "--config=configs/pretrain.py:smoke", "--topology=v5e:2x2", f"--out={out}"
    run_stage("compile", *arguments, "--config.mesh.fsdp=2")
    assert "v5e:2x2, 4 devices, mesh data 2 x fsdp 2" in capfd.readouterr().out
    assert json.loads(out.read_text())["devices"] == 4
    assert jax.device_count() == 8, "this process still has its own devices"
