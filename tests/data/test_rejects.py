import json

import pytest
from etils import epath

from clue_jax.data.rejects import Reject, Rejects
from clue_jax.errors import DataError

BAD = Reject(3, "timestamp", "is not an ISO date or an epoch", "abc")


def test_message():
    expected = "a.csv:3: column 'timestamp': 'abc' is not an ISO date or an epoch"
    assert BAD.message("a.csv") == expected
    assert Reject(4, "", "is not JSON").message("a.jsonl") == "a.jsonl:4: is not JSON"


def test_one_more_than_tolerated_stops(tmp_path):
    path = epath.Path(tmp_path) / "rejects.jsonl"
    rejects = Rejects(2, path)
    rejects.add("a.csv", "logs/a.csv", [Reject(9, "user_id", "is empty"), BAD])
    assert rejects.counts == {
        "timestamp: is not an ISO date or an epoch": 1,
        "user_id: is empty": 1,
    }
    with pytest.raises(DataError, match=r"(?s)logs/a.csv:3: .*a.csv:9: .*max_bad_rows=N \(now 2\)"):
        rejects.add("a.csv", "logs/a.csv", [BAD])
    rejects.close()
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["row"] for record in written] == [3, 9, 3]
    assert written[0] == {
        "file": "a.csv",
        "row": 3,
        "column": "timestamp",
        "reason": "is not an ISO date or an epoch",
    }


def test_no_rejects_no_file(tmp_path):
    path = epath.Path(tmp_path) / "rejects.jsonl"
    path.write_text("of an interrupted run")
    rejects = Rejects(0, path)
    rejects.add("a", "a", [])
    rejects.close()
    assert not path.exists()
