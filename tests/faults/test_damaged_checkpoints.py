"""A damaged checkpoint is found, put aside, and an older one used: never a wrong bit."""

import gc
import random
import shutil

import jax
import pytest
from orbax.checkpoint import v1 as ocp

from clue_jax.errors import CheckpointError
from clue_jax.training.checkpoint import NEWEST, Checkpoints
from clue_jax.training.parameters import load_params
from tests.training.test_checkpoint import abstract, flip, parts_of, same, saved

# Where a load fails, Orbax leaves an event loop behind that nobody closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


@pytest.fixture
def sound(tmp_path):
    saved(tmp_path / "sound" / "checkpoints", [None, None, None], keep=3).close()
    return tmp_path / "sound"


def cut(path, at):
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def lost(path, at):
    path.unlink()


def emptied(path, at):
    path.write_bytes(b"")


def overwritten(path, at):
    content = bytearray(path.read_bytes())
    start = int(at * len(content))
    content[start : start + 16] = bytes(len(content[start : start + 16]))
    path.write_bytes(bytes(content))


KINDS = (flip, flip, flip, cut, lost, emptied, overwritten)


def restored(run):
    checkpoints = Checkpoints(run / "checkpoints", keep=3)
    try:
        found = checkpoints.restore(abstract())
        if checkpoints.refused:
            checkpoints.quarantine()
        return found, checkpoints.steps()
    finally:
        checkpoints.close()


def test_no_wrong_bit_of_40_damages(sound, tmp_path, capsys):
    dice = random.Random(0)
    refused = 0
    for number in range(40):
        run = shutil.copytree(sound, tmp_path / f"run{number}")
        files = [p for p in sorted((run / "checkpoints" / "30").rglob("*")) if p.is_file()]
        file = dice.choice(files)
        dice.choice(KINDS)(file, dice.random())
        found, left = restored(run)
        assert same(found.parts, parts_of(found.step)), file
        # A bit of what nobody reads may change; all that is refused is put aside.
        aside = [path.name.split("-")[0] for path in (run / "quarantine").glob("*")]
        assert (found.step, left, aside) in [(30, [10, 20, 30], []), (20, [10, 20], ["30"])]
        refused += found.step == 20
        shutil.rmtree(run)
    assert refused >= 15
    assert capsys.readouterr().out.count("where reason.txt says why") == refused
    found, left = restored(sound)  # the control
    assert found.step == 30 and left == [10, 20, 30] and not (sound / "quarantine").exists()


def test_what_is_put_aside_says_why(sound):
    flip(max((sound / "checkpoints" / "30").rglob("d/*"), key=lambda path: path.stat().st_size))
    (sound / "checkpoints" / "99").mkdir()
    assert restored(sound)[0].step == 20
    aside = sorted((sound / "quarantine").iterdir())
    assert [path.name.split("-")[0] for path in aside] == ["30", "99"]
    assert all("checkpoints/" in (path / "reason.txt").read_text() for path in aside)
    assert any(path.is_file() for path in aside[0].rglob("d/*"))  # nothing of it is lost


def test_where_none_is_good_all_stay(sound):
    for step in (10, 20, 30):
        shutil.rmtree(sound / "checkpoints" / str(step) / "params")
    with pytest.raises(CheckpointError, match=r"no usable checkpoint among steps \[30, 20, 10\]"):
        restored(sound)
    assert {path.name for path in (sound / "checkpoints").iterdir()} == {"10", "20", "30"}


@pytest.mark.parametrize("in_use", [False, True])
def test_a_reader_puts_aside_only_what_nobody_works_with(sound, in_use):
    from etils import epath

    from clue_jax.leases import lease

    shutil.rmtree(sound / "checkpoints" / "30" / "params")
    read = lambda: load_params(sound / "checkpoints", lambda: parts_of(0)["params"], NEWEST)  # noqa: E731
    if in_use:
        with lease(epath.Path(sound) / "lock"):
            found = read()
    else:
        found = read()
    assert found.step == 20
    assert (sound / "checkpoints" / "30").exists() == in_use
    assert not (sound / "lock").exists()


@pytest.mark.parametrize(
    ("problem", "stays"),
    [
        (PermissionError(13, "Permission denied"), True),
        (ValueError("UNAVAILABLE: Error reading params/manifest.ocdbt"), True),
        (FileNotFoundError(2, "No such file"), False),
        (ValueError("checksum mismatch"), False),
    ],
)
def test_what_may_be_readable_another_time_is_left_where_it_is(sound, monkeypatch, problem, stays):
    load = ocp.load_checkpointables

    def fails_for_the_newest(path, *arguments):
        if path.name == "30":
            raise problem
        return load(path, *arguments)

    monkeypatch.setattr(ocp, "load_checkpointables", fails_for_the_newest)
    assert restored(sound)[0].step == 20
    assert (sound / "checkpoints" / "30").exists() == stays
    assert (sound / "quarantine").exists() != stays


def test_as_many_bytes_as_the_state_has(tmp_path):
    state = {"params": {"w": jax.random.normal(jax.random.key(0), (2_000, 1_000))}}
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state, None)
    checkpoints.wait()
    checkpoints.close()
    written = sum(path.stat().st_size for path in (tmp_path / "c").rglob("*") if path.is_file())
    assert written <= 1.02 * 8_000_000
