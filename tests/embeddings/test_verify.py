"""What `embeddings verify` finds wrong, by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax import cli, files
from clue_jax.embeddings.layout import SHARDING, user_shards
from clue_jax.embeddings.reader import SEAL, seal_of
from tests.embeddings.exports import random_users, write_export, write_items_export

PART = "model_version=model-1/part-00001-of-00003.parquet"


@pytest.fixture
def export(tmp_path):
    write_export(tmp_path / "export", random_users(30))
    return tmp_path / "export"


def verify(folder):
    return cli.main(["embeddings", "verify", str(folder)])


def rewrite(folder, change, name=PART):
    """Changes the rows of a part as somebody would who also knows all checksums."""
    table = change(pq.read_table(folder / name))
    pq.write_table(table, folder / name, write_page_checksum=True)
    manifest = files.read_json(folder / "manifest.json")
    payload = (folder / name).read_bytes()
    (part,) = [part for part in manifest["parts"] if part["file"] == name]
    part.update(bytes=len(payload), sha256=files.sha256_file(folder / name))
    files.write_json(folder / "manifest.json", manifest | {SEAL: seal_of(manifest)})


def replaced(column, value):
    def change(table):
        index, field = table.schema.get_field_index(column), table.schema.field(column)
        values = table.column(column).to_pylist()
        return table.set_column(index, field, pa.array([value(values), *values[1:]], field.type))

    return change


def test_a_sound_export_is_one_line(export, capsys):
    assert verify(export) == 0
    line, done = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{export}: 30 users in 3 parts (") and "model-1" in line
    assert done.startswith("clue-jax embeddings verify: done in ")


def test_an_export_of_nobody(tmp_path, capsys):
    write_export(tmp_path / "export", random_users(0), parts=1)
    assert verify(tmp_path / "export") == 0
    assert "0 users in 1 parts" in capsys.readouterr().out


def test_a_flipped_bit(export, capsys):
    payload = bytearray((export / PART).read_bytes())
    payload[len(payload) // 2] ^= 1
    (export / PART).write_bytes(payload)
    assert verify(export) == 3
    assert PART in capsys.readouterr().err


def test_a_changed_manifest(export, capsys):
    manifest = files.read_json(export / "manifest.json")
    files.write_json(export / "manifest.json", {**manifest, "model_version": "model-2"})
    assert verify(export) == 3
    assert "manifest.json: does not match its own checksum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda table: table, 0, ""),
        (replaced("user_id", lambda values: "user-0"), 3, "a user_id is there twice"),
        (replaced("user_id", lambda values: values[1]), 3, "is there twice"),
        (replaced("model_version", lambda values: "model-2"), 3, "mixed from two exports"),
        (replaced("num_behaviours_art", lambda values: 5 * (not values[0])), 3, "embedding_art"),
        (replaced("embedding", lambda values: [2 * x for x in values[0]]), 3, "length is 2"),
        (replaced("embedding", lambda values: [1.001 * x for x in values[0]]), 3, "norms"),
        (replaced("embedding", lambda values: [-x for x in values[0]]), 3, "statistics."),
        (replaced("embedding", lambda values: [np.nan] * 8), 6, "not finite"),
    ],
)
def test_rows_that_no_export_has(export, capsys, change, code, message):
    rewrite(export, change)
    assert verify(export) == code
    error = capsys.readouterr().err
    assert message in error and (PART in error or not code or "statistics" in message)


def test_a_file_beside_the_parts(tmp_path, capsys):
    folder, note = tmp_path / "export", "a note\n"
    beside = {"note.txt": files.sha256_text(note)}
    write_export(folder, random_users(9), beside=beside)
    assert verify(folder) == 3
    assert "note.txt: missing" in capsys.readouterr().err
    (folder / "note.txt").write_text(note)
    assert verify(folder) == 0
    (folder / "note.txt").write_text("another\n")
    assert verify(folder) == 3
    assert "note.txt: its SHA-256" in capsys.readouterr().err


def test_an_export_of_items(tmp_path, capsys):
    write_items_export(tmp_path)
    assert verify(tmp_path) == 0
    assert "5 items in 1 parts" in capsys.readouterr().out


def test_users_are_where_the_rule_says(tmp_path, capsys):
    """Else a consumer that computes the part of a user would not find it."""
    users = random_users(30)
    shards = user_shards(users["user_ids"], 1)
    order = np.argsort(users["user_ids"].astype(str))
    placed = {k: v[order] if isinstance(v, np.ndarray) else v for k, v in users.items()}
    assert not shards.any()
    rule = {"sharding": SHARDING["users"]}
    write_export(tmp_path / "good", placed, parts=1, **rule)
    assert verify(tmp_path / "good") == 0
    write_export(tmp_path / "unordered", users, parts=1, **rule)
    write_export(tmp_path / "elsewhere", placed, parts=2, **rule)
    for name in ("unordered", "elsewhere"):
        assert verify(tmp_path / name) == 3
        assert "is not in the part or place that" in capsys.readouterr().err
    write_export(tmp_path / "free", users, parts=2)
    assert verify(tmp_path / "free") == 0
