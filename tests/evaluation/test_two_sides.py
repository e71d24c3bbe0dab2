"""Linkage between two exports, of one encoder or of two, whose ids may differ."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax import files
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation.two_sides import turned
from tests.embeddings.exports import random_users, unit, write_export
from tests.evaluation.audit_world import OTHER, PEOPLE, WIDTH, holds, run, value, write_people


def rotated(users, seed=7):
    """The same people from an encoder of another space."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))
    return {name: unit(users[name] @ turn) for name in ("z_NSE", "embedding_NE")}


def beside(tmp_path, **keys):
    return run(tmp_path, beside=(f"other={tmp_path / 'other'}",), **keys)


def test_another_export_of_the_same_encoder(tmp_path):
    write_people(tmp_path / "users", noise=0.1)
    write_people(tmp_path / "other", noise=0.1, seed=1)
    assert value(beside(tmp_path), "recall_at_1", f"{OTHER} (mean)") > 0.9
    linked = files.read_json(tmp_path / "out" / "evaluated.json")["linked"]
    assert linked == {"art<->office": PEOPLE, "clue<->other": PEOPLE}


def test_fewer_dimensions_of_the_same_encoder(tmp_path):
    users = write_people(tmp_path / "users")
    narrow = {name: unit(users[name][..., :6]) for name in ("z_NSE", "embedding_NE")}
    write_export(tmp_path / "other", {**users, **narrow})
    assert value(beside(tmp_path), "recall_at_1", f"{OTHER} (mean)") == 1.0


def test_another_encoder_is_turned_by_those_who_are_known(tmp_path):
    write_people(tmp_path / "users")
    nearly = write_people(tmp_path / "nearly", noise=0.1)
    write_people(tmp_path / "other", **rotated(nearly), model_version="model-2")
    results = beside(tmp_path, known=(3, 40))
    few, enough = (f"{OTHER}, {count} known pairs (mean)" for count in (3, 40))
    assert value(results, "recall_at_1", enough) > 0.95
    chance = value(results, "recall_at_10", few, "chance")
    assert 1.5 * chance < value(results, "recall_at_10", few) < 0.9
    # The same people are looked for by both: nobody whom one of the two attackers knows.
    assert {results[t, "clue", "recall_at_1"]["n"] for t in (few, enough)} == {PEOPLE - 40}


def test_an_unrelated_encoder_links_nobody(tmp_path):
    write_people(tmp_path / "users")
    write_people(tmp_path / "other", noise=1e6, model_version="model-2")
    task = f"{OTHER}, 40 known pairs (mean)"
    results = beside(tmp_path, known=(40,))
    assert holds(results, "recall_at_10", value(results, "recall_at_10", task, "chance"), task)


def test_rotation_and_widths():
    rng = np.random.default_rng(0)
    first = unit(rng.normal(size=(50, 8)))
    wide = np.concatenate([first[:, ::-1], np.zeros((50, 4))], axis=1)
    a, b = turned(first, wide, np.arange(20))
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert a.shape == (50, 8)  # the directions that those who are known span


def test_people_of_other_ids_need_a_table(tmp_path):
    users = write_people(tmp_path / "users")
    ids = np.array([f"p{n}" for n in range(PEOPLE)], object)
    order = np.random.default_rng(0).permutation(PEOPLE)
    moved = {name: users[name][order] for name in ("z_NSE", "embedding_NE")}
    write_people(tmp_path / "other", user_ids=ids[order], **moved)
    with pytest.raises(DataError, match=r"none of the 240 people .* --config\.audit\.pairs=NAME="):
        beside(tmp_path)

    def with_table(user_ids, other_ids):
        table = pa.table({"user_id": list(user_ids), "other_id": list(other_ids)})
        pq.write_table(table, tmp_path / "pairs.parquet")
        return beside(tmp_path, pairs=(f"other={tmp_path / 'pairs.parquet'}",))

    results = with_table(users["user_ids"], ids)
    assert value(results, "recall_at_1", f"{OTHER} (mean)") == 1.0
    with pytest.raises(DataError, match="2 rows repeat a 'other_id'; one row a pair"):
        with_table(users["user_ids"][:3], ["p1", "p1", "p1"])
    with pytest.raises(DataError, match="no row of .*pairs.parquet names a user_id of the evalu"):
        with_table(["x"], ["y"])
    pq.write_table(pa.table({"user_id": ["a"]}), tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match="no column 'other_id'; it has user_id"):
        beside(tmp_path, pairs=(f"other={tmp_path / 'pairs.parquet'}",))


def test_too_few_people_in_both(tmp_path):
    users = write_people(tmp_path / "users")
    write_people(tmp_path / "other", **rotated(users), model_version="model-2")
    with pytest.raises(DataError, match=r"240 people .* 239 are known .* --config\.audit\.known"):
        beside(tmp_path, known=(239,))
    write_people(tmp_path / "idle", counts_NS=np.ones((PEOPLE, 2), int))
    with pytest.raises(DataError, match=r"0 people have at least 5 .*audit\.min_behaviours"):
        run(tmp_path, beside=(f"idle={tmp_path / 'idle'}",))


def test_one_service_alone_is_linked_to_another_export(tmp_path):
    users = random_users(PEOPLE, ("art",), width=WIDTH, splits=np.full(PEOPLE, "test", object))
    users["counts_NS"][:] = 9
    for name in ("users", "other"):
        write_export(tmp_path / name, users)
    with pytest.raises(ConfigError, match="audit needs two services, but there is only art"):
        run(tmp_path)
    with pytest.raises(ConfigError, match="there is only art; leave it out with --config.audit.me"):
        beside(tmp_path, membership=True)
    results = beside(tmp_path)
    assert {task.partition(" among ")[0] for task, _, _ in results} == {f"{OTHER} (mean)"}
