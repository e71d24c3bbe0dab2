"""Labels and impressions of the synthetic world, and what best.json says of them."""

import dataclasses
import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax.config import SynthesizeConfig
from clue_jax.data import synthetic
from clue_jax.data.synthetic_best import best_scores, expected_auc

SMALL = SynthesizeConfig(
    num_users=1_200,
    num_topics=16,
    items_per_service=200,
    mean_behaviours=12.0,
    num_days=90,
    users_per_file=1_200,
)
CUTOFF = np.datetime64("2024-03-01", "s")  # 60 days after the first of January
TASKS = ("subscribes", "segment", "favourite", "spend", "next_item")


def write(folder, **changes):
    synthetic.synthesize(dataclasses.replace(SMALL, **changes), str(folder))
    return folder


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return write(tmp_path_factory.mktemp("labels") / "logs")


def table(logs, name):
    parts = sorted((logs / "labels" / name).glob("*.parquet"))
    return pa.concat_tables(pq.read_table(part) for part in parts)


def column(logs, name, key):
    return np.array(table(logs, name)[key].to_pylist())


def best(logs):
    return json.loads((logs / "labels" / "best.json").read_text())


def behaviours(logs):
    return {
        str(path.relative_to(logs)): path.read_bytes()
        for path in sorted(logs.rglob("*.parquet"))
        if "labels" not in path.parts
    }


def test_every_label_lies_after_the_cutoff(logs):
    assert json.loads((logs / "manifest.json").read_text())["label_cutoff"] == str(CUTOFF)
    assert best(logs)["cutoff_epoch_seconds"] == CUTOFF.astype(int)
    for name in (*TASKS, "impressions"):
        stamps = table(logs, name)["timestamp"].cast(pa.int64()).to_numpy() // 1000
        assert CUTOFF.astype(int) <= stamps.min() and stamps.max() < CUTOFF.astype(int) + 30 * 86400
    for name in TASKS[:4]:
        assert sorted(column(logs, name, "user_id")) == [f"u{n:09d}" for n in range(1_200)]


def test_labels_change_no_byte_of_the_logs_and_come_from_the_seed(logs, tmp_path):
    assert behaviours(write(tmp_path / "bare", labels=False)) == behaviours(logs)
    assert not (tmp_path / "bare" / "labels").exists()
    again, other = write(tmp_path / "again"), write(tmp_path / "other", seed=1)
    for name in (*TASKS, "impressions", "true_clicks"):
        assert table(again, name).equals(table(logs, name))
        assert not table(other, name).equals(table(logs, name))
    assert best(again) == best(logs)


def test_labels_do_not_depend_on_files_or_on_other_users(logs, tmp_path):
    many = write(tmp_path / "many", users_per_file=270)
    fewer = write(tmp_path / "fewer", num_users=500)
    for name in (*TASKS, "impressions"):
        whole = table(logs, name)
        assert table(many, name).equals(whole)
        assert table(fewer, name).equals(whole.slice(0, len(table(fewer, name))))
    for name in TASKS:
        assert best(many)["tasks"][name] == pytest.approx(best(logs)["tasks"][name])


@pytest.mark.parametrize("name", ["subscribes", "segment"])
def test_binary_labels_have_the_probabilities_that_are_said(logs, name):
    drawn, p = column(logs, name, name).astype(float), column(logs, name, "best")
    assert abs(drawn.mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).mean() / len(p))
    said = best(logs)["tasks"][name]
    log_loss = -np.mean(drawn * np.log(p) + (1 - drawn) * np.log(1 - p))
    assert log_loss == pytest.approx(said["log_loss"], rel=0.1)
    assert _auc(drawn, p) == pytest.approx(said["auc"], abs=0.03)
    assert said["auc"] > 0.7 and 0.05 < drawn.mean() < 0.6


def test_classes_and_amounts_are_drawn_from_what_is_said(logs):
    said = best(logs)["tasks"]
    p = column(logs, "favourite", "best")
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    number = np.array([int(c.split("-")[1]) for c in column(logs, "favourite", "favourite")])
    assert (p.argmax(axis=1) == number).mean() == pytest.approx(
        said["favourite"]["accuracy"], abs=0.04
    )
    error = column(logs, "spend", "spend") - column(logs, "spend", "best")
    assert np.sqrt((error**2).mean()) == pytest.approx(said["spend"]["rmse"], rel=0.06)
    assert np.abs(error).mean() == pytest.approx(said["spend"]["mae"], rel=0.06)
    r2 = 1 - (error**2).mean() / column(logs, "spend", "spend").var()
    assert r2 == pytest.approx(said["spend"]["r2"], abs=0.05)


def test_the_next_item_is_the_first_one_of_the_log_from_the_cutoff_on(logs):
    first = {}
    shop = pq.read_table(logs / "shop" / "part-00000.parquet").to_pylist()
    for row in shop:
        if np.datetime64(row["timestamp"].replace(tzinfo=None)) >= CUTOFF:
            first.setdefault(row["user_id"], row["item_id"])
    rows = table(logs, "next_item").to_pylist()
    assert {row["user_id"]: row["item_id"] for row in rows} == first
    hits = np.mean([row["item_id"] in row["best"][:10] for row in rows])
    expected = best(logs)["tasks"]["next_item"]
    assert expected["n"] == len(rows)
    assert hits == pytest.approx(expected["hit_rate_at_10"], abs=0.06)
    # Control: another user's best items do not do as well.
    pairs = itertools.pairwise(rows)
    assert np.mean([a["item_id"] in b["best"][:10] for a, b in pairs]) < 0.7 * hits


def test_the_impression_log_finds_the_true_lift(logs):
    shown = table(logs, "impressions")
    assert set(shown["position"].to_pylist()) == {1, 2, 3, 4}
    ad, propensity = shown["advertisement"].to_numpy(), shown["propensity"].to_numpy()
    for name, said in best(logs)["advertisements"].items():
        assert (ad == name).mean() == pytest.approx(said, abs=0.015)
        assert set(propensity[ad == name]) == {said}
    click, p = shown["click"].to_numpy().astype(float), best(logs)["policies"]
    assert click.mean() == pytest.approx(p["logging"]["clicks_per_visit"], rel=0.15)
    truth = table(logs, "true_clicks")
    stated = dict(zip(truth["user_id"].to_pylist(), truth["stated"].to_pylist(), strict=True))
    np.testing.assert_allclose(np.sum(list(stated.values()), axis=1), 1.0)
    number = [int(name[3:]) for name in ad]
    target = [stated[u][a] for u, a in zip(shown["user_id"].to_pylist(), number, strict=True)]
    lift = (click * target / propensity).mean() / click.mean() - 1
    assert lift == pytest.approx(p["stated"]["true_lift"], rel=0.25)
    assert p["stated"]["true_lift"] > 0.5, "control: the policies differ"


def test_the_expected_auc_is_that_of_all_pairs():
    p = np.round(np.random.default_rng(0).random(40), 1)  # with ties
    right = total = 0.0
    for i, j in itertools.permutations(range(len(p)), 2):
        chance = p[i] * (1 - p[j])
        total += chance
        right += chance * ((p[i] > p[j]) + 0.5 * (p[i] == p[j]))
    assert expected_auc(p) == pytest.approx(right / total)
    assert expected_auc(np.array([0.3])) == 0.5


def test_short_logs_have_no_labels_and_the_smallest_have_finite_ones(tmp_path):
    short = write(tmp_path / "short", num_users=20, num_days=59)
    assert not (short / "labels").exists()
    assert json.loads((short / "manifest.json").read_text())["label_cutoff"] == ""
    for seed in range(3):
        one = write(tmp_path / f"one{seed}", num_users=1, num_topics=3, num_days=60, seed=seed)
        assert "NaN" not in (one / "labels" / "best.json").read_text()
    nobody = {name: [np.zeros(1)] for name in ("logged", "stated", "visits", "subscribes")}
    nobody |= {"segment": [np.zeros(1)], "spend": [np.zeros(1)], "favourite": [np.ones((1, 1))]}
    assert best_scores(nobody | {"next_item": [np.zeros((0, 9))]})["tasks"]["next_item"] == {"n": 0}


def _auc(labels, scores):
    positive, negative = scores[labels == 1], scores[labels == 0]
    return np.mean(positive[:, None] > negative) + 0.5 * np.mean(positive[:, None] == negative)
