"""A page that follows a run: loaded again while somebody is at work, and then no more."""

import json
import signal
import threading
import time

import pytest

from clue_jax.errors import DataError
from clue_jax.leases import is_held, lease
from clue_jax.report import live
from clue_jax.report.page import write_report
from tests.report.test_page import Outline, fill_run
from tests.stages import finish, run_stage, start, train_arguments, wait_until

REFRESH = '<meta http-equiv="refresh"'


def fill(folder, steps=200):
    fill_run(folder)
    config = {"train": {"batch_users": 32, "steps": steps}}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_lease_is_held_until_it_is_released(tmp_path):
    assert not is_held(tmp_path / "lock")
    with lease(tmp_path / "lock"):
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")


def test_a_page_says_where_its_run_stands(tmp_path):
    fill(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "Stopped at step 40 of 200; the same command continues it." in page
    with lease(tmp_path / "lock"):
        page = write_report(tmp_path, again=7).read_text()
    # 160 steps of 32 users at 1,234 users a second.
    assert "Running: step 40 of 200, about 0:04 left." in Outline(page).text
    assert f'{REFRESH} content="7">' in page and '<progress max="1" value="0.200"' in page
    fill(tmp_path, steps=40)
    page = write_report(tmp_path).read_text()
    assert "Complete: step 40 of 40." in page and REFRESH not in page and "<progress" not in page


def test_pages_are_written_until_the_run_ends(tmp_path, capsys):
    pages, ended = [], threading.Event()

    def write(again):
        pages.append(again)
        if len(pages) == 1:
            raise DataError("metrics.jsonl: not there yet")
        if len(pages) == 3:
            ended.set()

    def at_work():
        with lease(tmp_path / "run" / "lock"):
            ended.wait()

    worker = threading.Thread(target=at_work)
    worker.start()
    while not live.is_live(tmp_path):
        time.sleep(0.01)
    live.follow(tmp_path, 0.05, write)
    worker.join()
    assert len(pages) >= 3 and set(pages) == {1}
    assert "the run has ended" in capsys.readouterr().out


def test_where_nobody_is_at_work_one_page_is_written(tmp_path, capsys):
    fill(tmp_path)
    run_stage("report", str(tmp_path), "--follow")
    assert "nothing is at work" in capsys.readouterr().out
    assert REFRESH not in (tmp_path / "report.html").read_text()


def test_an_interrupt_leaves_a_page_that_is_not_loaded_again(tmp_path):
    fill(tmp_path)
    pages = []

    def write(again):
        pages.append(again)
        if again:
            raise KeyboardInterrupt

    with lease(tmp_path / "lock"), pytest.raises(KeyboardInterrupt):
        live.follow(tmp_path, 0.05, write)
    assert pages == [1, 0]


def test_a_real_run_is_followed(smoke_data, tmp_path):
    run, page = tmp_path / "run", tmp_path / "run" / "report.html"
    overrides = "--config.train.steps=100000", "--config.train.log_every=1"
    trains = start("train", *train_arguments(smoke_data, run, *overrides))
    follows = None
    try:
        wait_until(lambda: (run / "metrics.jsonl").exists(), trains)
        follows = start("report", str(run), "--follow", "--every=1")
        wait_until(lambda: page.exists() and "Running: step" in page.read_text(), follows)
        assert f'{REFRESH} content="1">' in page.read_text()
        trains.send_signal(signal.SIGTERM)
        assert "preempted" in finish(trains, code=75)
        assert "the run has ended" in finish(follows)
    finally:
        for process in filter(None, (trains, follows)):
            process.kill()
    assert "Stopped at step" in page.read_text() and REFRESH not in page.read_text()
