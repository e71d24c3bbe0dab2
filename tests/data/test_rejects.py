import json

import pytest
from etils import epath

from clue_jax.data.rejects import Reject, Rejects, publish_rejects
from clue_jax.errors import DataError

BAD = Reject(3, "timestamp", "is not an ISO date or an epoch", "abc")


def test_message():
    expected = "a.csv:3: column 'timestamp': 'abc' is not an ISO date or an epoch"
    assert BAD.message("a.csv") == expected
    assert Reject(4, "", "is not JSON").message("a.jsonl") == "a.jsonl:4: is not JSON"


def listed(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_more_than_tolerated_stops(tmp_path):
    rejects = Rejects(2, tmp_path)
    rejects.add(0, "a.csv", "logs/a.csv", [Reject(9, "user_id", "is empty"), BAD])
    assert rejects.counts == {
        "timestamp: is not an ISO date or an epoch": 1,
        "user_id: is empty": 1,
    }
    with pytest.raises(DataError, match=r"(?s)logs/a.csv:3: .*a.csv:9: .*max_bad_rows=N \(now 2\)"):
        rejects.add(0, "a.csv", "logs/a.csv", [BAD])
    publish_rejects([tmp_path], epath.Path(tmp_path) / "rejects.jsonl")
    written = listed(tmp_path / "rejects.jsonl")
    assert [record["row"] for record in written] == [3, 9, 3]
    assert written[0] == {
        "file": "a.csv",
        "row": 3,
        "column": "timestamp",
        "reason": "is not an ISO date or an epoch",
    }


def test_those_of_several_processes_are_in_order_of_files(tmp_path):
    shares = []
    for name, units in (("x", (0, 3)), ("y", (1, 2))):
        (tmp_path / name).mkdir()
        share = Rejects(5, tmp_path / name)
        for unit in units:
            share.add(unit, f"{unit}.csv", f"logs/{unit}.csv", [BAD])
        shares.append(share)
    whole = Rejects(4)
    for share in shares:
        whole.merge(share)
    assert whole.counts.total() == 4
    assert [message[:10] for _, message in whole.first] == [f"logs/{n}.csv" for n in range(4)]
    with (tmp_path / "x" / "rejects-0000003.jsonl").open("a") as half:
        half.write('{"file": "3.c')
    publish_rejects([tmp_path / "y", tmp_path / "x"], epath.Path(tmp_path) / "rejects.jsonl")
    assert [record["file"] for record in listed(tmp_path / "rejects.jsonl")] == [
        f"{n}.csv" for n in range(4)
    ]
    few = Rejects(3)
    few.merge(shares[1])
    with pytest.raises(DataError, match=r"(?s)with 3 tolerated.*logs/0.csv:3.*logs/3.csv:3"):
        few.merge(shares[0])


def test_no_rejects_no_file(tmp_path):
    path = epath.Path(tmp_path) / "rejects.jsonl"
    path.write_text("of an interrupted run")
    Rejects(0, tmp_path).add(0, "a", "a", [])
    publish_rejects([tmp_path], path)
    assert not path.exists()
