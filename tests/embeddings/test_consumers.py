"""What other programs make of an export, read the way their users would: nothing lost or bent."""

import datetime
import glob

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest

from clue_jax.embeddings.erase import erase
from clue_jax.embeddings.index import IndexSettings
from clue_jax.embeddings.index_build import build_index
from clue_jax.embeddings.reader import read_embeddings, read_table
from tests.embeddings.exports import random_users, write_export

START = 1_700_000_000  # in seconds
TIMES = ("first_event_at", "last_event_at", "event_timestamp")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consumers") / "export"
    write_all_there_may_be(folder)
    return folder


def write_all_there_may_be(folder):
    """An export with an index and a record of erasures; user n was last seen n seconds on."""
    last_N = START + np.arange(60)
    users = random_users(60, last_N=last_N, event_N=last_N, model_version="120-abcdef")
    write_export(folder, users)
    build_index(folder, IndexSettings())
    erase(folder, ["user-7"])


def parts_of(folder):
    """How to name the parts to a program: all else in the folder is no Parquet by its name."""
    return f"{folder}/**/*.parquet"


def with_arrow_files(folder):
    parts = sorted(glob.glob(parts_of(folder), recursive=True))
    return ds.dataset(parts, partitioning="hive").to_table().to_pylist()


def with_arrow_folder(folder):
    """Its own look at each file leaves out what is no Parquet."""
    dataset = ds.dataset(folder, partitioning="hive", exclude_invalid_files=True)
    return dataset.to_table().to_pylist()


def with_pandas(folder):
    # Told so, as it would not join the model of the folder's name with that of the rows.
    parts = sorted(glob.glob(parts_of(folder), recursive=True))
    return pd.read_parquet(parts, partitioning=None).to_dict("records")


def with_pandas_of_one_model(folder):
    return pd.read_parquet(next(folder.glob("model_version=*"))).to_dict("records")


def with_polars(folder):
    return pl.read_parquet(parts_of(folder), hive_partitioning=True).to_dicts()


def with_polars_lazily(folder):
    return pl.scan_parquet(parts_of(folder)).collect().to_dicts()


def with_duckdb(folder):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'America/New_York'")
    source = f"read_parquet('{parts_of(folder)}', hive_partitioning = true)"
    found = connection.execute(f"SELECT * FROM {source}")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


READERS = (
    with_arrow_files,
    with_arrow_folder,
    with_pandas,
    with_pandas_of_one_model,
    with_polars,
    with_polars_lazily,
    with_duckdb,
)


def by_user(rows):
    found = {row["user_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("read", READERS)
def test_all_rows_are_there_as_we_read_them(export, read):
    ours, found = by_user(read_table(export, "users").to_pylist()), by_user(read(export))
    assert found.keys() == ours.keys() and len(found) == 59 and "user-7" not in found
    for user, row in found.items():
        assert row.keys() == ours[user].keys()
        for name, value in row.items():
            expected = ours[user][name]
            if name.startswith("embedding") and expected is not None:
                assert np.array_equal(np.asarray(value, np.float32), np.float32(expected))
            else:
                assert (list(value) if isinstance(expected, list) else value) == expected, name


@pytest.mark.parametrize("read", READERS)
def test_vectors_have_length_one_and_are_lacking_where_a_service_is(export, read):
    found, ours = by_user(read(export)), read_embeddings(export)
    for column, present_N in [
        ("embedding", np.ones(59, bool)),
        *((f"embedding_{service}", ours.present[service]) for service in ours.services),
    ]:
        values = [found[user][column] for user in ours.user_ids]
        assert [value is not None for value in values] == present_N.tolist()
        z_NE = np.array([value for value in values if value is not None], np.float32)
        assert z_NE.shape == (present_N.sum(), 8) and (len(z_NE) < 59 or column == "embedding")
        np.testing.assert_allclose(np.linalg.norm(z_NE, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("read", READERS)
def test_times_are_in_utc(export, read):
    for user, row in by_user(read(export)).items():
        last = datetime.datetime.fromtimestamp(START + int(user[5:]), datetime.UTC)
        assert row["last_event_at"] == row["event_timestamp"] == last
        assert row["last_event_at"].utcoffset() is not None


@pytest.mark.parametrize("read", READERS)
def test_logs_without_dates_have_no_times(tmp_path, read):
    write_export(tmp_path / "export", random_users(9, first_N=None, last_N=None))
    rows = read(tmp_path / "export")
    assert len(rows) == 9 and all(pd.isna(row[time]) for row in rows for time in TIMES)


def test_a_query_as_one_would_write_it(export):
    """The nearest users of one that shop, in the language of the program alone."""
    vector = f"embedding::FLOAT[{read_embeddings(export).manifest['embedding_width']}]"
    query = f"""
        WITH users AS (SELECT user_id, {vector} AS z, num_behaviours_art AS art
                       FROM read_parquet('{parts_of(export)}'))
        SELECT u.user_id FROM users u, users v WHERE v.user_id = 'user-3' AND u.art > 0
        ORDER BY array_inner_product(u.z, v.z) DESC LIMIT 5"""
    found = [user for (user,) in duckdb.sql(query).fetchall()]
    ours = read_embeddings(export)
    cosine_N = ours.embedding_NE @ ours.embedding_NE[ours.user_ids.tolist().index("user-3")]
    order = [n for n in np.argsort(-cosine_N) if ours.present["art"][n]][:5]
    assert found == ours.user_ids[order].tolist()
