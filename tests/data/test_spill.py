"""Spilled rows come back whole, by range, in order of appearance."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from clue_jax.data.spill import BINS, Range, Spill, bins, joined, ranges_of, scratch
from clue_jax.errors import StorageError

SCHEMA = pa.schema({"key": pa.uint64(), "number": pa.int64(), "text": pa.large_string()})


def filled(folder, partitions, buffer_bytes, rows=5_000, seed=0):
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**64, rows, np.uint64)
    keys[::3] = keys[0]  # as of a user with many behaviours
    keys[1], keys[2] = 0, 2**64 - 1
    spill = Spill(folder, "x", SCHEMA, partitions, buffer_bytes)
    for start in range(0, rows, 700):
        part = np.arange(start, min(start + 700, rows))
        texts = pa.array([f"t{n}" for n in part], pa.large_string())
        spill.add({"key": keys[part], "number": part, "text": texts})
    return spill.spilled(), keys


@pytest.mark.parametrize("partitions", [1, 2, 7, 256])
@pytest.mark.parametrize("buffer_bytes", [0, 1 << 30])
def test_ranges_hold_every_row_once(tmp_path, partitions, buffer_bytes):
    spill, keys = filled(tmp_path, partitions, buffer_bytes)
    assert spill.weights.sum() == len(keys)
    for limit in (1, 500, 1e9):
        found = []
        for span in ranges_of(spill.weights, limit):
            table = spill.table(span)
            where = bins(table["key"].to_numpy())
            assert ((where >= span.first) & (where < span.last)).all()
            assert table["key"].to_numpy().tolist() == keys[table["number"].to_numpy()].tolist()
            for key in np.unique(table["key"].to_numpy()):
                mine = table["number"].to_numpy()[table["key"].to_numpy() == key]
                assert (np.diff(mine) > 0).all()
            found += table["number"].to_pylist()
            assert table["text"].to_pylist() == [f"t{n}" for n in table["number"].to_pylist()]
        assert sorted(found) == list(range(len(keys)))


def test_ranges_cover_all_and_stay_within_the_limit():
    weights = np.zeros(BINS)
    weights[[0, 10, 11, 40_000, BINS - 1]] = [3, 4, 4, 100, 5]
    spans = ranges_of(weights, 8)
    assert spans[0].first == 0 and spans[-1].last == BINS
    assert all(a.last == b.first for a, b in itertools.pairwise(spans))
    sums = [weights[span.first : span.last].sum() for span in spans]
    assert max(s for s in sums if s != 100) <= 8
    assert spans[sums.index(100)] == Range(40_000, 40_001)
    assert ranges_of(np.zeros(BINS), 1) == [Range(0, BINS)]


def test_nothing_spilled(tmp_path):
    spill = Spill(tmp_path, "x", SCHEMA, 4, 0)
    assert len(spill.spilled().table(Range(0, BINS))) == 0


def test_what_several_have_put_aside_is_read_as_one(tmp_path):
    parts, everything = [], []
    for seed, rows in enumerate((900, 50, 0)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        if rows:
            spilled, keys = filled(folder, 7, 0, rows, seed)
            everything += keys.tolist()
        else:
            spilled = Spill(folder, "x", SCHEMA, 7, 0).spilled()
        parts.append(spilled)
    whole = joined(parts)
    assert whole.weights.sum() == len(everything)
    spans = ranges_of(whole.weights, 100)
    found = [key for span in spans for key in whole.table(span)["key"].to_pylist()]
    assert sorted(found) == sorted(everything)


def test_a_disk_that_refuses(tmp_path):
    with pytest.raises(StorageError, match=r"x-0000\d\.arrows"):
        filled(tmp_path / "nowhere", 1, 0)


def test_scratch_is_gone_afterwards(tmp_path):
    with scratch(epath.Path(tmp_path)) as folder:
        assert folder.parent == tmp_path
        (folder / "x").write_text("x")
    assert not list(tmp_path.iterdir())
    with scratch(epath.Path("gs://bucket/dataset.partial")) as folder:
        assert folder.is_dir()
