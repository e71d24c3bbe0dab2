"""A table of items gives the vectors that batches would, is worth it or not, and is made once."""

import jax
import numpy as np
import pytest
from etils import epath

from clue_jax.config import EncoderConfig, MeshConfig, Precision, TransformerConfig
from clue_jax.exporting import item_vectors
from clue_jax.exporting.item_vectors import DistinctItems, ItemVectors, saving
from clue_jax.inference import ItemEncoder, embedding_encoder
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh, replicated
from tests.samples import VOCABULARY, sample_users

LAYER = TransformerConfig(1, 2, 16)
# Shorter than the longest history and the longest item, so that some are cut.
CONFIG = EncoderConfig(
    width=16, embedding_width=8, item=LAYER, service=LAYER, max_history=5, max_item_tokens=7
)
USERS = sample_users(60, seed=9)
PARAMS = clue.init(CONFIG, VOCABULARY, jax.random.key(1))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(item_vectors, "BLOCK", 11)
    monkeypatch.setattr("clue_jax.inference.ITEMS_EACH", 4)


def table(folder, config=CONFIG, devices=1, index=0, count=1):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    items = DistinctItems(USERS, config)
    vectors = ItemVectors(epath.Path(folder), items)
    params = jax.device_put(PARAMS, replicated(mesh))
    vectors.make(ItemEncoder(config, items.longest, mesh), params, index, count)
    return vectors, params, mesh


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("precision", list(Precision))
def test_vectors_are_those_of_batches(tmp_path, devices, precision):
    config = EncoderConfig(**{**vars(CONFIG), "precision": precision})
    vectors, params, mesh = table(tmp_path, config, devices)
    for first in (0, 17, 48):
        users = USERS.take(np.arange(first, min(first + 16, 60)))
        direct = embedding_encoder(config, USERS, 16, mesh)(params, users)
        looked_up = embedding_encoder(config, USERS, 16, mesh, vectors)(params, users)
        assert np.array_equal(looked_up[1], direct[1])
        tolerance = 1e-6 if precision is Precision.FLOAT32 else 0.02
        np.testing.assert_allclose(looked_up[0], direct[0], atol=tolerance)


def test_blocks_are_shared_verified_and_made_once(tmp_path, monkeypatch):
    made = []

    def make(self, encoder, params, block, real=ItemVectors._make):
        made.append(block)
        real(self, encoder, params, block)

    monkeypatch.setattr(ItemVectors, "_make", make)
    first, *_ = table(tmp_path, index=1, count=3)
    assert first.count == 8 and made == [1, 4, 7, 0, 2, 3, 5, 6]
    ids = first.items.item_ids
    before = first(ids)
    block = tmp_path / "block-00003-of-00008.npy"
    payload = bytearray(block.read_bytes())
    payload[-1] ^= 1
    block.write_bytes(payload)
    (tmp_path / "block-00005-of-00008.json").unlink()
    made.clear()
    second, *_ = table(tmp_path)
    assert made == [3, 5]
    assert np.array_equal(second(ids), before) and len(ids) > 77


def test_distinct_items_are_those_that_the_encoder_reads():
    items = DistinctItems(USERS, EncoderConfig(**{**vars(CONFIG), "max_history": 1}))
    read = {}
    for n in range(len(USERS)):
        for s in range(2):
            start, end = USERS.behaviour_offsets[2 * n + s :][:2]
            for item in USERS.behaviour_items[start:end][-1:] + USERS.item_offsets[n]:
                ends = USERS.token_offsets[item : item + 2]
                read[USERS.item_ids[item]] = USERS.tokens[ends[0] : ends[1]][:7].tolist()
    assert items.item_ids.tolist() == sorted(read)
    tokens, offsets = items.tokens(slice(0, len(items)))
    found = [part.tolist() for part in np.split(tokens, offsets[1:-1])]
    assert found == [read[item] for item in items.item_ids]
    assert len(read) < len(np.unique(USERS.item_ids)), "some are in no newest history"


def test_what_a_table_saves():
    items = DistinctItems(USERS, CONFIG)
    parts = np.split(np.arange(60), [20, 35])
    batches = [part[first : first + 10] for part in parts for first in range(0, len(part), 10)]
    counted = sum(len(np.unique(items.of(batch))) for batch in batches) / len(items)
    assert saving(items, parts, 10) == pytest.approx(counted) and counted > 2
    assert saving(items, [np.arange(60)], 60) == pytest.approx(1)
