"""Whether training users are told from others, where training left a trace and where not."""

import numpy as np
import pytest

from clue_jax.errors import DataError
from tests.evaluation.audit_world import PEOPLE, holds, run, value, write_people

TOLD = "audit/membership/art<->office"
SPLITS = np.where(np.arange(PEOPLE) % 3 == 0, "test", "train").astype(object)


def test_training_users_are_told_by_how_near_their_vectors_are(tmp_path, capsys):
    noise = np.where(SPLITS == "train", 0.1, 0.3)
    write_people(tmp_path / "users", noise=noise, splits=SPLITS)
    results = run(tmp_path, membership=True)
    auc, found = (results[TOLD, "clue", m] for m in ("auc", "tpr_at_1_percent_fpr"))
    assert auc["low"] > 0.9 and found["value"] > 0.5 and auc["n"] == PEOPLE
    assert value(results, "auc", TOLD, "chance") == 0.5
    assert "who was trained on is told by how near" in capsys.readouterr().out


def test_training_that_left_no_trace_is_not_told(tmp_path, capsys):
    write_people(tmp_path / "users", noise=0.3, splits=SPLITS)
    results = run(tmp_path, membership=True)
    assert holds(results, "auc", 0.5, TOLD)
    assert value(results, "tpr_at_1_percent_fpr", TOLD) < 0.1
    assert "who was trained on is not told" in capsys.readouterr().out


def test_membership_needs_users_of_both_kinds(tmp_path):
    write_people(tmp_path / "users")
    with pytest.raises(DataError, match=r"this one has test: export with .*audit\.membership=f"):
        run(tmp_path, membership=True)
    few = np.full(PEOPLE, "test", object)
    few[:9] = "train"
    write_people(tmp_path / "users", splits=few)
    with pytest.raises(DataError, match="art and office: 9 training users .*min_audience=30"):
        run(tmp_path, membership=True)
    assert not (tmp_path / "out").exists()
