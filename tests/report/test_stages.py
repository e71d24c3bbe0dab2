"""`train` and `evaluate` leave a page, and no trouble with it is theirs."""

import pytest

from clue_jax import cli_stages
from clue_jax.errors import NonFiniteError, Preempted
from tests.stages import run_stage, train_arguments


def test_a_run_and_its_evaluation_have_pages(smoke_run, smoke_data, tmp_path, capsys):
    assert "Training" in (smoke_run / "report.html").read_text()
    users, out = tmp_path / "users", tmp_path / "evaluation"
    run_stage("export", f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={users}")
    evaluate = [
        "evaluate",
        "--config=configs/evaluate/matching.py",
        "--config.matching.min_behaviours=2",
        "--config.matching.bootstrap=5",
        "--config.matching.baselines=chance",
        f"--embeddings={users}",
        f"--out={out}",
    ]
    run_stage(*evaluate)
    assert "All results" in (out / "report.html").read_text()
    assert f"wrote {out / 'report.html'}" in capsys.readouterr().out
    # The page is no reason to take the folder for another one.
    (out / "report.html").write_text("of before")
    run_stage(*evaluate, code=5)
    assert (out / "report.html").read_text() == "of before"
    run_stage(*evaluate, "--config.overwrite=true")
    assert "All results" in (out / "report.html").read_text()
    run_stage("embeddings", "verify", str(users))


def test_a_page_that_fails_changes_no_exit_code(smoke_run, smoke_data, monkeypatch, capsys):
    def fails(directory):
        raise OSError("no room")

    monkeypatch.setattr(cli_stages, "_report", fails)
    run_stage("train", *train_arguments(smoke_data, smoke_run))
    printed = capsys.readouterr().out
    assert "no report.html: OSError: no room" in printed
    assert printed.splitlines()[-1].startswith("clue-jax train: done in ")


@pytest.mark.parametrize("error", [Preempted("stopped"), NonFiniteError("diverged")])
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_was_stopped_has_a_page_and_keeps_its_reason(
    error, fails, tmp_path, monkeypatch
):
    pages = []

    def report(directory):
        pages.append(directory)
        if fails:
            raise ValueError("the page")

    monkeypatch.setattr(cli_stages, "_report", report)
    with pytest.raises(type(error)) as raised, cli_stages._with_page(str(tmp_path)):
        raise error  # before there was anything to make a card of
    assert raised.value is error and pages == [str(tmp_path)]


def test_a_run_that_never_was_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(cli_stages, "_report", lambda directory: pytest.fail("a page"))
    with pytest.raises(ValueError), cli_stages._with_page(str(tmp_path)):
        raise ValueError
