"""Parts are whole or absent, and hold only what a consumer may see."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from clue_jax import files
from clue_jax.buckets import files_under
from clue_jax.embeddings.reader import read_table
from clue_jax.embeddings.schema import item_table, user_table
from clue_jax.embeddings.writer import write_manifest, write_part
from clue_jax.errors import DataError, NonFiniteError
from tests.embeddings.exports import random_users, unit

FOLDER = "model_version=model-1"
ONLY = f"{FOLDER}/part-00000-of-00001.parquet"
OTHER = f"{FOLDER}/part-00001-of-00002.parquet"


def test_the_entry_describes_the_file(tmp_path):
    entry = write_part(tmp_path, ONLY, user_table(**random_users(7)))
    assert entry["file"] == ONLY and entry["rows"] == 7
    assert entry["bytes"] == (tmp_path / ONLY).stat().st_size
    assert entry["sha256"] == files.sha256_file(tmp_path / ONLY)
    assert entry["norms"] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert list(files_under(tmp_path)) == [ONLY], "no staged file is left"


def test_embeddings_are_stored_as_plain_readers_expect(tmp_path):
    write_part(tmp_path, ONLY, user_table(**random_users(7)))
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
    write_part(tmp_path, ONLY, user_table(**users))
    users[column][4, ...] = value
    with pytest.raises(
        error, match=rf"part-00001-of-00002.parquet: row 4 \(user_id 'user-4'\), .*{message}"
    ):
        write_part(tmp_path, OTHER, user_table(**users))
    assert not (tmp_path / OTHER).exists()


def test_one_bad_component_is_enough(tmp_path):
    users = random_users(9)
    users["embedding_NE"][2, 5] = np.nan
    with pytest.raises(NonFiniteError, match="row 2"):
        write_part(tmp_path, OTHER, user_table(**users))


def test_what_an_absent_service_hides_is_not_looked_at(tmp_path):
    users = random_users(9)
    users["counts_NS"][4] = (3, 0)
    users["z_NSE"][4, 1] = np.nan
    assert write_part(tmp_path, ONLY, user_table(**users))["rows"] == 9


def test_a_user_may_be_there_once(tmp_path):
    users = random_users(6)
    users["user_ids"][5] = "user-0"
    with pytest.raises(DataError, match="'user-0' is there twice"):
        write_part(tmp_path, ONLY, user_table(**users))


def test_the_manifest_needs_every_part(tmp_path):
    entry = write_part(tmp_path, ONLY, user_table(**random_users(6)))
    (tmp_path / ONLY).unlink()
    with pytest.raises(DataError, match=f"{ONLY}: missing"):
        write_manifest(tmp_path, {"what": "users"}, [entry])


def test_equal_tables_give_equal_bytes(tmp_path):
    entries = [
        write_part(tmp_path / name, ONLY, user_table(**random_users(6)), "x")
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
    entry = write_part(tmp_path, ONLY, table)
    write_manifest(tmp_path, {"what": "items", "embedding_width": 4}, [entry])
    assert read_table(tmp_path, "items").equals(table)
    with pytest.raises(DataError, match="an export of items, but users are needed"):
        read_table(tmp_path, "users")
