"""Checkpoints: bit for bit on any topology, rotated, and never silently damaged."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clue_jax.config import EncoderConfig, MeshConfig, PretrainConfig, TransformerConfig
from clue_jax.errors import CheckpointError
from clue_jax.parallel.mesh import make_mesh, replicated
from clue_jax.training.checkpoint import BEST, NEWEST, Checkpoints
from clue_jax.training.fingerprint import fingerprint, summary
from clue_jax.training.parameters import load_params
from clue_jax.training.state import init_state, state_shardings

# Where a load fails, Orbax leaves an event loop behind that nobody closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))


def parts_of(seed, devices=1):
    keys = jax.random.split(jax.random.key(seed), 3)
    parts = {
        "params": {
            "a": {"w": jax.random.normal(keys[0], (64, 16))},
            "b": jax.random.normal(keys[1], (300,)).astype(jnp.bfloat16),
        },
        "optimizer": [jnp.asarray(seed, jnp.int32), jax.random.normal(keys[2], (64, 16))],
    }
    return jax.device_put(parts, replicated(mesh_of(devices)))


def abstract(devices=1):
    whole = replicated(mesh_of(devices))
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), parts_of(0)
    )


def saved(directory, scores, keep=2, keep_best=1, devices=1):
    """Checkpoints of steps 10, 20, ... with these recalls; their parts are made from the step."""
    checkpoints = Checkpoints(directory, keep=keep, keep_best=keep_best)
    for number, score in enumerate(scores, start=1):
        metrics = None if score is None else {"recall_at_10": score}
        checkpoints.save(10 * number, parts_of(10 * number, devices), metrics)
        checkpoints.wait()
    return checkpoints


def same(tree, other):
    return jax.tree.all(
        jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), tree, other)
    )


def array_files(directory, step, part="params"):
    """Data files of a checkpoint, largest first: the arrays themselves."""
    files = [path for path in (directory / str(step) / part).rglob("d/*") if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (8, 1), (1, 8)])
def test_what_was_saved_comes_back_bit_for_bit(tmp_path, before, after):
    checkpoints = saved(tmp_path / "c", [None], devices=before)
    restored = checkpoints.restore(abstract(after))
    checkpoints.close()
    assert restored.step == 10 and same(restored.parts, parts_of(10))
    assert len(restored.parts["params"]["b"].sharding.device_set) == after


def test_a_state_moves_from_one_mesh_to_another(tmp_path):
    layer = TransformerConfig(1, 2, 16)
    encoder = EncoderConfig(width=16, embedding_width=16, item=layer, service=layer)
    config = PretrainConfig(encoder=encoder)

    def parts(**axes):
        lies = state_shardings(config, make_mesh(MeshConfig(**axes)))
        state = jax.jit(lambda: init_state(config, 50), out_shardings=lies)()
        return {"params": state.params, "optimizer": state.opt_state}

    before, after = parts(data=8), parts(fsdp=4, tensor=2)
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(10, before, None)
    checkpoints.wait()
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), after
    )
    restored = checkpoints.restore(shapes)
    checkpoints.close()
    assert same(restored.parts, before)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, restored.parts, after))


def test_the_newest_and_the_best_stay(tmp_path):
    checkpoints = saved(tmp_path / "c", [0.1, 0.9, 0.2, 0.3, 0.4])
    assert checkpoints.steps() == [20, 40, 50] and checkpoints.best_step() == 20
    assert checkpoints.restore(abstract(), BEST).step == 20
    assert checkpoints.restore(abstract(), 40).step == 40
    assert checkpoints.restore(abstract(), NEWEST).step == 50
    checkpoints.close()


def test_nothing_saved_is_no_error(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.restore(abstract()) is None and checkpoints.best_step() is None
    checkpoints.close()


def test_a_flipped_bit_is_found_and_the_older_checkpoint_used(tmp_path, capsys):
    saved(tmp_path / "c", [None, None]).close()
    found = 0
    for part in ("params", "optimizer"):
        for file in array_files(tmp_path / "c", 20, part):
            for at in (0.1, 0.5, 0.9):
                copy = tmp_path / f"copy{found}"
                shutil.copytree(tmp_path / "c", copy)
                flip(copy / file.relative_to(tmp_path / "c"), at)
                checkpoints = Checkpoints(copy, keep=2)
                restored = checkpoints.restore(abstract())
                checkpoints.close()
                # A bit in the index of the file may be one that nobody reads.
                assert same(restored.parts, parts_of(restored.step))
                found += restored.step == 10
                shutil.rmtree(copy)
    assert found >= 4
    assert "/20: " in capsys.readouterr().out
    untouched = Checkpoints(tmp_path / "c", keep=2)
    assert untouched.restore(abstract()).step == 20
    untouched.close()


def test_other_values_under_the_old_fingerprint_are_found(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "c", [None]).close()
    true_words = {part: fingerprint(tree) for part, tree in parts_of(20).items()}
    words = iter(true_words.values())
    with monkeypatch.context() as patched:
        # Readable, and of the right shapes: only the bits are not those that were meant.
        patched.setattr("clue_jax.training.checkpoint.fingerprint", lambda tree: next(words))
        checkpoints = Checkpoints(tmp_path / "c", keep=2)
        changed = parts_of(20)
        changed["params"]["a"]["w"] = changed["params"]["a"]["w"].at[3, 3].add(1e-6)
        checkpoints.save(20, changed, None)
        checkpoints.wait()
    restored = checkpoints.restore(abstract())
    checkpoints.close()
    assert restored.step == 10
    assert "params['a']['w'] does not have the bits that were saved" in capsys.readouterr().out


def test_all_damaged_names_the_steps(tmp_path):
    saved(tmp_path / "c", [None, None]).close()
    for step in (10, 20):
        for file in array_files(tmp_path / "c", step):
            file.write_bytes(b"")
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    with pytest.raises(CheckpointError, match=r"no usable checkpoint among steps \[20, 10\]"):
        checkpoints.restore(abstract())
    checkpoints.close()


def test_a_checkpoint_that_was_not_committed_is_not_seen(tmp_path):
    saved(tmp_path / "c", [None, None]).close()
    # The name that an unfinished save has until its last file is written.
    shutil.copytree(tmp_path / "c" / "20", tmp_path / "c" / "30.orbax-checkpoint-tmp")
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.steps() == [10, 20]
    checkpoints.close()


def test_a_copy_under_another_step_is_refused(tmp_path, capsys):
    saved(tmp_path / "c", [None, None]).close()
    shutil.copytree(tmp_path / "c" / "20", tmp_path / "c" / "30")
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.restore(abstract()).step == 20
    assert "c/30: holds step 20" in capsys.readouterr().out
    checkpoints.close()


def test_an_empty_directory_does_not_become_the_newest(tmp_path):
    saved(tmp_path / "c", [None]).close()
    (tmp_path / "c" / "99").mkdir()
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.restore(abstract()).step == 10
    checkpoints.close()


def test_another_models_checkpoint_is_refused(tmp_path):
    saved(tmp_path / "c", [None]).close()
    other = abstract()
    other["params"]["a"]["w"] = jax.ShapeDtypeStruct(
        (32, 16), jnp.float32, sharding=other["params"]["b"].sharding
    )
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"c/10: "):
        checkpoints.restore(other)
    checkpoints.close()


def test_parameters_are_read_alone(tmp_path):
    saved(tmp_path / "c", [0.5, 0.1]).close()
    newest = load_params(tmp_path / "c", lambda: parts_of(0)["params"], NEWEST)
    assert newest.step == 20 and list(newest.parts) == ["params"]
    assert same(newest.parts["params"], parts_of(20)["params"])
    best = load_params(tmp_path / "c", lambda: parts_of(0)["params"], BEST)
    assert best.step == 10 and best.fingerprint != newest.fingerprint
    assert best.fingerprint == summary(fingerprint(parts_of(10)["params"]))


@pytest.mark.parametrize("make", [False, True])
def test_no_checkpoint_says_to_train_first(tmp_path, make):
    if make:
        (tmp_path / "c").mkdir()
    with pytest.raises(CheckpointError, match="train first"):
        load_params(tmp_path / "c", lambda: parts_of(0)["params"], NEWEST)


def test_fingerprints_see_every_bit_and_not_the_sharding():
    tree = parts_of(3, devices=8)["params"]
    base = fingerprint(tree)
    dealt = jax.sharding.NamedSharding(mesh_of(8), jax.sharding.PartitionSpec("data"))
    assert fingerprint({"a": jax.device_put(tree["a"], dealt), "b": tree["b"]}) == base
    bits = np.asarray(tree["a"]["w"]).view(np.uint32)
    for place, bit in ((0, 0), (500, 31), (1023, 13)):
        changed = bits.copy().reshape(-1)
        changed[place] ^= np.uint32(1 << bit)
        flipped = {"a": {"w": changed.view(np.float32).reshape(64, 16)}, "b": tree["b"]}
        assert fingerprint(flipped) != base
    swapped = {**tree, "a": {"w": tree["a"]["w"][::-1]}}
    assert fingerprint(swapped) != base
