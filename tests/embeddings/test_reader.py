"""What was written comes back; what was changed since does not."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from clue_jax import files
from clue_jax.embeddings.reader import SEAL, read_embeddings, read_part, seal_of
from clue_jax.errors import DataError
from tests.embeddings.exports import random_users, write_export

FOLDER = "model_version=model-1"


@pytest.fixture
def export(tmp_path):
    users = random_users(60)
    write_export(tmp_path / "export", users)
    return tmp_path / "export"


def change_manifest(folder, **values):
    """Changes the manifest as somebody would who also knows its checksum."""
    manifest = files.read_json(folder / "manifest.json")
    manifest.update(values)
    files.write_json(folder / "manifest.json", manifest | {SEAL: seal_of(manifest)})


def test_users_come_back(export):
    users, found = random_users(60), read_embeddings(export)
    assert found.user_ids.tolist() == users["user_ids"].tolist()
    assert found.splits.tolist() == users["splits"].tolist()
    assert np.array_equal(found.embedding_NE, users["embedding_NE"])
    assert found.services == users["services"] and len(found) == 60
    for s, service in enumerate(users["services"]):
        counts_N = users["counts_NS"][:, s]
        assert np.array_equal(found.counts[service], counts_N)
        assert np.array_equal(found.present[service], counts_N > 0)
        expected_NE = users["z_NSE"][:, s] * (counts_N > 0)[:, None]
        assert np.array_equal(found.by_service[service], expected_NE)
    assert found.manifest["rows"] == 60 and found.manifest["model_version"] == "model-1"


def test_only_the_wanted_splits(export):
    chosen = np.flatnonzero(random_users(60)["splits"] == "test")
    found = read_embeddings(export, ["test"])
    assert 0 < len(chosen) < 60
    assert found.user_ids.tolist() == [f"user-{n}" for n in chosen]
    assert np.array_equal(found.embedding_NE, random_users(60)["embedding_NE"][chosen])
    with pytest.raises(DataError, match="no split 'dev' in this export; it has test, train"):
        read_embeddings(export, ["dev"])


def test_an_export_of_nobody(tmp_path):
    write_export(tmp_path, random_users(0), parts=1)
    assert len(read_embeddings(tmp_path)) == 0


def test_any_flipped_bit_is_found(export, tmp_path):
    """Faults 26: none silent; the undamaged copy is the positive control."""
    rng = np.random.default_rng(0)
    parts = sorted(export.glob("*/*.parquet"))
    silent = []
    for trial in range(40):
        copy = tmp_path / f"copy-{trial}"
        shutil.copytree(export, copy)
        assert len(read_embeddings(copy)) == 60
        victim = copy / FOLDER / parts[trial % len(parts)].name
        payload = bytearray(victim.read_bytes())
        position = int(rng.integers(len(payload)))
        payload[position] ^= 1 << int(rng.integers(8))
        victim.write_bytes(payload)
        try:
            read_embeddings(copy)
            silent.append((victim.name, position))
        except DataError as error:
            assert victim.name in str(error)
    assert silent == []


def test_page_checksums_alone_find_flips_in_pages(export):
    """For consumers that read the parts without our manifest."""
    path = export / FOLDER / "part-00000-of-00003.parquet"
    payload = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(2)
    assert column.path_in_schema == "embedding.list.element"
    pq.read_table(path, page_checksum_verification=True)
    payload[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(payload)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)
    with pytest.raises(DataError, match="part-00000-of-00003.parquet: .*CRC"):
        read_part(path, path.read_bytes())


def test_any_flipped_bit_of_the_manifest_is_found(export):
    rng = np.random.default_rng(1)
    path = export / "manifest.json"
    payload = path.read_bytes()
    assert len(read_embeddings(export)) == 60
    for _ in range(20):
        flipped = bytearray(payload)
        position = int(rng.integers(len(payload)))
        while payload[position : position + 1].isspace():  # layout carries nothing
            position += 1
        flipped[position % len(payload)] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"manifest\.json"):
            read_embeddings(export)


def test_no_manifest_no_export(export):
    (export / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest\.json: missing, so this is no complete export"):
        read_embeddings(export)


@pytest.mark.parametrize("other", ["[]", '{"schema_version": 1}', "{", ""])
def test_a_manifest_of_something_else(export, other):
    (export / "manifest.json").write_text(other)
    with pytest.raises(DataError, match=r"manifest\.json: not "):
        read_embeddings(export)


def test_a_missing_part(export):
    (export / FOLDER / "part-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match="part-00001-of-00003.parquet: No such file"):
        read_embeddings(export)


def test_a_truncated_part(export):
    path = export / FOLDER / "part-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="part-00001-of-00003.parquet: .* bytes, but manifest"):
        read_embeddings(export)


def test_a_part_of_another_export(export, tmp_path):
    write_export(tmp_path / "other", random_users(60, seed=1))
    name = "part-00002-of-00003.parquet"
    shutil.copy(tmp_path / "other" / FOLDER / name, export / FOLDER / name)
    with pytest.raises(DataError, match=f"{name}: .*of another export"):
        read_embeddings(export)


@pytest.mark.parametrize("where", [FOLDER, "model_version=model-2", ""])
def test_a_stray_part(export, where):
    (export / where).mkdir(exist_ok=True)
    stray = export / where / "part-00003-of-00008.parquet"
    shutil.copy(export / FOLDER / "part-00002-of-00003.parquet", stray)
    with pytest.raises(DataError, match="part-00003-of-00008.parquet: not named in manifest"):
        read_embeddings(export)


def test_rows_must_add_up(export):
    manifest = json.loads((export / "manifest.json").read_text())
    change_manifest(export, rows=61)
    with pytest.raises(DataError, match=r"60 rows, but manifest\.json says 61"):
        read_embeddings(export)
    manifest["parts"][1]["rows"] += 1
    change_manifest(export, parts=manifest["parts"], rows=60)
    with pytest.raises(DataError, match="part-00001-of-00003.parquet: 20 rows, but .* says 21"):
        read_embeddings(export)


def test_one_part_named_twice(export):
    manifest = json.loads((export / "manifest.json").read_text())
    change_manifest(export, parts=[*manifest["parts"], manifest["parts"][0]], rows=80)
    with pytest.raises(DataError, match="a user_id is there twice"):
        read_embeddings(export)


def test_columns_that_differ_from_the_manifest(export):
    change_manifest(export, embedding_width=9)
    with pytest.raises(DataError, match="its columns are not those"):
        read_embeddings(export)


@pytest.mark.parametrize(
    ("version", "way_out"), [("embeddings/v2", "update clue_jax"), (1, "export again, to another")]
)
def test_another_format(export, version, way_out):
    change_manifest(export, schema_version=version)
    problem = f"version {version}, but this program knows embeddings/v1; {way_out}"
    with pytest.raises(DataError, match=problem):
        read_embeddings(export)
