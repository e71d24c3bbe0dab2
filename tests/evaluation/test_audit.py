"""The audit of an export: planted answers are found, what is not there is not, and refusals."""

import numpy as np
import pytest

from clue_jax.config import DownstreamConfig, TaskConfig, TaskKind
from clue_jax.errors import ConfigError, DataError
from clue_jax.report.page import write_report
from tests.evaluation import downstream_world as world
from tests.evaluation.audit_world import PAIR, PEOPLE, WIDTH, holds, run, value, write_people


def test_copies_are_linked(tmp_path, capsys):
    write_people(tmp_path / "users")
    results = run(tmp_path, galleries=(100, PEOPLE, 1_000))
    for metric in ("recall_at_1", "recall_at_10", "linked_share", "link_precision"):
        row = results[PAIR, "clue", metric]
        assert row["value"] == row["low"] == row["high"] == 1.0 and row["n"] == PEOPLE
    assert value(results, "median_rank") == 1.0
    assert value(results, "recall_at_1", f"{PAIR} among 100") == pytest.approx(1.0)
    assert value(results, "recall_at_1", f"{PAIR} among 100", "chance") == 0.01
    assert value(results, "median_rank", PAIR, "chance") == (PEOPLE + 1) / 2
    assert {task for task, _, _ in results} == {PAIR, f"{PAIR} among 100"}
    printed = capsys.readouterr().out
    assert "each among 240 people: the right one is first for 100.0 %, among ten" in printed
    assert "by chance 0.4 % and 4.2 %" in printed


def test_random_vectors_link_nobody(tmp_path):
    users = write_people(tmp_path / "users", noise=1e6)
    results = run(tmp_path)
    for metric in ("recall_at_10", "median_rank"):
        assert holds(results, metric, value(results, metric, PAIR, "chance")), metric
    assert holds(results, "recall_at_10", 0.1, f"{PAIR} among 100")
    # Half of them are somebody's mutual nearest neighbours all the same, and hardly a link right.
    assert 0.2 < value(results, "linked_share") < 0.7
    assert value(results, "link_precision") < 0.05
    write_people(tmp_path / "same", z_NSE=np.ones_like(users["z_NSE"]) / np.sqrt(WIDTH))
    constant = run(tmp_path, "same")
    assert value(constant, "median_rank") == (PEOPLE + 1) / 2
    assert value(constant, "recall_at_10") == value(constant, "link_precision") == 0.0


def test_those_of_long_histories_are_easier_to_find(tmp_path):
    busy = np.arange(PEOPLE) % 2 == 0
    counts_NS = np.repeat(np.where(busy, 30, 5)[:, None], 2, axis=1)
    write_people(tmp_path / "users", noise=np.where(busy, 0.1, 0.4), counts_NS=counts_NS)
    results = run(tmp_path, histories=(20,))
    few = results[f"{PAIR}, at most 20 behaviours", "clue", "recall_at_1"]
    many = results[f"{PAIR}, 21 behaviours or more", "clue", "recall_at_1"]
    assert few["high"] < many["low"] and few["n"] == many["n"] == PEOPLE // 2


def test_the_same_command_gives_the_same_results(tmp_path):
    write_people(tmp_path / "users", noise=0.3)
    assert run(tmp_path) == run(tmp_path)


def test_at_most_so_many_are_ranked(tmp_path):
    write_people(tmp_path / "users")
    assert run(tmp_path, max_users=50)[PAIR, "clue", "recall_at_1"]["n"] == 50


def attribute(tmp_path, label):
    """Results where a label of each user of a small company stands for what is sensitive."""
    data = world.write_data(tmp_path)
    world.write_users(data, tmp_path / "users", cutoff="")
    rows = [{k: r[k] for k in ("user_id", "label")} for r in world.label_rows(label)]
    world.write_labels(tmp_path / "labels", "two", rows)
    task = TaskConfig("two", TaskKind.BINARY, "two.parquet", timestamp="", timeless=True)
    downstream = DownstreamConfig(
        labels=str(tmp_path / "labels"),
        tasks=(task,),
        features=("clue", "tfidf"),
        heads=("linear",),
        weight_decays=(1e-2,),
        folds=3,
        steps=60,
        rank=8,
        bootstrap=100,
        histories=(),
    )
    results = run(tmp_path, downstream=downstream, splits=("validation", "test"))
    return results, results["downstream/two", "clue", "auc"]


def test_an_attribute_is_read_off_and_shown(tmp_path, capsys):
    results, mine = attribute(tmp_path, lambda user: int(world.kind_of(user) < 2))
    assert mine["low"] > 0.9 and ("downstream/two", "tfidf", "auc") in results
    assert value(results, "auc", "downstream/two", "prior") == 0.5
    assert "two: predicted with AUC " in (printed := capsys.readouterr().out)
    assert "; chance .500, tfidf " in printed and max(map(len, printed.splitlines())) < 200
    page = write_report(str(tmp_path / "out")).read_text()
    assert "audit/linkage/validation+test/search ↔ shop (mean)" in page and "link precision" in page


def test_an_attribute_that_is_not_there_is_not_read_off(tmp_path):
    # As many of each kind of user have it as have it not, and vectors know the kind alone.
    _, mine = attribute(tmp_path, lambda user: int(user[1:]) // 4 % 2)
    assert mine["low"] <= 0.5 <= mine["high"]


def test_what_cannot_be_audited_is_refused(tmp_path):
    write_people(tmp_path / "users")
    with pytest.raises(ConfigError, match=r"audit\.services: no service 'news' .* art, office"):
        run(tmp_path, services=("art", "news"))
    with pytest.raises(DataError, match="no split 'train' in this export; it has test"):
        run(tmp_path, splits=("train",))
    with pytest.raises(DataError, match=r"audit needs 2: lower --config\.audit\.min_behaviours"):
        run(tmp_path, min_behaviours=50)
    with pytest.raises(DataError, match="none: no such folder; name the --out of an export"):
        run(tmp_path, beside=("other=none",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "setting", "message"),
    [
        ("services", ("art",), "name two different services"),
        ("splits", (), "one split"),
        ("beside", ("runs/other",), "give NAME=DIR"),
        ("beside", ("clue=a",), "'clue' is the name of the evaluated export"),
        ("beside", ("a=b", "a=c"), "two have the same name"),
        ("pairs", ("other=a",), "no name 'other'"),
        ("known", (), "name one number or more"),
        ("known", (0,), "0 must be at least 1"),
        ("galleries", (1,), "1 must be at least 2"),
        ("histories", (9, 3), "numbers above 0 that increase"),
        ("max_users", 1, "1 must be at least 2"),
        ("min_behaviours", 0, "0 must be at least 1"),
        ("bootstrap", 0, "0 must be at least 1"),
    ],
)
def test_settings_are_checked_before_anything_is_read(tmp_path, key, setting, message):
    with pytest.raises(ConfigError, match=rf"config\.audit\.{key}: .*{message}"):
        run(tmp_path, "nowhere", **{key: setting})
