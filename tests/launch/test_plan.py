"""Commands are shown as a shell would run them, run as they are shown, and named when they fail."""

import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clue_jax.errors import ClueError, ConfigError, LostPeerError
from launch import plan
from launch.plan import Command, Poll, command

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(WORDS, min_size=1))
def test_a_command_goes_through_a_shell_and_back(words):
    assert shlex.split(Command(tuple(words)).text()) == words


def test_flags_with_no_value_are_left_out():
    made = command("tool", "verb", some_flag="a b", other="", yes=True, no=False, number=0)
    assert made.argv == ("tool", "verb", "--some-flag=a b", "--yes", "--number=0")


def test_input_is_shown():
    shown = Command(("cat", "a b"), "one\n$(two)\n").text()
    assert shown == "cat 'a b' <<'END_OF_INPUT'\none\n$(two)\nEND_OF_INPUT"


def test_programs_that_are_missing_are_all_named_with_a_way_to_get_them(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError) as raised:
        plan.require_tools(["gcloud", "kubectl", "sbatch", sys.executable, "gcloud"])
    said = str(raised.value)
    assert "gcloud (https://cloud.google.com/sdk" in said and said.count("gcloud (") == 1
    assert "kubectl (" in said and "sbatch (run this on a login node" in said
    assert sys.executable not in said


def test_what_fails_is_named_and_the_rest_is_not_started(tmp_path):
    failing = Command((sys.executable, "-c", "exit(3)"))
    after = Command((sys.executable, "-c", f"open({str(tmp_path / 'made')!r}, 'w')"))
    with pytest.raises(ClueError, match=r"exit\(3\)'?: ended with 3"):
        plan.run_all([failing, after])
    assert not (tmp_path / "made").exists()


def counting(tmp_path, *answers):
    """A program that gives another answer each time; the last one for ever."""
    source = (
        "import pathlib, sys\n"
        f"file = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "n = int(file.read_text()) if file.exists() else 0\n"
        "file.write_text(str(n + 1))\n"
        f"answer = {answers!r}[min(n, {len(answers) - 1})]\n"
        "sys.exit(1) if answer is None else print(answer)\n"
    )
    return (sys.executable, "-c", source)


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        (("WAITING", "ACTIVE"), 0),
        (("WAITING", None, "FAILED|3:0"), 3),
        (("FAILED|1:0",), 1),
        ((None,), LostPeerError.exit_code),
    ],
)
def test_a_question_is_asked_until_there_is_an_answer(tmp_path, answers, code):
    outcomes = {"ACTIVE": 0, "FAILED|3": 3, "FAILED": 1}
    assert plan.ask(Poll(counting(tmp_path, *answers), outcomes, 0.01), patience=3) == code


def test_nobody_waits_for_ever(tmp_path):
    poll = Poll(counting(tmp_path, "False"), {"True": 0}, 0.01, limit=0.03)
    assert plan.ask(poll) == LostPeerError.exit_code
    assert (tmp_path / "count").read_text() == "3"
    shown = subprocess.run(["/bin/sh", "-euc", poll.text()])
    assert shown.returncode == LostPeerError.exit_code
    assert (tmp_path / "count").read_text() == "6"


def test_what_grows_is_followed(tmp_path, capfd):
    answers = ("one", "one\ntwo", "one\n2", None)  # rows are taken back, then it fails
    asked = Command(counting(tmp_path, *answers), again=0.01)
    assert asked.text().endswith("  # every 0.01 s")
    with pytest.raises(ClueError, match="ended with 1"):
        plan.follow(asked)
    assert capfd.readouterr().out.endswith("s\none\ntwo\n2\n")


def test_side_by_side_one_that_fails_ends_the_others(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("launch.local.PEER_SECONDS", 0.2)
    python = (sys.executable, "-c")
    waits = Command((*python, "import time; time.sleep(60)"))
    with pytest.raises(ClueError, match="one of 3 commands, see above, ended with 4"):
        plan.run_together([waits, Command((*python, "print('no disk'); exit(4)")), waits])
    said = capfd.readouterr().out
    assert "+ [1] " in said and "[1] no disk" in said
    # Each waits for the other's file, so that one after the other they would never end.
    meets = "import pathlib, sys, time\nopen(sys.argv[1], 'w')\n"
    meets += "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    names = str(tmp_path / "a"), str(tmp_path / "b")
    plan.run_together([Command((*python, meets, *names)), Command((*python, meets, *names[::-1]))])


def test_a_question_is_shown_as_a_loop_that_a_shell_runs(tmp_path):
    for answers, code in ((("no", "yes"), 0), (("no", "over"), 7)):
        poll = Poll(counting(tmp_path, *answers), {"yes": 0, "over": 7}, 0.01)
        assert subprocess.run(["/bin/sh", "-c", poll.text()]).returncode == code
        (tmp_path / "count").unlink()
