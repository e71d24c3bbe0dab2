"""Several datasets as one: their users under one index, their shares, and what cannot be mixed."""

import dataclasses
import itertools

import numpy as np
import pytest

from clue_jax.config import PairWeight, PretrainConfig, SamplingConfig
from clue_jax.data.batches import Source
from clue_jax.data.cache import open_or_build
from clue_jax.data.mixture import JoinedUsers, open_datasets, user_keys
from clue_jax.data.source import open_dataset
from clue_jax.errors import ConfigError
from tests.data.test_batches import CONFIG, ONE, TWO, batches_on
from tests.samples import sample_users

NAMES = "search", "shop", "news"  # of both, in order of first appearance
TABLES = [source.users for source in TWO]


def histories(users, services):
    """{service: items of its behaviours, oldest first, as tuples of their tokens} by user."""
    found = []
    for n in range(len(users)):
        of_user = {}
        for name in services:
            history = []
            if name in users.services:
                row = n * len(users.services) + users.services.index(name)
                entries = slice(*users.behaviour_offsets[[row, row + 1]])
                items = users.item_offsets[n] + users.behaviour_items[entries]
                ends = users.token_offsets[items], users.token_offsets[items + 1]
                texts = (tuple(users.tokens[a:b].tolist()) for a, b in zip(*ends, strict=True))
                times = users.behaviour_times[entries].tolist()
                history = list(zip(users.item_ids[items].tolist(), texts, times, strict=True))
            of_user[name] = history
        found.append((users.user_ids[n], of_user))
    return found


# ------------------------------------------------------------------------------------- one index


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_users_are_those_of_their_tables_with_all_services(order, on_disk, tmp_path):
    from etils import epath

    tables = list(TABLES)
    if on_disk:
        identity = {"services": list(tables[1].services)}
        tables[1] = open_or_build(epath.Path(tmp_path / "c"), identity, lambda: [TABLES[1]])
    joined = JoinedUsers(tables)
    assert joined.services == NAMES and len(joined) == 110
    rng = np.random.default_rng(0)
    rows = rng.permutation(110)[:40]
    rows = np.sort(rows) if order == "ascending" else rows
    expected = histories(TABLES[0], NAMES) + histories(TABLES[1], NAMES)
    taken = joined.take(rows)
    assert taken.services == NAMES and histories(taken, NAMES) == [expected[n] for n in rows]
    assert taken.counts().sum() == sum(len(h) for n in rows for h in expected[n][1].values())


def test_one_table_is_itself():
    alone, rows = JoinedUsers(TABLES[:1]).take(np.array([7, 3, 9])), [7, 3, 9]
    for name, values in vars(TABLES[0].take(rows)).items():
        np.testing.assert_array_equal(values, getattr(alone, name))


def test_a_person_has_one_key_in_all_datasets():
    first, second = (user_keys(table) for table in TABLES)
    assert first.dtype == np.int32 and len(set(first.tolist())) == 60
    np.testing.assert_array_equal(first[:50], second)


# --------------------------------------------------------------------------------------- batches


def mixed(weights=(), sources=TWO, devices=2, **sampling):
    sampling = dataclasses.replace(CONFIG.sampling, dataset_weights=weights, **sampling)
    return batches_on(devices, dataclasses.replace(CONFIG, sampling=sampling), sources)


@pytest.mark.parametrize("weights", [(), (3.0, 1.0), (0.2, 0.8)])
def test_a_batch_has_users_of_each_dataset_by_their_weight(weights):
    batches = mixed(weights)
    eligible = [len(found.members) for found in batches.candidates]
    share = np.array(weights or eligible) / sum(weights or eligible)
    counts = []
    for step in range(40):
        rows, loads = batches.drawn(step)
        assert len(set(rows.tolist())) == len(rows) == len(loads) == 16
        for found, start in zip(batches.candidates, batches.users.starts, strict=False):
            mine = rows[(rows >= start) & (rows < start + len(found.users))] - start
            assert np.isin(mine, found.members["row"]).all()
        counts.append([(rows < 60).sum(), (rows >= 60).sum()])
    assert np.abs(np.sum(counts, axis=0) - 40 * 16 * share).max() < 2
    assert np.abs(np.array(counts) - 16 * share).max() < 2
    told = batches.progress(40)
    assert [told["users/users"], told["users/others"]] == np.sum(counts, axis=0).tolist()
    assert told["epoch"] == min(told["epoch/users"], told["epoch/others"])


def test_a_dataset_is_drawn_in_the_order_it_would_have_alone():
    """Its own epochs, whatever it is mixed with; loads stay with their users."""
    alone, rows = batches_on(1), []
    orders = {}
    for weights in ((1.0, 1.0), (3.0, 1.0)):
        both = mixed(weights)
        drawn = [both.drawn(step) for step in range(6)]
        rows = np.concatenate([r[r < 60] for r, _ in drawn])
        loads = np.concatenate([load[r < 60] for r, load in drawn])
        orders[weights] = rows[:40].tolist()
        of_row = dict(alone.candidates[0].members.tolist())
        assert [of_row[row] for row in rows.tolist()] == loads.tolist()
    first = np.concatenate([alone.drawn(step)[0] for step in range(2)]).tolist()
    assert orders[1.0, 1.0][:32] == orders[3.0, 1.0][:32] == first


def test_services_that_never_meet_are_no_pair():
    """search + news share no user here; the others take its weight."""
    apart = (ONE[0], Source("b", "b" * 64, sample_users(40, ("shop", "news"), seed=2)))
    pairs = mixed(sources=apart, within_service_weight=0.0).pairs
    assert [(pair[:2], pair.weight) for pair in pairs] == [((0, 1), 0.5), ((1, 2), 0.5)]
    met = mixed(sources=TWO, within_service_weight=0.0).pairs
    assert [pair[:2] for pair in met] == list(itertools.combinations(range(3), 2))
    named = (PairWeight("news", "shop", 3.0), PairWeight("search", "news", 9.0))
    weighed = mixed(sources=apart, within_service_weight=0.0, pair_weights=named).pairs
    assert [pair.weight for pair in weighed] == [0.25, 0.75]


def test_keys_of_a_mixture_say_who_a_user_is():
    packed, _ = mixed().host_batch(0)
    views = packed.view_slot_Vb.shape[1]
    assert packed.keys_Kb.shape[1] == views + 1
    assert batches_on(2).host_batch(0)[0].keys_Kb.shape[1] == 6
    keys = packed.keys_Kb[:, views].ravel().tolist()
    rows = mixed().drawn(0)[0]
    taken = mixed().users.take(rows)
    assert sorted(keys) == sorted(user_keys(taken).tolist())
    # Over some steps somebody is drawn of both datasets.
    twice = [
        16 - len(set(mixed().users.take(mixed().drawn(step)[0]).user_ids)) for step in range(5)
    ]
    assert sum(twice) > 0


@pytest.mark.parametrize("weights", [(), (0.1, 0.9)])
def test_buffers_hold_any_batch_and_no_more_heavy_users_than_it_has(weights):
    heavy = sample_users(400, seed=3, longest_history=40, catalogue=400)
    sources = (ONE[0], Source("heavy", "c" * 64, heavy))
    batches = mixed(weights, sources, devices=1)
    for step in range(12):
        _, stats = batches.host_batch(step)  # which raises beyond a buffer of chunks
        assert stats["items"] <= batches.capacity.items
    rare = mixed((0.95, 0.05), sources, devices=1).capacity
    assert rare.items < batches.capacity.items


# ---------------------------------------------------------------------------------------- opening


@pytest.fixture(scope="module")
def unlike(second_data, tmp_path_factory):
    """The logs of the second dataset, prepared otherwise."""
    from tests.stages import run_stage

    folder = tmp_path_factory.mktemp("unlike")
    prepare = ["prepare", "--config=configs/data/synthetic.py:smoke"]
    prepare += [f"--config.source={second_data.parent}/logs", "--config.sources[0].service=books"]
    prepare += ["--config.sources[0].path=books/part-*.parquet"]
    same = f"--config.tokenizer.path={second_data}/tokenizer.json"
    run_stage(*prepare, f"--out={folder}/strange")
    run_stage(*prepare, same, "--config.max_item_tokens=9", f"--out={folder}/short")
    return folder


def config_with(weights=(), longest=32):
    config = PretrainConfig(sampling=SamplingConfig(dataset_weights=weights))
    config.encoder.max_item_tokens = longest
    return config


def test_datasets_are_named_by_folder_or_path(smoke_data, second_data, unlike):
    first, other = str(smoke_data), str(second_data)
    assert list(open_datasets([first, other], config_with())) == [first, other]
    short = f"{unlike}/short"
    assert list(open_datasets([first, short], config_with(longest=9))) == ["data", "short"]
    (dataset,) = open_datasets([first], config_with((2.0,))).values()
    assert dataset.fingerprint == open_dataset(first).fingerprint


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("strange", "has tokenizer .*strange has .*--config.tokenizer.path="),
        ("short", "64 tokens in .* and to 9 in .*lower config.encoder.max_item_tokens=32 to 9"),
    ],
)
def test_what_cannot_be_mixed_is_refused(smoke_data, unlike, folder, problem):
    with pytest.raises(ConfigError, match=problem):
        open_datasets([str(smoke_data), f"{unlike}/{folder}"], config_with())


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0)])
def test_weights_are_as_many_as_datasets(smoke_data, second_data, weights):
    with pytest.raises(ConfigError, match=f"dataset_weights: {len(weights)} weights for 2 --data"):
        open_datasets([str(smoke_data), str(second_data)], config_with(weights))


def test_a_dataset_beside_itself_is_refused(smoke_data):
    with pytest.raises(ConfigError, match="are the same dataset .*dataset_weights"):
        open_datasets([str(smoke_data), str(smoke_data)], config_with())
