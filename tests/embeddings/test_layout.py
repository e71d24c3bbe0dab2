"""The part and place of a row, against figures that were computed elsewhere."""

import numpy as np
import pytest

from clue_jax.buckets import files_under
from clue_jax.embeddings.layout import item_shards, part_file, user_shards
from clue_jax.errors import DataError


def test_parts_of_users_and_items():
    # By `('0x' || substr(sha256(user_id), 1, 16))::UBIGINT % 8` in DuckDB.
    ids = ["user-1", "", "Zoë", "日本", "a" * 200]
    assert user_shards(ids, 8).tolist() == [2, 4, 0, 3, 7]
    assert user_shards([], 8).tolist() == []
    identities = np.array([5, 2**63 + 1, 2**64 - 1], np.uint64)
    assert item_shards(identities, 6).tolist() == [5, (2**63 + 1) % 6, (2**64 - 1) % 6]
    assert item_shards(identities.view(np.int64), 6).tolist() == item_shards(identities, 6).tolist()


def test_a_version_that_is_no_folder_is_refused():
    file = "model_version=abc-20/part-00002-of-00008.parquet"
    assert part_file("abc-20", 2, 8) == file
    for version in ("../x", "a=b", "", "a b"):
        with pytest.raises(DataError, match="use letters, digits"):
            part_file(version, 0, 1)


def test_files_of_all_folders(tmp_path):
    for file in ("b", "a/c", "a/b/d"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert list(files_under(tmp_path)) == ["a/b/d", "a/c", "b"]
