"""Differences of two exports that were made to differ, and rotations that were made to be found."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from clue_jax import cli, files
from clue_jax.embeddings.align import align
from clue_jax.embeddings.compare import difference
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.embeddings.verify import verify
from clue_jax.errors import DataError, StorageError
from tests.embeddings.exports import random_users, unit, write_export

USERS = random_users(40)
TURN_EE = ortho_group.rvs(8, random_state=3)


def rows(users, indices, **changes):
    chosen = {k: v[indices] if isinstance(v, np.ndarray) else v for k, v in users.items()}
    return {**chosen, **changes}


@pytest.fixture
def exports(tmp_path):
    """OLD; and NEW: other users too, in another order and other parts, turned and a bit moved."""
    write_export(tmp_path / "old", USERS)
    rng = np.random.default_rng(1)
    order = rng.permutation(40)[:30]
    noise_NE = 0.05 * rng.normal(size=(30, 8))
    new = rows(USERS, order, model_version="model-2")
    new["embedding_NE"] = unit(new["embedding_NE"] @ TURN_EE.T + noise_NE)
    new["z_NSE"] = unit(new["z_NSE"] @ TURN_EE.T)
    new["user_ids"][[0, 17]] = "x", "y"
    write_export(tmp_path / "new", new, parts=4)
    return tmp_path / "old", tmp_path / "new", new


def pairs(old, new):
    """Vectors of the users of both, found one by one."""
    known = dict(zip(old.user_ids, old.embedding_NE, strict=True))
    both = [n for n, user in enumerate(new.user_ids) if user in known]
    return np.array([known[new.user_ids[n]] for n in both]), new.embedding_NE[both]


def test_differences_are_those_of_a_loop_over_users(exports):
    old, new, _ = exports
    found = difference(old, new)
    assert (found.both, found.only) == (28, (12, 2))
    assert found.versions == ("model-1", "model-2")
    old_ME, new_ME = pairs(read_embeddings(old), read_embeddings(new))
    np.testing.assert_allclose(found.cosines, (old_ME * new_ME).sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(difference(old, old).cosines, 1, atol=1e-12)


def test_the_command_of_differences(exports, tmp_path, capsys):
    old, new, _ = exports
    assert cli.main(["embeddings", "diff", str(old), str(new), "--changed=-2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "A is of model model-1, B of model-2\n28 users in both, 12 only in A, 2 "
    )
    assert "changed (cosine below -2): 0.00%" in text and "spaces of their own" in text
    write_export(tmp_path / "others", rows(USERS, [0], user_ids=np.array(["z"], object)), parts=1)
    assert cli.main(["embeddings", "diff", str(old), str(tmp_path / "others")]) == 0
    assert "0 users in both, 40 only in A, 1 only in B" in capsys.readouterr().out
    assert cli.main(["embeddings", "diff", str(old)]) == 2
    assert "give one a and one b" in capsys.readouterr().err


def test_the_share_that_changed(tmp_path, capsys):
    moved_NE = USERS["embedding_NE"].copy()
    moved_NE[:4] *= -1
    write_export(tmp_path / "a", USERS)
    write_export(tmp_path / "b", {**USERS, "embedding_NE": moved_NE})
    assert cli.main(["embeddings", "diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("both are of model model-1\n")
    assert "changed (cosine below 0.99): 10.00%" in text and "mean +0.8000" in text


def test_a_rotation_is_found_and_turns_all_columns(exports, tmp_path):
    old, new, users = exports
    found = align(old, new, tmp_path / "out")
    before, after = read_embeddings(new), read_embeddings(tmp_path / "out")
    turn_EE = np.load(tmp_path / "out/alignment.npy")
    old_ME, new_ME = pairs(read_embeddings(old), before)
    expected_EE, _ = orthogonal_procrustes(new_ME.astype(float), old_ME.astype(float))
    np.testing.assert_allclose(turn_EE, expected_EE, atol=1e-5)
    np.testing.assert_allclose(turn_EE, TURN_EE, atol=0.1)
    np.testing.assert_allclose(after.embedding_NE, before.embedding_NE @ turn_EE, atol=1e-6)
    for s, service in enumerate(after.services):
        there = after.present[service]
        assert np.array_equal(there, before.present[service])
        np.testing.assert_allclose(
            after.by_service[service][there], users["z_NSE"][there, s] @ turn_EE, atol=1e-6
        )
    old_ME, new_ME = pairs(read_embeddings(old), after)
    assert found.users == 28
    assert found.after == pytest.approx((old_ME * new_ME).sum(axis=1).mean(), abs=1e-6)
    left = np.sqrt(((old_ME - new_ME) ** 2).sum(axis=1).mean())
    assert found.residual == pytest.approx(left, abs=1e-6)
    assert found.before < 0.6 < 0.98 < found.after


def test_an_aligned_export_is_a_whole_one_and_says_what_it_is(exports, tmp_path):
    old, new, _ = exports
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/part-00000-of-00009.parquet").write_text("of a killed run")
    align(old, new, tmp_path / "out")
    assert verify(tmp_path / "out")
    manifest = read_embeddings(tmp_path / "out").manifest
    assert manifest["model_version"] == "model-2-in-space-of-model-1"
    assert (
        manifest["alignment"]["to"]["manifest_sha256"]
        == (files.read_json(old / "manifest.json")["manifest_sha256"])
    )
    assert len(manifest["parts"]) == 4 and manifest["train_seed"] == 0
    with pytest.raises(StorageError, match="already there"):
        align(old, new, tmp_path / "out")
    (tmp_path / "out/alignment.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"alignment\.npy"):
        verify(tmp_path / "out")


def test_the_command_of_alignments(exports, tmp_path, capsys):
    old, new, _ = exports
    command = ["embeddings", "align", str(old), str(new)]
    assert cli.main([*command, f"--out={tmp_path / 'out'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mean cosine of 28 users of both: ") and "residual 0.1" in lines[0]
    assert cli.main(command) == 2
    capsys.readouterr()
    assert cli.main(["embeddings", "diff", str(old), str(tmp_path / "out")]) == 0
    assert "spaces of their own" not in capsys.readouterr().out


def test_exports_that_cannot_be_compared_or_aligned(exports, tmp_path):
    old, _, _ = exports
    write_export(tmp_path / "wide", random_users(9, width=4))
    with pytest.raises(DataError, match="has 8 dimensions and .*wide 4"):
        difference(old, tmp_path / "wide")
    write_export(tmp_path / "few", rows(USERS, np.arange(7)))
    with pytest.raises(DataError, match="few: 7 of its users .* 8 dimensions need at least"):
        align(old, tmp_path / "few", tmp_path / "out")
    write_export(tmp_path / "enough", rows(USERS, np.arange(8)))
    align(old, tmp_path / "enough", tmp_path / "out")
