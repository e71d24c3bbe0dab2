"""Vectors of fewer bytes: how near they stay, what is on disk, and that all commands read them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax.buckets import files_under
from clue_jax.config import StoredPrecision
from clue_jax.embeddings import vectors
from clue_jax.embeddings.align import align
from clue_jax.embeddings.erase import erase
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.embeddings.search import neighbours
from clue_jax.embeddings.stats import statistics
from clue_jax.embeddings.verify import verify
from clue_jax.errors import DataError
from tests.embeddings.exports import random_users, unit, write_export

FEWER = [StoredPrecision.FLOAT16, StoredPrecision.INT8]
USERS = random_users(40, width=16)
TOLERANCE = {StoredPrecision.FLOAT16: 2**-11, StoredPrecision.INT8: 0.5 / 127}


@pytest.mark.parametrize("precision", FEWER)
def test_values_are_rounded_to_the_nearest(precision):
    rng = np.random.default_rng(0)
    z_NE, present_N = unit(rng.normal(size=(50, 12))), rng.random(50) < 0.7
    z_NE[~present_N] = np.nan
    table = pa.table(vectors.vector_columns("z", z_NE, present_N, precision))
    found_NE, there_N = vectors.matrix(table, "z")
    assert found_NE.dtype == np.float32 and np.array_equal(there_N, present_N)
    assert not found_NE[~present_N].any() and table["z"].null_count == (~present_N).sum()
    greatest_N1 = np.abs(z_NE[present_N]).max(axis=1, keepdims=True)
    wrong_NE = np.abs(found_NE[present_N] - z_NE[present_N]) / greatest_N1
    assert TOLERANCE[precision] / 4 < wrong_NE.max() <= TOLERANCE[precision] * 1.001
    sliced_NE, _ = vectors.matrix(table.slice(7, 20), "z")
    assert np.array_equal(sliced_NE, found_NE[7:27])


def test_int8_is_as_its_card_says():
    z_NE = np.eye(2, 4) / 2
    column, scale = vectors.vector_columns("z", z_NE, None, StoredPrecision.INT8).values()
    values = [np.frombuffer(value.as_py(), "int8") * scale[0].as_py() for value in column]
    np.testing.assert_allclose(values, z_NE, atol=1e-7)


@pytest.mark.parametrize("precision", FEWER)
def test_every_command_reads_them(tmp_path, precision):
    plain, small = tmp_path / "plain", tmp_path / "small"
    write_export(plain, USERS)
    write_export(small, {**USERS, "precision": precision})
    ours, theirs = read_embeddings(small), read_embeddings(plain)
    np.testing.assert_allclose(ours.embedding_NE, theirs.embedding_NE, atol=0.01)
    for service in theirs.services:
        assert np.array_equal(ours.present[service], theirs.present[service])
        np.testing.assert_allclose(ours.by_service[service], theirs.by_service[service], atol=0.01)
    rank = statistics(plain).effective_rank
    assert verify(small) and statistics(small).effective_rank == pytest.approx(rank, rel=0.01)
    near, expected = (
        [user for user, _ in neighbours(path, "user-3", 3)] for path in (small, plain)
    )
    assert near == expected
    aligned = align(plain, small, tmp_path / "aligned")
    assert aligned.after > 0.999 and verify(tmp_path / "aligned")
    assert read_embeddings(tmp_path / "aligned").manifest["precision"] == precision.value
    erase(small, ["user-3"])
    assert verify(small) and len(read_embeddings(small)) == 39
    assert precision.value in (small / "card.md").read_text()


@pytest.mark.parametrize("precision", FEWER)
def test_what_is_on_disk(tmp_path, precision):
    write_export(tmp_path, {**USERS, "precision": precision}, parts=1)
    group = pq.read_metadata(next(tmp_path.glob("*/*.parquet"))).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["embedding"].physical_type == "FIXED_LEN_BYTE_ARRAY"
    assert ("embedding_scale" in columns) == (precision is StoredPrecision.INT8)
    width = 32 if precision is StoredPrecision.FLOAT16 else 16
    assert columns["embedding"].total_uncompressed_size < 40 * width + 100


# ------------------------------------------------------------------------------------------ .npy


def test_npy_has_the_same_rows(tmp_path):
    write_export(tmp_path, USERS, npy=True)
    for part in ("00000", "00001", "00002"):
        name = f"part-{part}-of-00003"
        z_NE = np.load(tmp_path / f"npy/embeddings/{name}.npy")
        ids_N = np.load(tmp_path / f"npy/ids/{name}.npy")
        table = pq.read_table(pa.OSFile(str(tmp_path / f"model_version=model-1/{name}.parquet")))
        assert z_NE.dtype == np.float32 and z_NE.flags.c_contiguous
        assert np.array_equal(z_NE, vectors.matrix(table, "embedding")[0])
        assert ids_N.tolist() == table["user_id"].to_pylist()


def test_npy_is_verified_and_erased(tmp_path):
    folder = tmp_path / "export"
    write_export(folder, USERS, npy=True)
    before = {file: (folder / file).read_bytes() for file in files_under(folder)}
    erase(folder, ["user-0"])
    assert verify(folder)
    ids = [np.load(path) for path in sorted((folder / "npy/ids").iterdir())]
    assert np.concatenate(ids).tolist() == [f"user-{n}" for n in range(1, 40)]
    assert sum(len(np.load(path)) for path in (folder / "npy/embeddings").iterdir()) == 39
    last = "npy/embeddings/part-00002-of-00003.npy"
    assert (folder / last).read_bytes() == before[last]
    align(folder, folder, tmp_path / "aligned")
    assert verify(tmp_path / "aligned") and (tmp_path / "aligned" / last).exists()
    (folder / last).write_bytes(before[last][:-1])
    with pytest.raises(DataError, match=f"{last}: its SHA-256"):
        verify(folder)
    (folder / last).unlink()
    with pytest.raises(DataError, match=f"{last}: missing"):
        verify(folder)
