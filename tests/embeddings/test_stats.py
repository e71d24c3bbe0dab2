"""The figures of `embeddings stats`, against numpy on the whole matrix and on made-up cases."""

import itertools

import numpy as np
import pytest

from clue_jax import cli
from clue_jax.embeddings.stats import SAMPLE, describe, statistics
from tests.embeddings.exports import random_users, unit, write_export


def test_figures_are_those_of_the_whole_matrix(tmp_path):
    users = random_users(47)
    write_export(tmp_path, users)
    found, z_NE = statistics(tmp_path), users["embedding_NE"].astype(np.float64)
    np.testing.assert_allclose(found.mean_E, z_NE.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.deviation_E, z_NE.std(axis=0), atol=1e-9)
    expected = np.linalg.eigvalsh(np.cov(z_NE.T, bias=True))[::-1]
    np.testing.assert_allclose(found.variance_E, expected, atol=1e-9)
    pairs = [a @ b for a, b in itertools.combinations(z_NE, 2)]
    np.testing.assert_allclose(sorted(found.cosines), sorted(pairs), atol=1e-6)
    counts = (users["counts_NS"] > 0).sum(axis=0)
    assert found.services == dict(zip(users["services"], counts, strict=True))
    assert found.norms == pytest.approx((1, 1), abs=1e-6)


def test_a_collapsed_dimension_and_the_effective_rank(tmp_path):
    corners = np.concatenate([np.eye(4, 8), -np.eye(4, 8)])
    write_export(tmp_path, random_users(80, embedding_NE=unit(np.tile(corners, (10, 1)))))
    found = statistics(tmp_path)
    assert found.effective_rank == pytest.approx(4)
    assert found.dead.tolist() == [4, 5, 6, 7]
    text = "\n".join(describe(found))
    assert "effective rank 4.0 of 8; share of variance 25.0% in 1, 100.0% in 8" in text
    assert "dead dimensions 4: 4, 5, 6, 7" in text


def test_all_the_same_vector(tmp_path):
    write_export(tmp_path, random_users(9, embedding_NE=np.eye(1, 8).repeat(9, 0)))
    found = statistics(tmp_path)
    assert found.effective_rank == 1 and len(found.dead) == 8
    (bar,) = [line for line in describe(found) if line.endswith("#")]
    assert bar.startswith("  +1.0000 100.0% ###")


def test_the_sample_is_fixed_and_lies_over_all_parts(tmp_path):
    users = random_users(SAMPLE + 500, width=2)
    for parts in (1, 4):
        write_export(tmp_path / str(parts), users, parts)
    one, four = (statistics(tmp_path / name).cosines for name in ("1", "4"))
    assert len(one) == SAMPLE * (SAMPLE - 1) // 2
    assert np.array_equal(one, four)


def test_the_command(tmp_path, capsys):
    write_export(tmp_path / "a", random_users(30))
    assert cli.main(["embeddings", "stats", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("30 users of 8 dimensions, model model-1\n  art: ")
    assert "norms 1.000000 to 1.000000" in text and "cosine of 435 pairs" in text
    write_export(tmp_path / "none", random_users(0), parts=1)
    assert cli.main(["embeddings", "stats", str(tmp_path / "none")]) == 3
    (tmp_path / "a/model_version=model-1/part-00002-of-00003.parquet").unlink()
    assert cli.main(["embeddings", "stats", str(tmp_path / "a")]) == 3
    assert "part-00002-of-00003.parquet" in capsys.readouterr().err
