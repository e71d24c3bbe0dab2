"""Users that are erased are gone, the others keep their bytes, at every instant."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from clue_jax import cli, files, leases
from clue_jax.embeddings.erase import erase
from clue_jax.embeddings.index import IndexSettings, open_index
from clue_jax.embeddings.index_build import build_index
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.embeddings.search import neighbours
from clue_jax.embeddings.verify import verify
from clue_jax.errors import ConfigError, DataError, LockedError, StorageError
from clue_jax.exporting.folder import is_export
from tests.embeddings.exports import (
    bytes_under,
    contents,
    killed_at_each_operation,
    random_users,
    write_export,
)

FIRST, SECOND, THIRD = (f"model_version=model-1/part-0000{k}-of-00003.parquet" for k in range(3))


@pytest.fixture
def export(tmp_path):
    write_export(tmp_path / "export", random_users(30))
    return tmp_path / "export"


def audit(folder):
    return [json.loads(line) for line in (folder / "erasures.jsonl").read_text().splitlines()]


def ids_of(folder):
    return read_embeddings(folder).user_ids.tolist()


def test_erased_users_are_gone_and_the_rest_is_as_it_was(export):
    before = {name: (export / name).read_bytes() for name in (FIRST, SECOND, THIRD)}
    old = read_embeddings(export)
    done = erase(export, ["user-1", "user-29", "nobody"])
    assert (done.erased, done.unknown) == (["user-1", "user-29"], ["nobody"])
    assert done.parts == [FIRST, THIRD]
    kept = np.flatnonzero(~np.isin(old.user_ids.astype(str), done.erased))
    new = read_embeddings(export)
    assert new.user_ids.tolist() == old.user_ids[kept].tolist() and len(new) == 28
    assert np.array_equal(new.embedding_NE, old.embedding_NE[kept])
    for service in old.services:
        assert np.array_equal(new.by_service[service], old.by_service[service][kept])
        assert np.array_equal(new.counts[service], old.counts[service][kept])
    assert (export / SECOND).read_bytes() == before[SECOND]
    assert b"user-29" not in bytes_under(export)
    assert b"user-29" in before[THIRD], "as the greatest id of its part it is in the footer"
    assert verify(export)
    assert os.listdir(export.parent) == ["export"]


def test_a_page_beside_the_export_goes_as_well(export):
    page, other = (export.parent / f"{name}.report.html" for name in ("export", "exported"))
    page.write_text("a map of everybody")
    other.write_text("the control")
    erase(export, ["user-1"])
    assert not page.exists() and other.exists()


def test_the_audit_record_has_hashes_alone(export):
    erase(export, ["user-1"])
    erase(export, ["user-1", "user-2"])
    one, two = audit(export)
    digest = {n: files.sha256_text(f"user-{n}") for n in (1, 2)}
    assert (one["erased_sha256"], one["unknown_sha256"]) == ([digest[1]], [])
    assert (two["erased_sha256"], two["unknown_sha256"]) == ([digest[2]], [digest[1]])
    assert one["parts"] == two["parts"] == [FIRST] and one["time"] <= two["time"]
    assert read_embeddings(export).manifest["users_erased"] == 2
    record = export / "erasures.jsonl"
    record.write_text(record.read_text().replace(digest[1], digest[2]))
    with pytest.raises(DataError, match=r"erasures.jsonl: its SHA-256"):
        verify(export)
    with pytest.raises(DataError, match=r"erasures.jsonl: its SHA-256"):
        erase(export, ["user-3"])


def test_all_users_of_a_part_or_of_an_export(export):
    erase(export, [f"user-{n}" for n in range(10)])
    assert verify(export) and len(ids_of(export)) == 20
    erase(export, [f"user-{n}" for n in range(30)])
    assert verify(export) and ids_of(export) == []


def test_an_export_that_is_run_again_does_not_take_up_an_erased_one(export):
    assert is_export(export, "export-1"), "it would an undisturbed one"
    erase(export, ["nobody"])
    assert is_export(export, "export-1")
    erase(export, ["user-1"])
    assert is_export(export) and not is_export(export, "export-1")


def test_card_and_statistics_are_those_of_who_is_left(export):
    before = read_embeddings(export)
    erase(export, ["user-1", "user-29"])
    after = read_embeddings(export)
    assert "28 users of 8 dimensions" in (export / "card.md").read_text()
    assert "2 users were erased" in (export / "card.md").read_text()
    found = after.manifest["statistics"]
    np.testing.assert_allclose(found["mean"], after.embedding_NE.mean(axis=0), atol=1e-7)
    assert abs(np.subtract(found["mean"], before.manifest["statistics"]["mean"])).max() > 1e-3


def test_killed_at_every_operation_it_is_the_old_export_or_the_new_one(export, tmp_path):
    gone, everybody = ["user-1", "user-29"], ids_of(export)
    build_index(export, IndexSettings())
    copies = killed_at_each_operation(export, tmp_path / "kills", *gone)
    erase(export, gone)
    rest, states = ids_of(export), []
    records = {"manifest.json", "erasures.jsonl"}
    kept = {name: value for name, value in contents(export).items() if name not in records}
    assert len(kept) == 3 + 3 + 2, "parts, files of the index, card.md and _SUCCESS"
    for copy in copies:
        states.append(ids_of(copy))
        assert states[-1] in (everybody, rest)
        assert open_index(copy).ids.to_pylist() == states[-1]
        erase(copy, gone)
        assert ids_of(copy) == rest and verify(copy)
        assert kept.items() <= contents(copy).items()
        assert gone[1].encode() not in bytes_under(copy.parent)
        # A lock that was being made holds nobody.
        left = [name for name in os.listdir(copy.parent) if ".lock." not in name]
        assert left == ["export"]
    assert len(states) > 15 and states[0] == everybody and states[-1] == rest
    assert states.count(rest) > 2, "some were killed after the new one was in place"


def _contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_without_links_files_are_copied(export, monkeypatch):
    reference = shutil.copytree(export, export.parent / "reference")
    erase(reference, ["user-1"])

    def link(source, target, real=os.link):
        if ".lock" not in str(target):
            raise PermissionError(1, "Operation not permitted")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    erase(export, ["user-1"])
    for name in (FIRST, SECOND, THIRD):
        assert (export / name).read_bytes() == (reference / name).read_bytes()


def test_vectors_and_ids_are_gone_from_every_index(export, tmp_path):
    for service in ("", "office"):
        build_index(export, IndexSettings(service=service, connectivity=5))
    old, gone = read_embeddings(export), ["user-1", "user-29"]
    rows = np.flatnonzero(np.isin(old.user_ids.astype(str), gone))
    assert old.present["office"][rows].all()
    stored = [
        ("embedding", [old.embedding_NE[row].tobytes() for row in rows]),
        ("embedding_office", [old.by_service["office"][row].tobytes() for row in rows]),
    ]
    for column, vectors in stored:
        assert all(v in (export / f"{column}.usearch").read_bytes() for v in vectors)
        assert all(u.encode() in (export / f"{column}.ids.arrow").read_bytes() for u in gone)
    erase(export, gone)
    left = bytes_under(tmp_path)
    assert not any(vector in left for _, vectors in stored for vector in vectors)
    assert not any(f'{user}"'.encode() in left for user in gone) and b"user-29" not in left
    # What is left is what an index of the others has, built by somebody who never saw them.
    twin = shutil.copytree(export, tmp_path / "twin")
    for service in ("", "office"):
        build_index(twin, IndexSettings(service=service, connectivity=5))
        users = open_index(export, service)
        assert not set(gone) & set(users.ids.to_pylist())
        assert len(users) == (28 if not service else old.present["office"].sum() - 2)
    assert contents(twin) == contents(export)
    assert verify(export) and len(neighbours(export, "user-2", 99, index=True)) == 27


def test_an_index_stays_where_nobody_was_erased(export):
    build_index(export, IndexSettings())
    before = (export / "embedding.usearch").stat().st_ino
    erase(export, ["nobody"])
    assert (export / "embedding.usearch").stat().st_ino == before and len(open_index(export)) == 30


def test_without_usearch_an_index_cannot_keep_anybody(export, monkeypatch):
    build_index(export, IndexSettings())
    before = bytes_under(export)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[index\]'"):
        erase(export, ["user-1"])
    assert bytes_under(export) == before


def test_through_a_link_and_from_inside(export, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(export)
    assert erase(tmp_path / "link", ["user-1"]).erased == ["user-1"]
    assert (tmp_path / "link").is_symlink() and len(ids_of(export)) == 29
    monkeypatch.chdir(export)
    assert erase(".", ["user-2"]).erased == ["user-2"]
    assert len(ids_of(export)) == 28 and sorted(os.listdir(tmp_path)) == ["export", "link"]


def test_what_is_refused_leaves_everything_as_it_was(export, tmp_path, monkeypatch):
    before = _contents(export)
    with leases.lease(tmp_path / "export.lock"), pytest.raises(LockedError):
        erase(export, ["user-1"])
    for foreign in ("index.usearch", "copies/everybody.csv"):
        (export / foreign).parent.mkdir(exist_ok=True)
        (export / foreign).write_text("vectors of everybody")
        with pytest.raises(DataError, match=f"{foreign}: not a file of this export"):
            erase(export, ["user-1"])
        (export / foreign).unlink()
    (export / "copies").rmdir()

    def refuse(path, value):
        raise StorageError(f"{path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", refuse)
        with pytest.raises(StorageError):
            erase(export, ["user-1"])
    assert _contents(export) == before
    (export / SECOND).write_bytes(before[SECOND][:-1])
    with pytest.raises(DataError, match=SECOND):
        erase(export, ["user-1"])
    with pytest.raises(DataError, match=r"none: no such folder"):
        erase(tmp_path / "none", ["user-1"])
    (export / SECOND).write_bytes(before[SECOND])
    assert erase(export, ["user-1"]).erased == ["user-1"]


def test_the_command(export, tmp_path, capsys):
    (tmp_path / "forget.txt").write_text("user-7\nnobody\n")
    command = ["embeddings", "erase", str(export), f"--ids={tmp_path}/forget.txt"]
    assert cli.main(command) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line == "erased 1 users (1 more ids are not in the export); parts written anew: 1"
    assert cli.main(command) == 0
    assert "erased 0 users (2 more ids" in capsys.readouterr().out
    assert cli.main([*command[:3], "--ids=none.txt"]) == 3
    assert "none.txt: No such file" in capsys.readouterr().err
