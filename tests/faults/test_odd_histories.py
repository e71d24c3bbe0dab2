"""Users and times that are out of the ordinary: merged, cut or left out by rule, and counted."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax.data.source import open_dataset
from tests.faults.logs import contents, good_rows, manifest, prepare, write
from tests.stages import run_stage, train_arguments

SOURCES = (("shop*", "shop"), ("news*", "news"))
DAY = 86_400


def users_of(out):
    """All users of a dataset, by id: [(service, text, time)] in order."""
    dataset = open_dataset(out)
    items, found = dataset.items(), {}
    for split in dataset.manifest["splits"]:
        users = dataset.users(split)
        for n, user in enumerate(users.user_ids):
            assert user not in found, "a user is there twice"
            mine = users.item_ids[slice(*users.item_offsets[n : n + 2])]
            span = slice(*users.behaviour_offsets[[n * 2, n * 2 + 2]])
            rows = items.lookup(mine[users.behaviour_items[span]])
            columns = items.services[rows], items.texts[rows], users.behaviour_times[span].tolist()
            found[user] = list(zip(*columns, strict=True))
    return found


# ------------------------------------------------------------------------------------ row 4


def test_a_user_of_several_files_and_shards_is_merged_and_there_once(tmp_path):
    rows = good_rows(200, users=40)
    for part in range(3):
        write(tmp_path / "logs" / f"shop-{part}.jsonl", rows[part::3])
        write(tmp_path / "logs" / f"news-{part}.csv", rows[part::3])
    write(tmp_path / "logs" / "shop-again.parquet", rows[:30])  # a file that was delivered twice
    prepare(tmp_path / "logs", tmp_path / "out", sources=SOURCES)
    found = users_of(tmp_path / "out")
    assert len(list((tmp_path / "out" / "users").glob("*array_record*"))) > 3
    expected = {
        user: sorted(
            [("shop", text, time) for u, time, text in (*rows, *rows[:30]) if u == user],
            key=lambda behaviour: behaviour[2],
        )
        + [("news", text, time) for u, time, text in rows if u == user]
        for user in {u for u, _, _ in rows}
    }
    assert found == expected
    assert manifest(tmp_path / "out")["duplicates"] == 30

    prepare(tmp_path / "logs", tmp_path / "once", "--config.drop_repeats=true", sources=SOURCES)
    assert manifest(tmp_path / "once")["dropped"] == {"repeated behaviours": 30}
    (tmp_path / "logs" / "shop-again.parquet").unlink()
    prepare(tmp_path / "logs", tmp_path / "plain", sources=SOURCES)
    assert contents(tmp_path / "once") == contents(tmp_path / "plain")


# ------------------------------------------------------------------------------------ row 5

CAP = 64
GIANT = 30_000  # the soak of docs/results/data.md has one of 30 million


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A dataset of a giant, of users with one behaviour, and of users whose times are all equal."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [("giant", 1_600_000_000 + n // 9, f"thing {n % 900}") for n in range(GIANT)]
    rows += [(f"single{n}", 1_600_000_000, f"thing {n}") for n in range(40)]
    rows += [(f"equal{n % 30}", 1_650_000_000, f"thing {n % 97}") for n in range(600)]
    rows += [("nothing", 1_600_000_000, "")]  # of whom no behaviour is left
    for service in ("shop", "news"):
        write(folder / "logs" / f"{service}.csv", rows)
    flags = (f"--config.max_history={CAP}", "--config.max_bad_rows=2")
    prepare(folder / "logs", folder / "out", *flags, sources=SOURCES)
    return folder / "out"


def test_they_are_cut_or_left_out_by_rule_and_counted(odd):
    found = users_of(odd)
    assert "nothing" not in found and len(found["single0"]) == 2
    assert len(found["giant"]) == 2 * CAP
    newest = [("shop", f"thing {n % 900}", 1_600_000_000 + n // 9) for n in range(GIANT)][-CAP:]
    assert found["giant"][:CAP] == newest
    texts = [text for service, text, _ in found["equal7"] if service == "shop"]
    assert texts == [f"thing {n % 97}" for n in range(7, 600, 30)]  # in order of appearance
    counted = manifest(odd)
    assert counted["rejects"] == {"text: is empty": 2}
    assert counted["dropped"] == {
        "behaviours beyond max_history": 2 * (GIANT - CAP),
        "histories cut to max_history": 2,
    }


@pytest.mark.parametrize("rule", ["--config.max_user_share=0.5", "--config.max_behaviours=1000"])
def test_a_robot_is_dropped_if_told_so(tmp_path, rule):
    rows = [("robot", 1_600_000_000 + n, "page") for n in range(2_000)] + good_rows(800)
    write(tmp_path / "logs" / "x.csv", rows)
    prepare(tmp_path / "logs", tmp_path / "out", rule)
    name = rule.split(".")[1].split("=")[0]
    assert manifest(tmp_path / "out")["dropped"] == {
        f"users above {name}": 1,
        f"behaviours of users above {name}": 2_000,
    }
    write(tmp_path / "logs" / "x.csv", good_rows(800))
    prepare(tmp_path / "logs", tmp_path / "without")
    assert contents(tmp_path / "out") == contents(tmp_path / "without")


def test_loss_and_gradient_are_finite_on_them(odd, tmp_path):
    # Every batch holds all of them but a few.
    flags = ["train.steps=3", "train.batch_users=64", "train.log_every=1", "train.eval_every=0"]
    flags += ["sampling.within_service_weight=1.0", "sampling.parts=WINDOWS"]
    overrides = [f"--config.{flag}" for flag in flags]
    run_stage("train", *train_arguments(odd, tmp_path / "run", *overrides))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert math.isfinite(row["loss"]) and row["loss"] > 0
        assert math.isfinite(row["gradient_norm"]) and row["gradient_norm"] > 0


# ------------------------------------------------------------------------------------ row 6


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_times_outside_of_time_are_rejected_by_rule(tmp_path, capfd, kind):
    rows = good_rows()
    rows[3] = ("u1", 4_000_000_000, "a pen")  # the year 2096
    rows[8] = ("u1", -1, "a pen")
    write(tmp_path / "logs" / f"x.{kind}", rows)
    prepare(tmp_path / "logs", tmp_path / "out", "--config.max_bad_rows=1", code=3)
    error = capfd.readouterr().err
    assert f"x.{kind}:4: column 'timestamp': '4000000000' is later than tomorrow" in error
    assert f"x.{kind}:9: column 'timestamp': '-1' is before 1970" in error
    prepare(tmp_path / "logs", tmp_path / "out", "--config.max_bad_rows=2")
    counted = {"timestamp: is before 1970": 1, "timestamp: is later than tomorrow": 1}
    assert manifest(tmp_path / "out")["rejects"] == counted


def test_milliseconds_and_any_order_of_rows_give_the_same_dataset(tmp_path):
    rows = good_rows(60)
    write(tmp_path / "plain" / "x.csv", rows)
    prepare(tmp_path / "plain", tmp_path / "expected")
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(60)]
    write(tmp_path / "shuffled" / "x.csv", [(u, t * 1_000 + 999, text) for u, t, text in shuffled])
    prepare(tmp_path / "shuffled", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_nothing_from_the_time_of_the_split_on_reaches_training(tmp_path):
    rng = np.random.default_rng(0)
    split = 1_600_000_000 + 10 * DAY
    for service, kind in (("shop", pa.int64()), ("news", pa.timestamp("ms"))):
        times = 1_600_000_000 + rng.integers(0, 20 * DAY, 400)
        times[:2] = split - 1, split
        words = np.where(times < split, "early", "late")
        table = {"user_id": rng.integers(0, 20, 400), "text": words}
        scale = 1_000 if pa.types.is_timestamp(kind) else 1
        table["timestamp"] = pa.array(times * scale).cast(kind)
        (tmp_path / "logs").mkdir(exist_ok=True)
        pq.write_table(pa.table(table), tmp_path / "logs" / f"{service}.parquet")
    end = str(np.datetime64(split, "s"))
    for name, flags in (("all", ()), ("window", (f"--config.end={end}",))):
        prepare(tmp_path / "logs", tmp_path / name, *flags, sources=SOURCES)
    times = {
        name: open_dataset(tmp_path / name).users("train").behaviour_times
        for name in ("all", "window")
    }
    assert times["all"].max() >= split  # the control
    assert times["window"].max() == split - 1
    late = int((times["all"] >= split).sum())
    filtered = manifest(tmp_path / "window")["filtered"]
    assert sum(filtered.values()) == late and set(filtered) == {
        f"{service}: from {end} on" for service in ("shop", "news")
    }
    assert set(open_dataset(tmp_path / "window").items().texts) == {"early"}
    # The tokenizer has not seen it either: the word is no token.
    assert len(open_dataset(tmp_path / "window").tokenizer.encode(["late"])[0]) > 1
    assert len(open_dataset(tmp_path / "all").tokenizer.encode(["late"])[0]) == 1


def test_the_window_of_all_sources_comes_on_top_of_theirs(tmp_path):
    write(tmp_path / "logs" / "x.csv", good_rows(20))
    flags = ("--config.start=2020-09-13T12:26:42", "--config.end=2020-09-13T12:26:50")
    source = "--config.sources[0].start=2020-09-13T12:26:45"
    prepare(tmp_path / "logs", tmp_path / "out", *flags, source)
    times = [time for mine in _users_of_one(tmp_path / "out") for time in mine]
    assert (min(times), max(times)) == (1_600_000_005, 1_600_000_009)
    assert manifest(tmp_path / "out")["filtered"] == {
        "shop: before 2020-09-13T12:26:45": 5,
        "shop: from 2020-09-13T12:26:50 on": 10,
    }


def _users_of_one(out):
    users = open_dataset(out).users("train")
    return np.split(users.behaviour_times, users.behaviour_offsets[1:-1])
