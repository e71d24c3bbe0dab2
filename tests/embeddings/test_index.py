"""An index finds what exact search finds, says how much it misses, and belongs to one export."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clue_jax import cli, files
from clue_jax.embeddings import index, index_build
from clue_jax.embeddings.erase import erase
from clue_jax.embeddings.index import IndexSettings, open_index
from clue_jax.embeddings.index_build import build_index
from clue_jax.embeddings.reader import SEAL, read_embeddings, seal_of
from clue_jax.embeddings.search import lookalike, neighbours
from clue_jax.embeddings.verify import beside_bytes, verify
from clue_jax.errors import ConfigError, DataError, StorageError
from tests.embeddings.exports import (
    contents,
    killed_at_each_operation,
    random_users,
    write_export,
)

ROOT = Path(__file__).parents[2]
FILES = ("embedding.usearch", "embedding.ids.arrow", "embedding.index.json")


@pytest.fixture
def export(tmp_path):
    write_export(tmp_path / "export", random_users(300))
    return tmp_path / "export"


@pytest.fixture
def indexed(export):
    build_index(export, IndexSettings())
    return export


def test_it_is_a_member_of_the_export(export):
    before = contents(export)
    record = build_index(export, IndexSettings())
    after = contents(export)
    assert set(after) - set(before) == set(FILES)
    assert [name for name in before if before[name] != after[name]] == ["manifest.json"]
    manifest = read_embeddings(export).manifest
    named = {name: files.sha256_file(export / name) for name in (*FILES, "card.md")}
    assert manifest["beside"] == named
    assert files.read_json(export / FILES[2]) == record
    assert record["model_version"] == "model-1" and record["column"] == "embedding"
    assert (record["rows"], record["embedding_width"]) == (300, 8)
    assert verify(export) and sorted(p.name for p in export.parent.iterdir()) == ["export"]


def test_it_finds_what_exact_search_finds(indexed):
    for user in ("user-0", "user-7", "user-299"):
        exact, found = neighbours(indexed, user, 10), neighbours(indexed, user, 10, index=True)
        assert [name for name, _ in found] == [name for name, _ in exact]
        np.testing.assert_allclose([c for _, c in found], [c for _, c in exact], atol=1e-7)
    seeds = [f"user-{n}" for n in range(30)]
    exact, found = (lookalike(indexed, seeds, 9, 5, index=way) for way in (False, True))
    assert [name for name, _ in found.matches] == [name for name, _ in exact.matches]
    assert (found.seeds, found.unknown) == (30, 0)


def test_all_there_are(indexed):
    found = neighbours(indexed, "user-7", 1_000, index=True)
    assert [name for name, _ in found] == [name for name, _ in neighbours(indexed, "user-7", 1_000)]
    assert len(found) == 299


def test_a_graph_in_pieces_is_searched_without_links(indexed, monkeypatch):
    users = open_index(indexed)

    class Torn:
        def __init__(self, graph):
            self.get, self.graph = graph.get, graph

        def search(self, query, count, threads, exact):
            return self.graph.search(query, count if exact else 2, exact=exact)

    torn = index.UserIndex(users.ids, Torn(users.graph), users.record, users.payload)
    query_E = users.vectors(["user-3"])[0]
    assert torn.nearest(query_E, 20, []) == users.nearest(query_E, 20, [])


def test_the_bytes_of_a_graph_live_as_long_as_it(indexed, monkeypatch):
    # usearch reads the graph where it lies and does not keep the bytes: once they are gone it
    # gives anything, or the process ends.
    gone = []

    class Watched(bytes):
        def __del__(self):
            gone.append(len(self))

    monkeypatch.setattr(index, "beside_bytes", lambda *of: Watched(beside_bytes(*of)))
    users = open_index(indexed)
    gc.collect()
    graph = (indexed / ("embedding" + index.GRAPH)).stat().st_size
    assert gone and graph not in gone
    del users
    gc.collect()
    assert graph in gone


def test_an_index_of_one_service(export):
    record = build_index(export, IndexSettings(service="office"))
    present = read_embeddings(export).present["office"]
    assert record["rows"] == present.sum() < 300
    user, absent = (f"user-{np.flatnonzero(present == has)[0]}" for has in (True, False))
    exact = neighbours(export, user, 10, "office")
    assert [n for n, _ in neighbours(export, user, 10, "office", True)] == [n for n, _ in exact]
    assert exact != neighbours(export, user, 10)
    for way in (False, True):
        with pytest.raises(DataError, match=f"user '{absent}' has no vector of 'office'"):
            neighbours(export, absent, 10, "office", way)
        with pytest.raises(DataError, match="no user 'nobody' among its 300"):
            neighbours(export, "nobody", 10, "office", way)
        with pytest.raises(ConfigError, match=r"--service=shop: .* has art, office"):
            neighbours(export, user, 10, "shop", way)
    with pytest.raises(DataError, match="has no index of embedding; make one with"):
        neighbours(export, user, 10, index=True)
    build_index(export, IndexSettings())
    columns = index.index_columns(read_embeddings(export).manifest)
    assert columns == ["embedding", "embedding_office"]
    assert neighbours(export, user, 10, "office", True) and verify(export)


@pytest.mark.parametrize(("precision", "least", "error"), [("bf16", 0.9, 4e-3), ("i8", 0.6, 4e-2)])
def test_smaller_vectors(export, precision, least, error):
    exact = dict(neighbours(export, "user-7", 299))
    size = {}
    for kind in ("f32", precision):
        recall = build_index(export, IndexSettings(precision=kind))["recall"]
        size[kind] = (export / FILES[0]).stat().st_size
    assert recall["value"] > least and size[precision] < size["f32"]
    found = neighbours(export, "user-7", 10, index=True)
    np.testing.assert_allclose([c for _, c in found], [exact[n] for n, _ in found], atol=error)
    users = open_index(export)
    itself = users.nearest(users.vectors(["user-7"])[0], 1, [])
    assert itself == [("user-7", pytest.approx(1.0, abs=1e-6))]


def test_recall_is_measured(tmp_path, monkeypatch):
    """A search that gives the nearest 5 of 10 has a recall of a half; equal vectors are equal."""
    write_export(tmp_path / "export", random_users(400, width=16))
    assert build_index(tmp_path / "export", IndexSettings())["recall"] == {
        "at": 10,
        "users": 256,
        "value": pytest.approx(1.0, abs=0.02),
    }
    monkeypatch.setattr(index_build, "_BLOCK", 7)
    poor = IndexSettings(connectivity=2, expansion_add=1, expansion_search=1)
    assert build_index(tmp_path / "export", poor)["recall"]["value"] < 0.9

    class Half:
        def __init__(self, graph):
            self.graph = graph

        def __getattr__(self, name):
            return getattr(self.graph, name)

        def __len__(self):
            return len(self.graph)

        def search(self, query, count, threads):
            found = self.graph.search(query, count, exact=True)
            itself_and_five = np.full(len(query), 6)
            return SimpleNamespace(keys=found.keys, counts=itself_and_five)

    real = IndexSettings.graph
    monkeypatch.setattr(IndexSettings, "graph", lambda self, width: Half(real(self, width)))
    assert build_index(tmp_path / "export", IndexSettings())["recall"]["value"] == 0.5
    monkeypatch.undo()
    same = random_users(40, embedding_NE=np.eye(1, 8).repeat(40, 0))
    write_export(tmp_path / "same", same)
    assert build_index(tmp_path / "same", IndexSettings())["recall"]["value"] == 1.0
    found = neighbours(tmp_path / "same", "user-0", 39, index=True)
    assert found == neighbours(tmp_path / "same", "user-0", 39), "in order of id"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_next_to_nobody(tmp_path, count):
    write_export(tmp_path / "export", random_users(count), parts=1)
    record = build_index(tmp_path / "export", IndexSettings())
    assert record["recall"]["value"] == (1.0 if count == 2 else None)
    assert "not measured" in index_build.describe_index(record) or count == 2
    assert len(open_index(tmp_path / "export")) == count
    assert len(open_index(tmp_path / "export").nearest(np.eye(1, 8)[0], 3, [])) == count
    if count:
        assert len(neighbours(tmp_path / "export", "user-0", 3, index=True)) == count - 1


def test_equal_exports_give_equal_bytes_in_any_process(indexed, tmp_path):
    write_export(tmp_path / "again", random_users(300))
    command = [sys.executable, "-m", "clue_jax", "embeddings", "index", str(tmp_path / "again")]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert contents(tmp_path / "again") == contents(indexed)
    build_index(indexed, IndexSettings(expansion_add=4, connectivity=3))
    assert contents(tmp_path / "again") != contents(indexed)
    build_index(indexed, IndexSettings())
    assert contents(tmp_path / "again") == contents(indexed), "in place of the other one"


def test_killed_at_every_operation_the_export_has_the_old_index_or_the_new_one(indexed, tmp_path):
    build_index(indexed, IndexSettings(connectivity=3))
    old, states = contents(indexed), []
    copies = killed_at_each_operation(indexed, tmp_path / "kills")
    build_index(indexed, IndexSettings())
    for copy in copies:
        states.append(contents(copy))
        assert states[-1] in (old, contents(indexed)) and open_index(copy)
        build_index(copy, IndexSettings())
        assert contents(copy) == contents(indexed)
        assert [name for name in os.listdir(copy.parent) if ".lock." not in name] == ["export"]
    assert len(states) > 15 and states[0] == old and states[-1] == contents(indexed)
    assert states.count(old) < len(states) - 2, "some were killed when the new one was in place"


def test_several_threads(export):
    assert build_index(export, IndexSettings(threads=2))["recall"]["value"] > 0.95


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_index_is_refused_by_file(indexed, name):
    payload = bytearray((indexed / name).read_bytes())
    assert open_index(indexed)
    payload[len(payload) // 2] ^= 1
    (indexed / name).write_bytes(payload)
    for read in (open_index, verify, lambda path: build_index(path, IndexSettings())):
        with pytest.raises(DataError, match=f"{name}: its SHA-256 is not that of manifest.json"):
            read(indexed)
    (indexed / name).unlink()
    for read in (open_index, verify):
        with pytest.raises(DataError, match=f"{name}: .*but manifest.json names it"):
            read(indexed)


def test_an_index_of_another_export_or_model_is_refused(indexed, tmp_path):
    write_export(tmp_path / "other", random_users(300, seed=1))
    for name in FILES:
        shutil.copy(indexed / name, tmp_path / "other" / name)
    with pytest.raises(DataError, match="embedding.index.json: not named in manifest.json"):
        open_index(tmp_path / "other")
    with pytest.raises(DataError, match="embedding.ids.arrow: not a file of this export"):
        build_index(tmp_path / "other", IndexSettings())
    beside = read_embeddings(indexed).manifest["beside"]
    for model, message in (("model-1", "of other rows"), ("model-2", "of model model-1, but the")):
        shutil.rmtree(tmp_path / "other")
        others = random_users(300, seed=1, model_version=model)
        write_export(tmp_path / "other", others, beside=beside)
        for name in FILES:
            shutil.copy(indexed / name, tmp_path / "other" / name)
        with pytest.raises(DataError, match=f"embedding.index.json: .*{message}"):
            open_index(tmp_path / "other")


def test_without_usearch_the_extra_is_named(export, monkeypatch):
    before = contents(export)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    for ask in (lambda: build_index(export, IndexSettings()), lambda: open_index(export)):
        with pytest.raises(ConfigError, match=r"pip install '\.\[index\]'"):
            ask()
    assert contents(export) == before and len(neighbours(export, "user-1", 3)) == 3


def test_what_is_refused_leaves_the_export_as_it_was(export, monkeypatch):
    before = contents(export)
    with pytest.raises(ConfigError, match="--precision=f64: give one of f32, bf16, i8"):
        build_index(export, IndexSettings(precision="f64"))
    with pytest.raises(ConfigError, match="--connectivity=1: give at least 2"):
        build_index(export, IndexSettings(connectivity=1))
    with pytest.raises(ConfigError, match="--service=shop"):
        build_index(export, IndexSettings(service="shop"))

    def refuse(path, value):
        raise StorageError(f"{path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", refuse)
        with pytest.raises(StorageError):
            build_index(export, IndexSettings())
    assert contents(export) == before
    build_index(export, IndexSettings())
    assert len(open_index(export)) == 300


def test_the_commands(export, capsys):
    assert cli.main(["embeddings", "neighbours", str(export), "--user=user-3", "--index"]) == 3
    assert "has no index of embedding; make one with" in capsys.readouterr().err
    assert cli.main(["embeddings", "index", str(export), "--precision=bf16"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("indexed embedding of 300 users (8 dimensions, bf16); recall@10 against")
    ask = ["embeddings", "neighbours", "--user=user-3", "--k=4"]
    assert cli.main([*ask, "--index", str(export)]) == 0
    found = capsys.readouterr().out.splitlines()[:4]
    assert cli.main([*ask, str(export)]) == 0
    exact = capsys.readouterr().out.splitlines()[:4]
    assert [a.split("\t")[0] for a in found] == [a.split("\t")[0] for a in exact]
    assert found != exact, "cosines of rounded vectors"


def test_lookalike_with_an_index_keeps_its_minimums(indexed, tmp_path, capsys):
    (tmp_path / "seeds.txt").write_text("".join(f"user-{n}\n" for n in range(290)))
    command = ["embeddings", "lookalike", str(indexed), f"--seeds={tmp_path}/seeds.txt", "--index"]
    assert cli.main([*command, "--size=99"]) == 2
    assert "--size=99: smaller than --min_audience=100" in capsys.readouterr().err
    assert cli.main([*command, "--size=500", "--min_audience=11"]) == 2
    assert "10 users besides the seeds, fewer than --min_audience=11" in capsys.readouterr().err
    assert cli.main([*command, "--size=500", "--min_audience=10"]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "10 users like 290 seeds"
    (tmp_path / "seeds.txt").write_text("user-1\nuser-2\nnobody\n")
    assert cli.main([*command, "--size=500", "--min_audience=3"]) == 2
    assert "has 2 of 3 seeds, fewer than --min_audience=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("rows_sha256", "0" * 64, "of other rows"), ("schema_version", 2, "this program knows 1")],
)
def test_a_record_under_its_checksum_is_still_compared(indexed, key, value, message):
    """As somebody would change it who also knows all checksums."""
    files.write_json(indexed / FILES[2], {**files.read_json(indexed / FILES[2]), key: value})
    manifest = files.read_json(indexed / "manifest.json")
    manifest["beside"][FILES[2]] = files.sha256_file(indexed / FILES[2])
    files.write_json(indexed / "manifest.json", manifest | {SEAL: seal_of(manifest)})
    with pytest.raises(DataError, match=f"embedding.index.json: .*{message}"):
        open_index(indexed)


def test_users_on_a_suppression_list_are_in_no_index(export, tmp_path, capsys):
    nearest = neighbours(export, "user-7", 1)[0][0]
    (tmp_path / "list.txt").write_text(f"{nearest}\nuser-3\nnobody\n")
    assert cli.main(["embeddings", "index", str(export), f"--suppress={tmp_path}/list.txt"]) == 0
    assert "those on a list of 3 ids left out" in capsys.readouterr().out
    # The control: exact search has no list.
    assert neighbours(export, "user-7", 1)[0][0] == nearest
    found = [name for name, _ in neighbours(export, "user-7", 297, index=True)]
    everybody = {f"user-{n}" for n in range(300)}
    assert set(found) == everybody - {"user-7", nearest, "user-3"}
    with pytest.raises(DataError, match="'user-3' is not in the index"):
        neighbours(export, "user-3", 1, index=True)
    # Built again when somebody is erased, it takes nobody in.
    assert erase(export, ["user-9"]).erased == ["user-9"]
    again = open_index(export)
    assert set(again.ids.to_pylist()) == everybody - {nearest, "user-3", "user-9"}
    assert again.record["suppressed"]["ids"] == 3 and verify(export)
    missing = ["embeddings", "index", str(export), f"--suppress={tmp_path}/none.txt"]
    assert cli.main(missing) == 2 and "--suppress: " in capsys.readouterr().err
