"""Users that are erased are gone, the others keep their bytes, at every instant."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clue_jax import cli, files
from clue_jax.embeddings.erase import erase
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.embeddings.verify import verify
from clue_jax.errors import DataError, LockedError, StorageError
from clue_jax.exporting.folder import is_export
from tests.embeddings.exports import random_users, write_export

ROOT = Path(__file__).parents[2]
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
    assert b"user-29" not in b"".join(_bytes_under(export))
    assert b"user-29" in before[THIRD], "as the greatest id of its part it is in the footer"
    assert verify(export)
    assert os.listdir(export.parent) == ["export"]


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
    gone = ["user-1", "user-29"]
    everybody, script = ids_of(export), ROOT / "tests/embeddings/killed_erase.py"
    subprocess.run(
        [sys.executable, str(script), str(export), str(tmp_path / "kills"), ",".join(gone)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    erase(export, gone)
    rest, states = ids_of(export), []
    for number in range(1, len(os.listdir(tmp_path / "kills")) + 1):
        copy = tmp_path / "kills" / str(number) / "export"
        states.append(ids_of(copy))
        assert states[-1] in (everybody, rest)
        erase(copy, gone)
        assert ids_of(copy) == rest and verify(copy)
        for name in (FIRST, SECOND, THIRD):
            assert (copy / name).read_bytes() == (export / name).read_bytes()
        assert gone[1].encode() not in b"".join(_bytes_under(copy.parent))
        # A lock that was being made holds nobody.
        left = [name for name in os.listdir(copy.parent) if ".lock." not in name]
        assert left == ["export"]
    assert len(states) > 15 and states[0] == everybody and states[-1] == rest
    assert states.count(rest) > 2, "some were killed after the new one was in place"


def _contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _bytes_under(folder):
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


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


def test_through_a_link_and_from_inside(export, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(export)
    assert erase(tmp_path / "link", ["user-1"]).erased == ["user-1"]
    assert (tmp_path / "link").is_symlink() and len(ids_of(export)) == 29
    monkeypatch.chdir(export)
    assert erase(".", ["user-2"]).erased == ["user-2"]
    assert len(ids_of(export)) == 28 and sorted(os.listdir(tmp_path)) == ["export", "link"]


def test_what_is_refused_leaves_everything_as_it_was(export, tmp_path, monkeypatch):
    before = _contents(export)
    with files.lease(tmp_path / "export.lock"), pytest.raises(LockedError):
        erase(export, ["user-1"])
    (export / "index.usearch").write_text("vectors of everybody")
    with pytest.raises(DataError, match="index.usearch: not a file of this export"):
        erase(export, ["user-1"])
    (export / "index.usearch").unlink()

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
    with pytest.raises(DataError, match=r"manifest.json: missing"):
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
