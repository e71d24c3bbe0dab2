"""Quickstart runs each stage once, continues where it stopped, and passes on how a stage ended.

The stages are played by a small script, so that only quickstart itself is tried here.
"""

import json
import stat
import sys

import pytest
from etils import epath

from clue_jax import quickstart, stage_process
from clue_jax.errors import LockedError
from clue_jax.leases import lease
from clue_jax.report.expected import read_expected

PLAYER = """#!{python} -S
import json, os, pathlib, signal, sys, time
root = pathlib.Path({root!r})
stage = sys.argv[3]
with open(root / "calls.jsonl", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
print("output of", stage, flush=True)
plan = json.loads((root / "plan.json").read_text()).get(stage, "")
if plan.startswith("exit"):
    sys.exit(int(plan.split()[1]))
if plan.startswith("kill"):
    os.kill(os.getpid(), signal.SIGKILL)
if plan.startswith("signal"):
    # The signal comes to quickstart; the stage ends by itself some time later, or is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    os.kill(os.getppid(), int(plan.split()[1]))
    time.sleep(0.3 if plan.endswith("saves") else 20)
    sys.exit(75)
folder = {{"synthesize": "logs", "prepare": "data", "train": "run", "export": "embeddings"}}
folder = root / "out" / folder.get(stage, "evaluation")
folder.mkdir(exist_ok=True)
(folder / ("metrics.jsonl" if stage == "train" else "manifest.json")).write_text("")
scores = {{"encoder": 0.8, "tfidf": 0.2}}
results = [
    {{"task": task, "model": model, "metric": metric, "value": score * scale}}
    for task, scale in (("a<->b (mean)", 1.0), ("a<->c (mean)", 0.5), ("a->b", 0.0))
    for model, score in {{**scores, "encoder - tfidf": 0.6}}.items()
    for metric in ("recall_at_10", "mrr")
]
if stage == "evaluate":
    (folder / "results.json").write_text(json.dumps(results))
"""


@pytest.fixture
def stage_player(tmp_path, monkeypatch):
    """Sets how each stage behaves; gives the commands that were run since."""
    player = tmp_path / "player"
    player.write_text(PLAYER.format(python=sys.executable, root=str(tmp_path)))
    player.chmod(player.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(stage_process.sys, "executable", str(player))
    calls = tmp_path / "calls.jsonl"

    def play(**plan):
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        calls.write_text("")
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return play


ALL = ["synthesize", "prepare", "train", "export", "evaluate", "report"]


def test_all_stages_in_order_then_a_summary(tmp_path, stage_player, capfd):
    calls = stage_player()
    out = str(tmp_path / "out")
    quickstart.quickstart(out)
    assert [call[2] for call in calls()] == ALL
    assert all(call[:2] == ["-m", "clue_jax"] for call in calls())
    assert calls()[2][3:] == [
        "--config=configs/pretrain.py:quickstart",
        f"--data={out}/data",
        f"--workdir={out}/run",
    ]
    recorded = json.loads((tmp_path / "out" / "commands.json").read_text())
    assert [entry["stage"] for entry in recorded] == ALL[:-1]
    assert [entry["argv"][1:] for entry in recorded] == calls()[:-1]
    printed = capfd.readouterr().out
    command = "$ python -m clue_jax prepare --config=configs/data/synthetic.py:quickstart"
    assert printed.index(command) < printed.index("output of prepare")
    assert "encoder                    0.600   0.600   expected R@10" in printed
    assert "tfidf                      0.150   0.150\n" in printed
    assert "encoder - tfidf" not in printed and "mean of 2 pairs" in printed
    assert f"{out}/report.html" in printed
    expected = read_expected(epath.Path(out) / "expected.json")
    assert expected == quickstart.TO_EXPECT and f"expected R@10 {expected.low:.2f} to" in printed


def test_a_rerun_skips_what_is_complete(tmp_path, stage_player, capfd):
    stage_player()
    quickstart.quickstart(str(tmp_path / "out"))
    calls = stage_player()
    quickstart.quickstart(str(tmp_path / "out"))
    assert [call[2] for call in calls()] == ["report"]
    assert "train: complete already, skipped" in capfd.readouterr().out


@pytest.mark.parametrize(("plan", "code"), [("exit 6", 6), ("exit 75", 75), ("kill", 137)])
def test_a_failing_stage_is_named_and_a_rerun_continues(tmp_path, stage_player, plan, code):
    stage_player(train=plan)
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "metrics.jsonl").write_text("")  # it had begun
    with pytest.raises(quickstart.StageFailedError, match="clue_jax train") as failure:
        quickstart.quickstart(str(tmp_path / "out"))
    assert failure.value.exit_code == code
    calls = stage_player()
    quickstart.quickstart(str(tmp_path / "out"))
    assert [call[2] for call in calls()] == ALL[2:]


@pytest.mark.parametrize("plan", ["signal 2 saves", "signal 15"])
def test_a_signal_lets_the_stage_save(tmp_path, stage_player, plan):
    calls = stage_player(train=plan)
    with pytest.raises(quickstart.StageFailedError) as failure:
        quickstart.quickstart(str(tmp_path / "out"))
    assert failure.value.exit_code == 75
    assert [call[2] for call in calls()] == ALL[:3]


def test_two_quickstarts_in_one_folder_are_refused(tmp_path, stage_player):
    calls = stage_player()
    (tmp_path / "out").mkdir()
    with lease(tmp_path / "out" / "quickstart.lock"), pytest.raises(LockedError):
        quickstart.quickstart(str(tmp_path / "out"))
    assert calls() == []


def test_the_summary_says_when_a_result_is_unexpected():
    low, high = quickstart.TO_EXPECT.low, quickstart.TO_EXPECT.high
    entry = {"task": "a->b", "model": "encoder", "metric": "recall_at_10"}
    assert "OUTSIDE" in quickstart.summary([entry | {"value": low - 0.01}])
    assert "OUTSIDE" not in quickstart.summary([entry | {"value": (low + high) / 2}])
