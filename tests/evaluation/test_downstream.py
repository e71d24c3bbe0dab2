"""Downstream tasks from label tables and exports to results, and all that is refused."""

import dataclasses
import shutil

import numpy as np
import pytest

from clue_jax import files
from clue_jax.config import DownstreamConfig, EvaluateConfig, TaskConfig, TaskKind
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation import suite
from clue_jax.evaluation.beside import _aligned, read_exports
from clue_jax.evaluation.features import FeatureSource
from clue_jax.evaluation.groups import partitions
from clue_jax.evaluation.people import People
from tests.evaluation import downstream_world as world

RNG = np.random.default_rng(0)
FAST = DownstreamConfig(
    features=("clue", "tfidf", "clue+best"),
    heads=("linear", "knn"),
    weight_decays=(1e-2,),
    neighbours=(5,),
    mlp_widths=(8,),
    rank=8,
    steps=100,
    folds=3,
    bootstrap=50,
)
HEAVY = world.kind_of
BINARY = TaskConfig("two", TaskKind.BINARY, "two.parquet")
TASKS = {
    "two": (BINARY, lambda user: int(HEAVY(user) < 2)),
    "four": (TaskConfig("four", TaskKind.MULTICLASS, "four.parquet"), lambda u: f"k{HEAVY(u)}"),
    "much": (TaskConfig("much", TaskKind.REGRESSION, "much.parquet"), lambda u: 1e4 + HEAVY(u)),
    "like": (
        TaskConfig("like", TaskKind.AUDIENCE, "like.parquet", at=(10,)),
        lambda user: int(HEAVY(user) == 1),
    ),
}
NEXT = TaskConfig("next", TaskKind.RETRIEVAL, service="shop", at=(1, 6))


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    folder = tmp_path_factory.mktemp("company")
    data = world.write_data(folder)
    world.write_users(data, folder / "users")
    world.write_items(data, folder / "items")
    for name, (_, value) in TASKS.items():
        world.write_labels(folder / "labels", name, world.label_rows(value))
    return folder


def run(company, tmp_path, *tasks, users="users", **keys):
    downstream = dataclasses.replace(
        FAST, **{"labels": str(company / "labels"), "items": str(company / "items")} | keys
    )
    downstream.tasks = tasks
    config = EvaluateConfig(suites=("downstream",), downstream=downstream, overwrite=True)
    suite.evaluate(config, str(company / users), str(tmp_path / "out"))
    return files.read_json(tmp_path / "out" / "results.json")


def value(results, task, model, metric):
    (row,) = (
        r
        for r in results
        if (r["task"], r["model"], r["metric"]) == (f"downstream/{task}", model, metric)
    )
    return row["value"]


def rows_for(value=lambda user: int(HEAVY(user) < 2)):
    return world.label_rows(value)


def refused(company, tmp_path, rows, message, task=BINARY, error=DataError, **keys):
    """Writes `rows` as the labels of a task and expects its refusal, with nothing written."""
    labels = tmp_path / "labels"
    world.write_labels(labels, "two", rows)
    with pytest.raises(error, match=message):
        run(company, tmp_path, task, labels=str(labels), **keys)
    assert not (tmp_path / "out").exists()


def test_heads_find_what_the_vectors_hold(company, tmp_path, capsys):
    results = run(company, tmp_path, *(task for task, _ in TASKS.values()))
    models = {r["model"] for r in results if r["task"] == "downstream/two"}
    assert {"prior", "clue", "clue linear", "clue knn", "tfidf", "clue+tfidf"} <= models
    assert {"clue - tfidf", "clue - prior", "clue+tfidf - tfidf"} <= models
    assert value(results, "two", "clue", "auc") > 0.9
    assert value(results, "four", "clue", "accuracy") > 0.8
    assert value(results, "much", "clue", "r2") > 0.7
    assert value(results, "like", "clue", "precision_at_10") > 0.8
    assert value(results, "like", "clue lookalike", "auc") > 0.9
    for task, metric in (("two", "auc"), ("four", "accuracy"), ("much", "r2")):
        difference = value(results, task, "clue - prior", metric)
        expected = value(results, task, "clue", metric) - value(results, task, "prior", metric)
        assert difference == pytest.approx(expected)
        assert difference > 0.3
    assert value(results, "two", "prior", "auc") == 0.5
    assert value(results, "two", "prior", "normalised_entropy") == pytest.approx(1.0)
    assert value(results, "four", "prior", "normalised_entropy") == pytest.approx(1.0)
    assert value(results, "much", "prior", "r2") == pytest.approx(0.0, abs=1e-9)
    for row in results:
        assert np.isfinite([row["value"], row["low"], row["high"]]).all()
        assert row["seed"] == (7 if row["model"].startswith("clue") else 0)
    evaluated = files.read_json(tmp_path / "out" / "evaluated.json")
    told = evaluated["tasks"]["two"]
    assert told["users"] == results[0]["n"] and told["users"] + told["rows_of_others"] == 150
    assert "downstream/two" in capsys.readouterr().out


def test_the_next_item_is_found_among_all(company, tmp_path):
    results = run(company, tmp_path, NEXT)
    catalogue, kinds = 24, 4
    assert value(results, "next", "clue", "hit_rate_at_6") > 0.9
    assert value(results, "next", "clue cosine", "hit_rate_at_6") > 0.9
    assert value(results, "next", "tfidf", "hit_rate_at_6") > 0.8
    # Inside a kind nothing is to be known, and popularity does not know the kind.
    assert value(results, "next", "clue", "hit_rate_at_1") < 0.4
    assert value(results, "next", "popularity", "hit_rate_at_6") < 1.6 * 6 * kinds / catalogue / 4
    labels = tmp_path / "labels"
    rows = world.label_rows(lambda user: f"shop-{HEAVY(user)}-3")
    world.write_labels(labels, "next", rows)
    task = dataclasses.replace(NEXT, labels="next.parquet")
    same = run(company, tmp_path, task, labels=str(labels))
    assert value(same, "next", "clue linear", "hit_rate_at_1") > 0.8


def test_the_same_command_gives_the_same_results(company, tmp_path):
    assert run(company, tmp_path, BINARY) == run(company, tmp_path, BINARY)


def test_labels_that_say_nothing_score_like_the_prior(company, tmp_path):
    # Control for leaks between folds: random labels, mlp included.
    rows = world.label_rows(lambda user: int(RNG.random() < 0.5))
    world.write_labels(tmp_path / "labels", "two", rows)
    keys = {"labels": str(tmp_path / "labels"), "heads": ("linear", "mlp", "knn")}
    results = run(company, tmp_path, BINARY, **keys)
    for model in ("clue linear", "clue mlp", "clue knn", "tfidf linear"):
        assert 0.3 < value(results, "two", model, "auc") < 0.7


def test_training_users_are_left_out_unless_named(company, tmp_path):
    few = run(company, tmp_path, BINARY, heads=("knn",))
    splits = ("train", "validation", "test")
    all_of_them = run(company, tmp_path, BINARY, heads=("knn",), splits=splits)
    assert all_of_them[0]["n"] == 150 > few[0]["n"]
    some = run(company, tmp_path, BINARY, heads=("knn",), max_users=60)
    assert some[0]["n"] == 60
    with pytest.raises(DataError, match="no split 'tset' in this export; it has test, train"):
        run(company, tmp_path, BINARY, splits=("tset",))


def test_groups_of_users_are_reported_on_their_own(company, tmp_path):
    # Everybody has ten visible behaviours, five on each service.
    results = run(company, tmp_path, BINARY, histories=(9, 10))
    assert {r["task"] for r in results} == {"downstream/two", "downstream/two, 10 to 10 behaviours"}
    results = run(company, tmp_path, BINARY, histories=(3,))
    assert {r["task"] for r in results} == {
        "downstream/two",
        "downstream/two, 4 behaviours or more",
    }
    assert {r["task"] for r in run(company, tmp_path, BINARY, histories=())} == {"downstream/two"}


def test_a_group_is_of_its_members_alone(company):
    export = read_embeddings(company / "users")
    counts = {name: np.zeros(len(export), np.int32) for name in export.services}
    first, second = export.services
    counts[first][:] = 3
    counts[second][::2] = 5
    export = dataclasses.replace(export, counts=counts)
    downstream = dataclasses.replace(FAST, histories=(3, 7), splits=("train", "validation", "test"))
    people = People(EvaluateConfig(downstream=downstream), export)
    groups = {g: m for part in partitions(people) for g, m in part.members.items()}
    alone = np.arange(len(export)) % 2 == 1
    for name, expected in {
        "at most 3 behaviours": alone,
        "4 to 7 behaviours": np.zeros(len(export), bool),
        "8 behaviours or more": ~alone,
        "one service only": alone,
    }.items():
        np.testing.assert_array_equal(groups.pop(name), expected)
    assert not groups


def test_another_export_stands_beside_it(company, tmp_path):
    world.write_users(company / "prepared", tmp_path / "noisy", noise=20.0)
    keys = {
        "beside": (f"noisy={tmp_path / 'noisy'}", f"same={company / 'users'}"),
        "features": ("clue", "noisy", "noisy/shop", "same", "clue+noisy", "clue/shop+clue/search"),
        "heads": ("linear",),
    }
    results = run(company, tmp_path, BINARY, NEXT, **keys)
    assert value(results, "two", "same", "auc") == value(results, "two", "clue", "auc") > 0.9
    assert value(results, "two", "clue/shop+clue/search", "auc") > 0.9
    noisy = value(results, "two", "noisy", "auc")
    assert noisy < 0.8 < value(results, "two", "clue+noisy", "auc")
    # Of the same encoder, so that its items are those of the evaluated export.
    assert value(results, "next", "same", "hit_rate_at_6") > 0.9
    assert {"clue+noisy - noisy", "clue - noisy"} <= {r["model"] for r in results}


def test_another_encoder_brings_its_items(company, tmp_path):
    world.write_users(company / "prepared", tmp_path / "o", model_version="other")
    keys = {"beside": (f"o={tmp_path / 'o'}",), "features": ("clue", "o"), "heads": ("linear",)}
    models = {r["model"] for r in run(company, tmp_path, NEXT, **keys)}
    assert "o" not in models  # nothing to rank
    world.write_items(company / "prepared", tmp_path / "i", model_version="other")
    keys["beside_items"] = (f"o={tmp_path / 'i'}",)
    results = run(company, tmp_path, NEXT, **keys)
    assert value(results, "next", "o", "hit_rate_at_6") > 0.9
    keys["beside_items"] = (f"o={company / 'items'}",)
    with pytest.raises(DataError, match="items of model m, but the users are of other"):
        run(company, tmp_path, NEXT, **keys)


def test_users_that_another_export_lacks_get_zeros(company):
    export = read_embeddings(company / "users")
    ids = np.array([export.user_ids[3], "nobody"], object)
    found = _aligned(export, ids, "folder", None)
    np.testing.assert_array_equal(found.users(""), [export.embedding_NE[3], np.zeros(16)])
    np.testing.assert_array_equal(found.users("shop")[0], export.by_service["shop"][3])
    with pytest.raises(DataError, match="it has none of the 1 users to be evaluated"):
        _aligned(export, ids[1:], "folder", None)


def test_another_export_may_not_know_more(company, tmp_path):
    world.write_users(company / "prepared", tmp_path / "later", cutoff="2024-02-15")
    keys = {"beside": (f"later={tmp_path / 'later'}",), "features": ("clue", "later")}
    with pytest.raises(DataError, match="cutoff 2024-02-15 .* has 2024-02-01 and 0"):
        run(company, tmp_path, BINARY, **keys)
    world.write_users(company / "prepared", tmp_path / "all", cutoff="")
    keys["beside"] = (f"later={tmp_path / 'all'}",)
    with pytest.raises(DataError, match="cutoff none"):
        run(company, tmp_path, BINARY, **keys)
    world.write_users(company / "prepared", tmp_path / "held", hold_out_last=1)
    with pytest.raises(DataError, match="and hold_out_last 0, but .* and 1; export it again"):
        keys["beside"] = (f"later={company / 'users'}",)
        run(company, tmp_path, BINARY, users=tmp_path / "held", **keys)


def test_one_service_alone(company, tmp_path):
    results = run(company, tmp_path, BINARY, features=("clue", "clue/shop"), heads=("knn",))
    assert value(results, "two", "clue/shop", "auc") > 0.9
    with pytest.raises(ConfigError, match="no service 'news' in this export; it has"):
        run(company, tmp_path, BINARY, features=("clue", "clue/news"))


def test_every_kind_of_features_is_made(company, tmp_path):
    names = ("clue", "random_encoder", "factors", "item_mean", "item_recent", "clue+best")
    results = run(company, tmp_path, BINARY, features=names, heads=("knn",))
    for name in ("factors", "item_mean", "item_recent"):
        assert value(results, "two", name, "auc") > 0.8, name
    assert value(results, "two", "random_encoder", "auc") > 0.4
    assert {"clue+factors", "clue+random_encoder"} & {r["model"] for r in results}


def test_recent_items_weigh_more(company):
    downstream = dataclasses.replace(FAST, items=str(company / "items"), tasks=(BINARY,))
    means = {}
    for days in (1e-3, 1e9):
        downstream = dataclasses.replace(downstream, half_life_days=days)
        config = EvaluateConfig(suites=("downstream",), downstream=downstream)
        people = People(config, read_embeddings(company / "users"))
        source = FeatureSource(people, read_exports(people))
        means[days] = source.users("item_recent"), source.users("item_mean")
    np.testing.assert_allclose(*means[1e9], atol=1e-5)
    # All that counts is the last day, on which each user has one item on each of two services.
    seen, items = people.seen, source._items
    last = seen.behaviour_offsets[1:] - 1
    own = seen.item_offsets[np.arange(len(last)) // 2] + seen.behaviour_items[last]
    vectors = items.embedding_JE[items.rows_of(seen.item_ids[own])]
    expected = vectors.reshape(len(people.held), 2, -1).mean(axis=1)
    np.testing.assert_allclose(means[1e-3][0], expected, atol=1e-5)


# ------------------------------------------------------------------------------------- refusals


def test_embeddings_that_may_have_seen_the_labels_are_refused(company, tmp_path):
    data = company / "prepared"
    world.write_users(data, tmp_path / "uncut", cutoff="")
    shutil.copytree(company / "labels", tmp_path / "labels")
    keys = {"items": str(company / "items")}
    with pytest.raises(DataError, match=r"no cutoff.*--config\.cutoff=2024-02-10T00:00:00"):
        run(tmp_path, tmp_path, BINARY, users="uncut", **keys)
    with pytest.raises(DataError, match=r"all behaviours; export with --config\.hold_out_last=1"):
        run(tmp_path, tmp_path, NEXT, users="uncut", **keys)
    timeless = dataclasses.replace(BINARY, timeless=True)
    assert run(tmp_path, tmp_path, timeless, users="uncut", **keys)
    shutil.rmtree(tmp_path / "out")
    world.write_users(data, tmp_path / "held", cutoff="", hold_out_last=1)
    assert run(tmp_path, tmp_path, dataclasses.replace(NEXT, timestamp=""), users="held", **keys)


def test_labels_outside_the_window_are_refused(company, tmp_path):
    early = rows_for()
    early[7]["timestamp"] = "2024-01-31"
    message = r"two\.parquet: row 7: a label of 2024-01-31T00:00:00 .1 such rows., before the"
    refused(company, tmp_path, early, message)
    window = dataclasses.replace(BINARY, window_days=9)
    refused(company, tmp_path, rows_for(), r"row 0: .*after the window of 9 days", window)
    dateless = dataclasses.replace(BINARY, timestamp="")
    refused(company, tmp_path, rows_for(), "the labels have no dates", dateless)


def test_unknown_users_are_refused_unless_allowed(company, tmp_path):
    rows = [*rows_for(), {"user_id": "stranger", "timestamp": "2024-02-10", "label": 1}]
    refused(company, tmp_path, rows, r"row 150: a user that neither .*max_unknown_users=1")
    keys = {"labels": str(tmp_path / "labels"), "max_unknown_users": 1}
    assert run(company, tmp_path, BINARY, **keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": "u3"}, r"row 9: a second label of the same user .1 such rows."),
        ({"label": None}, r"row 9: 'label' is missing .1 such rows."),
        ({"label": 2}, "a label of 2; a binary one is 0 or 1"),
        ({"timestamp": "soon"}, r"row 9: 'timestamp' is not a time"),
    ],
)
def test_rows_that_cannot_be_used_are_named(company, tmp_path, change, message):
    rows = rows_for()
    rows[9] |= change
    refused(company, tmp_path, rows, message)


@pytest.mark.parametrize(
    ("kind", "label", "message"),
    [
        (TaskKind.BINARY, 1, "0 of .* labels are 0; all labels are of one class"),
        (TaskKind.MULTICLASS, "same", "all .* labels are 'same'; one class"),
        (TaskKind.REGRESSION, 2.5, "all .* labels are 2.5; nothing to predict"),
        (TaskKind.REGRESSION, float("nan"), "column 'label' is not finite"),
        (TaskKind.REGRESSION, "much", "column 'label' holds string, not numbers"),
        (TaskKind.BINARY, float("inf"), "column 'label' is not finite"),
    ],
)
def test_labels_that_say_nothing_are_refused(company, tmp_path, kind, label, message):
    task = dataclasses.replace(BINARY, kind=kind)
    refused(company, tmp_path, world.label_rows(lambda user: label), message, task)


def test_files_that_cannot_be_used_are_named(company, tmp_path):
    missing = dataclasses.replace(BINARY, labels="nothing.parquet")
    refused(company, tmp_path, rows_for(), "nothing.parquet: no labels of task two", missing)
    column = dataclasses.replace(BINARY, label="bought")
    refused(company, tmp_path, rows_for(), "no column 'bought'; it has user_id, time", column)
    (tmp_path / "labels" / "two.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="two.parquet: not readable as Parquet"):
        run(company, tmp_path, BINARY, labels=str(tmp_path / "labels"))


def test_too_great_a_k_and_strange_items_are_refused(company, tmp_path):
    great = dataclasses.replace(NEXT, at=(25,))
    refused(company, tmp_path, rows_for(), "k = 25, but the catalogue of 'shop' has 24", great)
    like = dataclasses.replace(BINARY, kind=TaskKind.AUDIENCE, at=(1_000,))
    refused(company, tmp_path, rows_for(), "k = 1000, but there are", like)
    strange = dataclasses.replace(NEXT, labels="two.parquet")
    rows = world.label_rows(lambda user: "shop-9-9")
    refused(company, tmp_path, rows, "items that the catalogue of 'shop' lacks, such as", strange)
    nowhere = dataclasses.replace(NEXT, service="news")
    refused(company, tmp_path, rows, "no items of service 'news' .*it has search, shop", nowhere)


def test_items_of_another_model_are_refused(company, tmp_path):
    world.write_items(company / "prepared", tmp_path / "other", model_version="n")
    message = "items of model n, but the users are of m"
    refused(company, tmp_path, rows_for(), message, NEXT, items=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("key", "setting", "message"),
    [
        ("folds", 2, "2 must be at least 3"),
        ("features", ("clue", "bert"), "no features 'bert'; there are clue, random_encoder"),
        ("features", ("tfidf",), "'clue', the export, must be there"),
        ("heads", ("tree",), "no head 'tree'; there are linear, mlp, knn"),
        ("heads", (), "name one head or more"),
        ("weight_decays", (float("nan"),), "nan must be finite"),
        ("weight_decays", (), "name one or more"),
        ("mlp_widths", (0,), "0 must be at least 1"),
        ("exploration", 1.5, "is not between 0 and 1"),
        ("half_life_days", 0.0, "0.0 must be finite and above 0"),
        ("tasks", (), "name one task or more"),
        ("tasks", (BINARY, BINARY), "two tasks have the same name"),
        ("tasks[0].name", "a/b", "give it a name"),
        ("tasks[0].labels", "", "name a Parquet file or folder"),
        ("tasks[0].at", (0,), "0 must be at least 1"),
        ("tasks[0].window_days", -1, "-1 is negative"),
        ("items", "", "retrieval needs an export of items"),
    ],
)
def test_settings_are_checked_before_anything_is_read(tmp_path, key, setting, message):
    task = dataclasses.replace(BINARY)
    downstream = dataclasses.replace(FAST, labels="x", items="y", tasks=(task, NEXT))
    inside = key.removeprefix("tasks[0].")
    setattr(task if inside != key else downstream, inside, setting)
    config = EvaluateConfig(suites=("downstream",), downstream=downstream)
    name = key.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ConfigError, match=rf"config\.downstream\.{name}: .*{message}"):
        suite.evaluate(config, "nowhere", str(tmp_path / "out"))


def test_unknown_suites_are_refused(tmp_path):
    for suites, message in ((("scale",), "no suite 'scale'"), ((), "name one or more")):
        with pytest.raises(ConfigError, match=rf"config\.suites: {message}"):
            suite.evaluate(EvaluateConfig(suites=suites), "nowhere", str(tmp_path / "out"))
