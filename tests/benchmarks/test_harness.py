"""The parts that benchmarks share do what a ratio relies on; no peer is needed here."""

import json
import sys

import numpy as np
import pytest

from clue_jax.config import EncoderConfig
from clue_jax.data.sampling import full_views
from tests.benchmarks import harness, workloads
from tests.model.padded import pad
from tests.samples import sample_users

LINE = dict(benchmark="loss", metric="seconds", ours=1.0, peer=2.0, peer_name="open_clip")
LINE |= dict(ratio=2.0, reach=1.5)


def python(source):
    return [sys.executable, "-c", source]


def appending(path, name):
    """A side that leaves its name in a file, and counts the lines there as its result."""
    return python(
        f"import json\nwith open({str(path)!r}, 'a+') as f:\n"
        f"    f.write('{name}'); f.seek(0)\n"
        "    print('a line of progress'); print(json.dumps({'calls': len(f.read())}))"
    )


def test_sides_run_in_turn_and_their_last_lines_are_read(tmp_path):
    log = tmp_path / "log"
    sides = {"ours": appending(log, "A"), "peer": appending(log, "B")}
    printed = harness.interleaved(sides, rounds=3)
    assert log.read_text() == "ABABAB"
    assert printed == {
        "ours": [{"calls": 1}, {"calls": 3}, {"calls": 5}],
        "peer": [{"calls": 2}, {"calls": 4}, {"calls": 6}],
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys; sys.exit('out of memory')", "peer: exit code 1: out of memory"),
        ("print('done')", "peer: the last line .* no JSON object: 'done'"),
        ("print(3)", "peer: the last line .* no JSON object: '3'"),
        ("", "peer: the last line .* no JSON object"),
    ],
)
def test_a_failing_side_is_named_with_what_it_said(source, message):
    with pytest.raises(RuntimeError, match=message):
        harness.interleaved({"peer": python(source)}, rounds=1)


def test_summary_is_the_median_and_the_relative_spread():
    assert harness.summary([4.0, 1.0, 2.0]) == (2.0, 1.5)


def test_the_median_lies_between_order_statistics():
    """Tables of the sign test: of 20 values the 6th and the 15th, of 6 the least and the most."""
    assert harness.median_bounds(list(range(20, 0, -1))) == (6, 15)
    assert harness.median_bounds(range(1, 7)) == (1, 6)
    assert harness.median_bounds([3.0, 1.0]) == (1.0, 3.0)
    assert harness.median_bounds([2.0]) == (2.0, 2.0)


def test_a_line_is_printed_and_recorded_only_when_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    harness.emit(False, **LINE)
    assert not harness.RESULTS.exists()
    harness.emit(True, **LINE, rounds=5)
    harness.emit(True, **LINE, device="a device")
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    recorded = (harness.RESULTS / "loss.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in recorded] == printed[1:]
    assert list(printed[0])[:8] == list(harness.REQUIRED)
    assert printed[0] | LINE == printed[0]
    assert printed[0]["device"].startswith("cpu") and printed[2]["device"] == "a device"
    assert printed[1]["rounds"] == 5


def test_a_line_without_a_reach_is_refused():
    incomplete = {name: value for name, value in LINE.items() if name != "reach"}
    with pytest.raises(ValueError, match="needs reach as well"):
        harness.emit(False, **incomplete)


def test_matmul_rate_is_that_of_a_computer():
    assert 1e8 < harness.matmul_rate("float32", repeats=1) < 1e17


def test_the_peers_interpreter_can_be_given(monkeypatch):
    monkeypatch.setenv("CLUE_BENCH_PYTHON", "/some/python")
    assert harness.peer_python() == "/some/python"


def test_uniform_users_leave_no_padding_and_nothing_twice(tmp_path):
    users = workloads.uniform_users(6, histories=5, tokens=8)
    config = EncoderConfig(max_history=5, max_item_tokens=8)
    views = full_views(users, config.max_history)
    workloads.padded_npz(users, views, config, tmp_path / "batch.npz")
    with np.load(tmp_path / "batch.npz") as file:
        tokens, is_token = file["tokens"], file["is_token"]
    assert tokens.shape == (6, 2, 5, 8) and is_token.all()
    assert len(np.unique(tokens.reshape(-1, 8), axis=0)) == 6 * 2 * 5
    assert len(np.unique(users.item_ids[views.items])) == 6 * 2 * 5
    assert tokens.max() < workloads.VOCABULARY


def test_the_peers_batch_is_the_padded_form_of_the_views(tmp_path):
    users = sample_users(20)
    config = EncoderConfig(max_history=4, max_item_tokens=6)
    views = full_views(users, config.max_history)
    workloads.padded_npz(users, views, config, tmp_path / "batch.npz")
    with np.load(tmp_path / "batch.npz") as file:
        for name, expected in zip(("tokens", "is_token"), pad(users, views, config), strict=True):
            np.testing.assert_array_equal(file[name], expected)


def test_zipf_users_all_have_two_services_and_share_items(capsys):
    users = workloads.zipf_users(40, items_per_service=200)
    assert len(users) == 40 and users.services == workloads.SERVICES
    assert (users.counts() > 0).all()
    assert len(np.unique(users.item_ids)) < len(users.item_ids)
    assert users.tokens.max() < workloads.VOCABULARY
    assert capsys.readouterr().out == "", "a side's last line of output is its result"
