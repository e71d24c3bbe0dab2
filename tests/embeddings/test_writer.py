"""Parts are whole or absent, and hold only what a consumer may see."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from clue_jax import files
from clue_jax.embeddings.reader import read_table
from clue_jax.embeddings.schema import item_table, user_table
from clue_jax.embeddings.writer import finished_part, write_manifest, write_part
from clue_jax.errors import DataError, NonFiniteError
from tests.embeddings.exports import random_users, unit, write_export

ONLY = "part-00000-of-00001.parquet"


def test_the_entry_describes_the_file(tmp_path):
    entry = write_part(tmp_path, 0, 1, user_table(**random_users(7)))
    assert entry["file"] == ONLY and entry["rows"] == 7
    assert entry["bytes"] == (tmp_path / ONLY).stat().st_size
    assert entry["sha256"] == files.sha256_file(tmp_path / ONLY)
    assert entry["norms"] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == [ONLY], "no staged file is left"


def test_embeddings_are_stored_as_plain_readers_expect(tmp_path):
    write_part(tmp_path, 0, 1, user_table(**random_users(7)))
    group = pq.read_metadata(tmp_path / ONLY).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    embedding = columns["embedding.list.element"]
    assert embedding.physical_type == "FLOAT" and embedding.compression == "ZSTD"
    assert not any("DICTIONARY" in encoding for encoding in embedding.encodings)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.nan, NonFiniteError, "not finite"),
        (np.inf, NonFiniteError, "not finite"),
        (0.0, NonFiniteError, "all zeros"),
        (3.0, DataError, "length is 8.48"),
    ],
)
@pytest.mark.parametrize("column", ["embedding_NE", "z_NSE"])
def test_a_bad_embedding_names_its_row(tmp_path, value, error, message, column):
    users = random_users(9)
    users["counts_NS"][:] = 3
    write_part(tmp_path, 0, 2, user_table(**users))
    users[column][4, ...] = value
    with pytest.raises(
        error, match=rf"part-00001-of-00002.parquet: row 4 \(user_id 'user-4'\), .*{message}"
    ):
        write_part(tmp_path, 1, 2, user_table(**users))
    assert not (tmp_path / "part-00001-of-00002.parquet").exists()


def test_one_bad_component_is_enough(tmp_path):
    users = random_users(9)
    users["embedding_NE"][2, 5] = np.nan
    with pytest.raises(NonFiniteError, match="row 2"):
        write_part(tmp_path, 1, 2, user_table(**users))


def test_what_an_absent_service_hides_is_not_looked_at(tmp_path):
    users = random_users(9)
    users["counts_NS"][4] = (3, 0)
    users["z_NSE"][4, 1] = np.nan
    assert write_part(tmp_path, 0, 1, user_table(**users))["rows"] == 9


def test_a_user_may_be_there_once(tmp_path):
    users = random_users(6)
    users["user_ids"][5] = "user-0"
    with pytest.raises(DataError, match="'user-0' is there twice"):
        write_part(tmp_path, 0, 1, user_table(**users))


def test_nor_in_two_parts(tmp_path):
    users = random_users(6)
    users["user_ids"][5] = "user-0"
    with pytest.raises(DataError, match="part-00001-of-00002.*'user-0' is also in part-00000"):
        write_export(tmp_path, users, parts=2)
    assert not (tmp_path / "manifest.json").exists()


def test_the_manifest_needs_every_part(tmp_path):
    entry = write_part(tmp_path, 0, 1, user_table(**random_users(6)))
    (tmp_path / ONLY).unlink()
    with pytest.raises(DataError, match=f"{ONLY}: missing"):
        write_manifest(tmp_path, {"what": "users"}, [entry])


def test_a_finished_part_is_reused_by_its_own_export_only(tmp_path):
    path = tmp_path / ONLY
    assert finished_part(tmp_path, 0, 1, "one") is None
    entry = write_part(tmp_path, 0, 1, user_table(**random_users(6)), "one")
    assert finished_part(tmp_path, 0, 1, "one") == entry
    assert finished_part(tmp_path, 0, 1, "two") is None
    path.write_bytes(path.read_bytes()[:-100])
    assert finished_part(tmp_path, 0, 1, "one") is None


def test_a_damaged_part_is_never_reused(tmp_path):
    """No manifest names it yet, so its bytes are all there is to go by."""
    path = tmp_path / ONLY
    entry = write_part(tmp_path, 0, 1, user_table(**random_users(40)), "one")
    payload = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(payload)
        damaged[rng.integers(len(payload))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert finished_part(tmp_path, 0, 1, "one") is None
    path.write_bytes(payload)
    assert finished_part(tmp_path, 0, 1, "one") == entry


def test_equal_tables_give_equal_bytes(tmp_path):
    entries = [
        write_part(tmp_path / name, 0, 1, user_table(**random_users(6)), "x")
        for name in ("one", "two")
    ]
    assert entries[0] == entries[1]


def test_items(tmp_path):
    table = item_table(
        item_ids=np.arange(5, dtype=np.uint64),
        source_ids=np.array(list("abcde"), object),
        services=np.array(["art"] * 5, object),
        embedding_JE=unit(np.random.default_rng(0).normal(size=(5, 4))),
        model_version="m",
    )
    entry = write_part(tmp_path, 0, 1, table)
    write_manifest(tmp_path, {"what": "items", "embedding_width": 4}, [entry])
    assert read_table(tmp_path, "items").equals(table)
    with pytest.raises(DataError, match="an export of items, but users are needed"):
        read_table(tmp_path, "users")
