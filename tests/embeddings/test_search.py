"""Neighbours and look-alikes, against a sort of all cosines."""

import numpy as np
import pytest

from clue_jax import cli
from clue_jax.data.id_list import read_ids
from clue_jax.embeddings.search import lookalike, neighbours
from clue_jax.errors import ConfigError, DataError
from tests.embeddings.exports import random_users, unit, write_export

USERS = random_users(50)
VECTORS = dict(zip(USERS["user_ids"], USERS["embedding_NE"].astype(np.float64), strict=True))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "export"
    write_export(folder, USERS)
    return folder


def by_cosine(query_E, left_out):
    cosines = {user: float(z_E @ query_E) for user, z_E in VECTORS.items() if user not in left_out}
    return sorted(cosines.items(), key=lambda match: -match[1])


@pytest.mark.parametrize("k", [1, 7, 49, 90])
def test_neighbours_are_the_nearest_of_all_parts(export, k):
    found = neighbours(export, "user-31", k)
    expected = by_cosine(VECTORS["user-31"], ["user-31"])[:k]
    assert [user for user, _ in found] == [user for user, _ in expected]
    np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], atol=1e-6)


def test_equal_cosines_come_in_order_of_id(tmp_path):
    write_export(tmp_path, random_users(12, embedding_NE=np.eye(1, 8).repeat(12, 0)))
    found = [user for user, _ in neighbours(tmp_path, "user-3", 4)]
    assert found == ["user-0", "user-1", "user-10", "user-11"]


def test_an_unknown_user_is_named(export, capsys):
    assert cli.main(["embeddings", "neighbours", str(export), "--user=nobody"]) == 3
    assert "no user 'nobody' among its 50" in capsys.readouterr().err
    assert cli.main(["embeddings", "neighbours", str(export), "--user=user-3", "--k=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 3
        and lines[0].split("\t")[0] == by_cosine(VECTORS["user-3"], ["user-3"])[0][0]
    )


def test_lookalikes_are_nearest_to_the_mean_direction(export):
    seeds = ["user-2", "user-30", "user-45"]
    found = lookalike(export, [*seeds, "nobody", "user-2"], 5, 3)
    mean_E = unit(np.mean([VECTORS[seed] for seed in seeds], axis=0))
    expected = by_cosine(mean_E, seeds)[:5]
    assert [user for user, _ in found.matches] == [user for user, _ in expected]
    np.testing.assert_allclose([c for _, c in found.matches], [c for _, c in expected], atol=1e-6)
    assert (found.seeds, found.unknown) == (3, 1)


def test_small_audiences_are_refused(export):
    seeds = [f"user-{n}" for n in range(45)]
    assert len(lookalike(export, seeds[:3], 3, 3).matches) == 3
    with pytest.raises(ConfigError, match=r"--size=2: smaller than --min_audience=3"):
        lookalike(export, seeds[:3], 2, 3)
    with pytest.raises(ConfigError, match="has 2 of 3 seeds, fewer than --min_audience=3"):
        lookalike(export, [*seeds[:2], "nobody"], 9, 3)
    assert len(lookalike(export, seeds, 9, 5).matches) == 5, "all there are"
    with pytest.raises(ConfigError, match="5 users besides the seeds, fewer than"):
        lookalike(export, seeds, 9, 6)


def test_seeds_that_cancel_out(tmp_path):
    write_export(
        tmp_path, random_users(3, width=2, embedding_NE=np.array([[1, 0], [-1, 0], [0, 1]]))
    )
    with pytest.raises(DataError, match="the 2 seeds have no common direction"):
        lookalike(tmp_path, ["user-0", "user-1"], 2, 1)


def test_the_command_of_lookalikes(export, tmp_path, capsys):
    (tmp_path / "seeds.txt").write_text("user-1\r\n\n user-2\nnobody\n")
    out = tmp_path / "audience.tsv"
    command = ["embeddings", "lookalike", str(export), f"--seeds={tmp_path}/seeds.txt", "--size=4"]
    assert cli.main(command) == 2
    assert "--size=4: smaller than --min_audience=100" in capsys.readouterr().err
    assert cli.main([*command, "--min_audience=2", f"--out={out}"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"4 users like 2 seeds (1 more are not in the export), in {out}"
    lines = out.read_text().splitlines()
    assert cli.main([*command, "--min_audience=2"]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == lines and len(lines) == 4
    assert cli.main([*command, "--min_audience=2", f"--out={out}"]) == 5
    assert cli.main([*command, "--min_audience=0"]) == 2
    assert cli.main([*command[:-1], "--size=many"]) == 2
    assert cli.main([*command[:-1]]) == 2
    assert "--size is missing" in capsys.readouterr().err


def test_files_of_ids(tmp_path):
    file = tmp_path / "ids.txt"
    with pytest.raises(DataError, match=r"ids.txt: No such file"):
        read_ids(file)
    file.write_text(" b \n\na\u2028c\n")
    assert read_ids(file).ids == ["b", "a\u2028c"]
    file.write_text("b\n\na\n b\r\n")
    with pytest.raises(DataError, match=r"ids.txt: line 4 has the id of line 1 again"):
        read_ids(file)
    file.write_text("\n \n")
    with pytest.raises(DataError, match="no ids in it"):
        read_ids(file)
    file.write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"not text in UTF-8 \(byte 2\)"):
        read_ids(file)
