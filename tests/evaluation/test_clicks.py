"""Off-policy estimates against lifts that are known, by theory and in the synthetic world."""

import dataclasses
import json

import numpy as np
import pytest

from clue_jax import files
from clue_jax.config import DownstreamConfig, EvaluateConfig, TaskConfig, TaskKind
from clue_jax.errors import DataError
from clue_jax.evaluation import suite
from clue_jax.evaluation.clicks import Truth, greedy, lifts
from tests.evaluation import downstream_world as world

CLICKS = TaskConfig("clicks", TaskKind.CLICKS, "shown.parquet", label="click", truth="true.parquet")
VISITS, LOGGED = 20, np.array([0.5, 0.3, 0.1, 0.1])
LOOKS = np.array([1.0, 0.5])


def chance(user_id):
    """A user clicks on what is of their kind."""
    return np.where(np.arange(4) == world.kind_of(user_id), 0.6, 0.1)


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks")
    data = world.write_data(folder)
    world.write_users(data, folder / "users")
    rng, shown, truth = np.random.default_rng(3), [], []
    for n in range(world.USERS):
        user = f"u{n}"
        for _ in range(VISITS):
            action, place = rng.choice(4, p=LOGGED), rng.integers(2)
            row = {"user_id": user, "timestamp": "2024-02-10", "advertisement": f"ad{action}"}
            row |= {"position": int(place), "propensity": float(LOGGED[action])}
            row["click"] = bool(rng.random() < LOOKS[place] * chance(user)[action])
            shown.append(row)
        known = {
            "clicks": LOOKS.mean() * chance(user),
            "logged": LOGGED,
            "stated": np.full(4, 0.25),
        }
        truth.append({"user_id": user} | {name: list(p) for name, p in known.items()})
    world.write_labels(folder / "labels", "shown", shown)
    world.write_labels(folder / "labels", "true", truth)
    return folder


def run(company, out, task=CLICKS, labels=None, **keys):
    downstream = DownstreamConfig(
        labels=str(labels or company / "labels"),
        tasks=(task,),
        features=("clue",),
        heads=("linear",),
        weight_decays=(1e-2,),
        steps=100,
        folds=3,
        bootstrap=200,
        **keys,
    )
    config = EvaluateConfig(suites=("downstream",), downstream=downstream, overwrite=True)
    suite.evaluate(config, str(company / "users"), str(out))
    rows = files.read_json(out / "results.json")
    return {
        (row["task"].removeprefix("downstream/"), row["model"], row["metric"]): row for row in rows
    }


def test_users_are_worth_knowing_and_the_lift_is_found(company, tmp_path):
    found = run(company, tmp_path / "out")
    auc = {model: found["clicks", model, "auc"]["value"] for model in ("clue", "context", "prior")}
    assert auc["clue"] > auc["context"] + 0.05 > auc["prior"] and auc["prior"] == 0.5
    assert found["clicks", "clue - context", "auc"]["low"] > 0
    lift = "clicks, lift of the policy"
    # The best policy earns (.9 * .6 + .1 * mean) over what the log does; exploration is .1.
    kinds = np.bincount([world.kind_of(f"u{n}") for n in range(world.USERS)]) / world.USERS
    logged = 0.1 + 0.5 * kinds @ LOGGED
    best = (0.9 * 0.6 + 0.1 * (0.6 + 0.3) / 4) / logged - 1
    assert found[lift, "clue", "true_lift"]["value"] == pytest.approx(best, rel=0.15)
    for model in ("clue", "stated policy"):
        true = found[lift, model, "true_lift"]["value"]
        for name in ("ips_lift", "snips_lift", "dr_lift"):
            row = found[lift, model, name]
            assert row["low"] - 0.05 < true < row["high"] + 0.05, (model, name)
        assert 0 < found[lift, model, "effective_share"]["value"] <= 1
    assert found[lift, "context", "true_lift"]["value"] < 0.5 * best
    width = {
        n: found[lift, "clue", n]["high"] - found[lift, "clue", n]["low"]
        for n in ("ips_lift", "dr_lift")
    }
    assert width["dr_lift"] < width["ips_lift"]


def test_estimates_by_hand():
    # Two users: rows, clicks, w r, w, robust term.
    sums = np.array([[4.0, 1.0, 2.0, 5.0, 1.5]])
    assert lifts(sums)[0] == pytest.approx([2 / 4 * 4 - 1, 2 / 5 * 4 - 1, 1.5 / 4 * 4 - 1])
    assert np.isnan(lifts(np.array([[4.0, 0.0, 0.0, 5.0, 1.5]]))).all()


def test_a_policy_shares_ties_and_explores():
    policy = greedy(np.array([[0.3, 0.3, 0.1], [0.0, 0.0, 1.0]]), 0.3)
    np.testing.assert_allclose(policy, [[0.45, 0.45, 0.1], [0.1, 0.1, 0.8]])


def test_the_true_lift_is_over_the_logging_policy():
    clicks = np.array([[0.2, 0.4]])
    truth = Truth(clicks, np.array([[0.5, 0.5]]), clicks)
    assert truth.lift(np.array([[0.0, 1.0]])) == pytest.approx(0.4 / 0.3 - 1)
    assert truth.lift(np.array([[0.5, 0.5]])) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": 0.0}, "a propensity of 0; it is a probability above 0"),
        ({"propensity": 1.5}, "a propensity of 1.5"),
        ({"propensity": None}, "row 0: 'propensity' is missing"),
        ({"click": None}, "row 0: 'click' is missing"),
    ],
)
def test_impressions_that_cannot_be_weighed_are_refused(company, tmp_path, change, message):
    import pyarrow.parquet as pq

    rows = pq.read_table(company / "labels" / "shown.parquet").to_pylist()
    held = {f"u{n}" for n in range(world.USERS)}
    assert rows[0]["user_id"] in held
    for row in rows[: VISITS * 40]:
        row |= change
    world.write_labels(tmp_path / "labels", "shown", rows)
    task = dataclasses.replace(CLICKS, truth="")
    with pytest.raises(DataError, match=message):
        run(company, tmp_path / "out", task, tmp_path / "labels")


def test_a_log_without_a_click_is_refused(company, tmp_path):
    import pyarrow.parquet as pq

    rows = pq.read_table(company / "labels" / "shown.parquet").to_pylist()
    world.write_labels(tmp_path / "labels", "shown", [row | {"click": False} for row in rows])
    task = dataclasses.replace(CLICKS, truth="")
    with pytest.raises(DataError, match="0 of .* labels are 1; all labels are of one class"):
        run(company, tmp_path / "out", task, tmp_path / "labels")


def test_a_truth_that_does_not_fit_is_refused(company, tmp_path):
    import pyarrow.parquet as pq

    world.write_labels(
        tmp_path / "labels",
        "shown",
        pq.read_table(company / "labels" / "shown.parquet").to_pylist(),
    )
    truth = pq.read_table(company / "labels" / "true.parquet").to_pylist()
    world.write_labels(tmp_path / "labels", "true", truth[:50])
    with pytest.raises(DataError, match="'true.parquet' lacks .* of the users"):
        run(company, tmp_path / "out", labels=tmp_path / "labels")
    world.write_labels(
        tmp_path / "labels", "true", [row | {"clicks": row["clicks"][:3]} for row in truth]
    )
    with pytest.raises(DataError, match="'clicks' does not hold 4 values a row"):
        run(company, tmp_path / "out", labels=tmp_path / "labels")
    assert not (tmp_path / "out.partial").exists(), "it is refused before anything is fitted"


def test_results_hold_no_user(company, tmp_path):
    run(company, tmp_path / "out")
    assert "u12" not in json.dumps(files.read_json(tmp_path / "out" / "evaluated.json"))
