"""A dataset that is damaged, mixed or newer: refused with 3 by every stage, before it compiles."""

import json
import pathlib
import random
import shutil

import numpy as np
import pytest

from clue_jax.data.source import open_dataset
from clue_jax.errors import DataError
from tests.data.test_source import flipped, replace_shard, rewrite_manifest
from tests.faults.logs import prepare, write
from tests.stages import run_stage, train_arguments


@pytest.fixture
def copy(smoke_data, tmp_path):
    return pathlib.Path(shutil.copytree(smoke_data, tmp_path / "copy"))


def shard_of(data, split):
    return next((data / "users").glob(f"users-{split}*"))


def flip(shard):
    shard.write_bytes(flipped(shard.read_bytes(), random.Random(1)))


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-7])


def lose(shard):
    shard.unlink()


def refused(stage, copy, smoke_run, tmp_path, capfd, *flags):
    """The error of a stage that ends with 3 and has compiled and left nothing."""
    out = tmp_path / "out"
    command = {
        "train": train_arguments(copy, out),
        "export": [f"--workdir={smoke_run}", f"--data={copy}", f"--out={out}"],
    }[stage]
    run_stage(stage, *command, *flags, code=3)
    output = capfd.readouterr()
    assert "compiled" not in output.out
    assert not (out / "checkpoints").exists() and not (out / "manifest.json").exists()
    return output.err.splitlines()[-1]


STAGES = ("train", "export")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("damage", [flip, cut, lose])
def test_a_damaged_shard_is_named(copy, smoke_run, tmp_path, capfd, stage, damage):
    shard = shard_of(copy, "train")
    damage(shard)
    assert str(shard) in refused(stage, copy, smoke_run, tmp_path, capfd)


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_does_not_read_is_compared_if_told_so(copy, smoke_run, tmp_path, capfd, stage):
    shard = next((copy / "items").glob("items-items*"))
    flip(shard)
    verify = "--config.data.verify=true" if stage == "train" else "--config.verify=true"
    error = refused(stage, copy, smoke_run, tmp_path, capfd, verify)
    assert f"{shard}: contents differ from those in manifest.json" in error


def test_a_shard_of_another_dataset_of_the_same_size_is_found(tmp_path):
    """Only its checksum tells: the same users, counts and sizes, but other words."""
    for name, word in (("one", "red"), ("two", "tan")):
        rows = [(f"u{n % 9}", 1_600_000_000 + n, f"{word} {n % 4}") for n in range(90)]
        write(tmp_path / f"logs_{name}" / "x.csv", rows)
        prepare(tmp_path / f"logs_{name}", tmp_path / name)
    one, two = shard_of(tmp_path / "one", "train"), shard_of(tmp_path / "two", "train")
    assert one.stat().st_size == two.stat().st_size and one.read_bytes() != two.read_bytes()
    open_dataset(tmp_path / "one").users("train")
    shutil.copy(two, one)
    with pytest.raises(DataError, match=rf"{one}: contents differ .* another dataset's"):
        open_dataset(tmp_path / "one").users("train")
    with pytest.raises(DataError, match=f"{one}: contents differ"):
        open_dataset(tmp_path / "one", verify=True)


def counts_disagree(copy):
    def change(manifest):
        manifest["splits"]["train"]["behaviours"]["shop"] += 1

    rewrite_manifest(copy, change)
    return "split 'train' holds"


def token_outside(copy):
    """The same records, and a vocabulary one smaller than their largest token."""
    largest = int(open_dataset(copy).users("train").tokens.max())
    text = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    kept = {token: n for token, n in vocabulary.items() if n < largest}
    text["model"]["vocab"] = kept
    text["model"]["merges"] = [m for m in text["model"]["merges"] if "".join(m) in kept]
    (copy / "tokenizer.json").write_text(json.dumps(text))
    from clue_jax.data import tokenizer

    found = tokenizer.load(copy / "tokenizer.json")
    assert found.vocab_size == largest

    def change(manifest):
        manifest |= {"tokenizer_sha256": found.identity, "vocab_size": found.vocab_size}

    rewrite_manifest(copy, change)
    return f"token id {largest} is not in the vocabulary of {largest:,}"


def records_swapped(copy):
    """The shard of another split under this name, size and checksum."""
    payload = shard_of(copy, "test").read_bytes()
    replace_shard(copy, f"users/{shard_of(copy, 'train').name}", payload)
    return "records, but manifest.json says"


def newer(copy):
    (copy / "manifest.json").write_text(json.dumps({"schema_version": 99}))
    return "schema_version 99 is newer than 1, the newest this program reads"


@pytest.mark.parametrize("contradict", [counts_disagree, token_outside, records_swapped, newer])
def test_contradictions_are_refused_before_anything_compiles(
    copy, smoke_run, tmp_path, capfd, contradict
):
    problem = contradict(copy)
    assert problem in refused("train", copy, smoke_run, tmp_path, capfd)


def test_a_sound_copy_passes(copy, smoke_data):
    """The control."""
    one, other = (open_dataset(path, verify=True).users("train") for path in (copy, smoke_data))
    np.testing.assert_array_equal(one.tokens, other.tokens)
