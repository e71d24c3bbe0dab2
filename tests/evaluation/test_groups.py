"""Groups of users: which are shown, which are too small to be, and how far they differ."""

import dataclasses

import numpy as np
import pytest

from clue_jax import files
from clue_jax.config import DownstreamConfig, EvaluateConfig, GroupConfig, TaskConfig, TaskKind
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation import suite
from clue_jax.evaluation.groups import Partition, by_history
from tests.evaluation import downstream_world as world

TASK = TaskConfig("two", TaskKind.BINARY, "two.parquet")
REGION = GroupConfig("region", "region.parquet", label="label")
COIN = np.random.default_rng(3).integers(2, size=world.USERS).tolist()
DEALT = np.random.default_rng(4).integers(3, size=world.USERS).tolist()


def number(user):
    return int(user[1:])


def told(user):
    """What vectors tell of users in the north, and a coin in the south."""
    return int(world.kind_of(user) < 2) if half(user) == "north" else COIN[number(user)]


def half(user):
    return "north" if number(user) % 8 < 4 else "south"


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    folder = tmp_path_factory.mktemp("company")
    data = world.write_data(folder)
    world.write_users(data, folder / "users")
    world.write_labels(folder / "labels", "two", world.label_rows(told))
    return folder


def run(company, tmp_path, region, least=20, **keys):
    """Results by task, model and metric, with the region of each user, None for those in none."""
    rows = [row for row in world.label_rows(region) if row["label"] is not None]
    labels = tmp_path / "labels"
    world.write_labels(labels, "region", rows)
    world.write_labels(labels, "two", world.label_rows(told))
    downstream = DownstreamConfig(
        labels=str(labels),
        tasks=(TASK,),
        groups=(REGION,),
        histories=(),
        features=("clue",),
        heads=("linear",),
        weight_decays=(1e-2,),
        folds=3,
        steps=60,
        bootstrap=200,
    )
    config = EvaluateConfig(
        suites=("downstream",),
        downstream=dataclasses.replace(downstream, **keys),
        min_audience=least,
        overwrite=True,
    )
    suite.evaluate(config, str(company / "users"), str(tmp_path / "out"))
    results = files.read_json(tmp_path / "out" / "results.json")
    return {(r["task"], r["model"], r["metric"]): r for r in results}


def difference(results):
    """The difference of two groups, and what chance makes of it."""
    (task,) = {task for task, _, metric in results if metric == "auc_difference"}
    return task, results[task, "clue", "auc_difference"], results[task, "chance", "auc_difference"]


def test_a_group_that_is_served_worse_is_found(company, tmp_path):
    results = run(company, tmp_path, half)
    task, mine, chance = difference(results)
    assert task == "downstream/two, region north over region south, of 2 groups"
    north, south = (
        results[f"downstream/two, region {r}", "clue", "auc"] for r in ("north", "south")
    )
    assert north["value"] > 0.9 > 0.75 > south["value"]
    assert mine["value"] == pytest.approx(north["value"] - south["value"])
    assert mine["low"] > chance["high"] > chance["value"] > chance["low"] >= 0
    assert mine["n"] == chance["n"] == north["n"] + south["n"]


def test_groups_that_were_dealt_at_random_differ_as_by_chance(company, tmp_path):
    _, mine, chance = difference(run(company, tmp_path, lambda u: f"r{DEALT[number(u)]}"))
    assert chance["low"] <= mine["value"] <= chance["high"]
    # Even without a difference the furthest two of three are apart.
    assert chance["value"] > 0.02


def test_few_positives_of_a_group_are_few_by_chance_too(company, tmp_path):
    def uneven(user):
        """Of the south, of whom vectors tell nothing, a group with hardly a positive in it."""
        most = number(user) < 8 if told(user) else number(user) % 3
        return None if half(user) == "north" else "few" if most else "many"

    def even(user):
        most = number(user) % 8 == 5 or number(user) % 24 == 6
        return None if half(user) == "north" else "few" if most else "many"

    _, mine, chance = difference(run(company, tmp_path, uneven))
    _, _, otherwise = difference(run(company, tmp_path, even))
    assert chance["low"] <= mine["value"] <= chance["high"]
    # Of the same users in groups about as large: what differs is how many positives each has.
    assert chance["high"] > 1.5 * otherwise["high"]


def test_small_groups_are_counted_and_not_shown(company, tmp_path, capsys):
    def region(user):
        return "islands" if number(user) % 10 == 0 else ("a", "b", "c")[number(user) % 3]

    results = run(company, tmp_path, region, least=30)
    shown = {task.rpartition(" ")[2] for task, _, _ in results if ", region " in task}
    # Of a, b and c one more is left out: the whole less the three would be the islands.
    assert "islands" not in shown and len(shown & {"a", "b", "c"}) == 2
    assert "two: 2 groups of region are not shown" in capsys.readouterr().out
    everything = (tmp_path / "out" / "results.json").read_text()
    assert "islands" not in everything
    assert "islands" in str(run(company, tmp_path, region, least=5).keys())


def test_users_without_a_group_are_in_the_whole_alone(company, tmp_path):
    names = {0: "a", 1: "b"}
    results = run(company, tmp_path, lambda user: names.get(number(user) % 3))
    whole = results["downstream/two", "clue", "auc"]["n"]
    parts = [results[f"downstream/two, region {r}", "clue", "auc"]["n"] for r in "ab"]
    assert whole - sum(parts) >= 20


def test_what_is_left_out_is_nobody_or_many():
    members = {
        name: np.arange(100) // 10 == tens
        for tens, name in enumerate(("a", "b", "c"))  # ten each, 70 in none
    }
    taking_part = np.ones(100, bool)
    assert Partition("region", members).shown(taking_part, 10) == (["a", "b", "c"], 0)
    assert Partition("region", members).shown(taking_part, 11) == ([], 3)
    taking_part[35:] = False  # five in none
    assert Partition("region", members).shown(taking_part, 10) == (["b", "c"], 1)
    assert Partition("", members).shown(taking_part, 10) == (["a", "b", "c"], 0)
    taking_part[2:10] = False  # two in a, so that seven are left out
    assert Partition("region", members).shown(taking_part, 7) == (["b", "c"], 1)
    assert Partition("region", members).shown(taking_part, 8) == (["c"], 2)
    taking_part[:] = False
    assert Partition("region", members).shown(taking_part, 1) == ([], 0)


def test_lengths_of_history():
    found = by_history(np.array([1, 3, 4, 9]), (3, 8))
    assert {name: member.tolist() for name, member in found.items()} == {
        "at most 3 behaviours": [True, True, False, False],
        "4 to 8 behaviours": [False, False, True, False],
        "9 behaviours or more": [False, False, False, True],
    }
    assert by_history(np.array([1]), ()) == {}


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (lambda user: "one", "groups of region: all .* users are in 'one'; name a table with two"),
        (lambda user: f"a, {number(user) % 2}", "'a, 0': write it without ', '"),
    ],
)
def test_tables_that_say_nothing_are_refused(company, tmp_path, region, message):
    with pytest.raises(DataError, match=message):
        run(company, tmp_path, region)
    assert not (tmp_path / "out").exists()


def test_groups_of_strangers_are_refused(company, tmp_path):
    world.write_labels(company / "labels", "region", [{"user_id": "x", "label": "a"}])
    config = EvaluateConfig(suites=("downstream",))
    config.downstream = DownstreamConfig(
        labels=str(company / "labels"), tasks=(TASK,), groups=(REGION,), features=("clue",)
    )
    with pytest.raises(DataError, match=r"region\.parquet: row 0: a user that neither the export"):
        suite.evaluate(config, str(company / "users"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((GroupConfig("", "a"),), r"groups\[0\].name: is empty"),
        ((GroupConfig("a"),), r"groups\[0\].labels: is empty"),
        ((GroupConfig("a, b", "a"),), "give it a name without ', '"),
        ((GroupConfig("a", "a"), GroupConfig("a", "b")), "two have the same name"),
    ],
)
def test_settings_are_checked_before_anything_is_read(tmp_path, groups, message):
    config = EvaluateConfig(suites=("downstream",))
    config.downstream = DownstreamConfig(tasks=(TASK,), groups=groups, features=("clue",))
    with pytest.raises(ConfigError, match=message):
        suite.evaluate(config, "nowhere", str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="min_audience: 0 must be at least 1"):
        suite.evaluate(EvaluateConfig(min_audience=0), "nowhere", str(tmp_path / "out"))
