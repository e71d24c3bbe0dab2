"""One vector of several, and what half-lives weigh."""

import dataclasses

import jax
import numpy as np
import pytest

from clue_jax.composition import combine, narrowed
from clue_jax.config import EncoderConfig, MeshConfig, TransformerConfig
from clue_jax.data.recency import service_weights, view_weights
from clue_jax.data.sampling import full_views
from clue_jax.inference import embedding_encoder
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh, replicated
from tests.samples import VOCABULARY, sample_users

DAY = 86_400
DATED = sample_users(40, seed=9)
DATED = dataclasses.replace(
    DATED,
    # Oldest first in each history, some at the same second.
    behaviour_times=np.concatenate(
        [
            np.sort(np.random.default_rng(row).integers(0, 40, size)) * 3 * DAY + 10**9
            for row, size in enumerate(np.diff(DATED.behaviour_offsets))
        ]
    ),
)
LAYER = TransformerConfig(1, 2, 16)
CONFIG = EncoderConfig(width=16, embedding_width=8, item=LAYER, service=LAYER, max_history=5)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def encoded(half_life, devices=1, config=CONFIG, vectors=None, users=DATED):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    params = jax.device_put(clue.init(config, VOCABULARY, jax.random.key(1)), replicated(mesh))
    encoder = embedding_encoder(config, users, len(users), mesh, vectors, half_life)
    return encoder(params, users)


def test_the_combined_vector_is_the_mean_of_those_present():
    z_NSE = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [7.0, 7.0]]])
    combined = combine(z_NSE, np.array([[True, True], [True, False]]))
    np.testing.assert_allclose(combined, [[0.5**0.5, 0.5**0.5], [0.6, 0.8]])
    weighted = combine(z_NSE, np.array([[3.0, 4.0], [0.1, 0.0]]))
    np.testing.assert_allclose(weighted, [[0.6, 0.8], [0.6, 0.8]])


def test_fewer_dimensions_are_of_length_one_again():
    z = np.array([[[3.0, 4.0, 12.0]], [[0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(narrowed(z, 2), [[[0.6, 0.8]], [[0.0, 0.0]]])
    assert narrowed(z, 3) is z


def test_recent_services_weigh_more():
    mass_NS = service_weights(DATED, 6.0)
    for n in range(len(DATED)):
        rows = [slice(*DATED.behaviour_offsets[[2 * n + s, 2 * n + s + 1]]) for s in range(2)]
        times = [DATED.behaviour_times[row] for row in rows]
        newest = np.concatenate(times).max(initial=0)
        expected = [(0.5 ** ((newest - time) / DAY / 6.0)).sum() for time in times]
        np.testing.assert_allclose(mass_NS[n], expected)
    np.testing.assert_allclose(service_weights(DATED, 1e12), DATED.counts())


def test_weights_are_counted_from_the_newest_of_a_view():
    views = full_views(DATED, 3)
    weights = view_weights(views, 2.0)
    for first, last in zip(views.offsets[:-1], views.offsets[1:], strict=True):
        times = views.times[first:last]
        age = (times.max(initial=0) - times) / DAY
        np.testing.assert_allclose(weights[first:last], 0.5 ** (age / 2.0), rtol=1e-6)
    assert weights.min() < 0.1  # some halved often


@pytest.mark.parametrize("devices", [1, 8])
def test_a_bag_is_the_weighted_mean_of_its_items(devices):
    bag = dataclasses.replace(CONFIG, service=TransformerConfig(num_layers=0), project=False)
    bag = dataclasses.replace(bag, embedding_width=bag.width)
    z_NSE, present_NS = encoded(6.0, devices, bag)
    table = {}

    def vectors(identities):
        """Made up, and remembered."""
        for i in identities.tolist():
            table[i] = np.random.default_rng(i).normal(size=bag.width).astype(np.float32)
        return np.stack([table[i] for i in identities.tolist()])

    looked_up, _ = encoded(6.0, devices, bag, vectors)
    assert np.array_equal(present_NS, DATED.counts() > 0)
    assert abs(z_NSE - encoded(0.0, devices, bag)[0]).max() > 0.05
    views = full_views(DATED, bag.max_history)
    weights = view_weights(views, 6.0)
    for row, (first, last) in enumerate(zip(views.offsets[:-1], views.offsets[1:], strict=True)):
        if last > first:
            items = DATED.item_ids[views.items[first:last]].tolist()
            mean = weights[first:last] @ np.stack([table[i] for i in items])
            np.testing.assert_allclose(looked_up[row // 2, row % 2], unit(mean), atol=1e-5)


def test_an_endless_half_life_is_none():
    np.testing.assert_allclose(encoded(1e12)[0], encoded(0.0)[0], atol=1e-6)
    assert abs(encoded(3.0)[0] - encoded(0.0)[0]).max() > 0.01


def test_without_dates_all_weigh_alike():
    undated = dataclasses.replace(DATED, behaviour_times=np.zeros_like(DATED.behaviour_times))
    np.testing.assert_array_equal(encoded(3.0, users=undated)[0], encoded(0.0, users=undated)[0])


def test_buffers_of_one_slot_are_not_taken_for_weights():
    short = dataclasses.replace(CONFIG, max_history=1, row_behaviours=1)
    expected, _ = encoded(0.0, config=dataclasses.replace(short, history_rows=4))
    found, _ = encoded(0.0, config=dataclasses.replace(short, history_rows=1))
    assert abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-6)
