"""Progress with rate and time left, also where nobody looks at a terminal."""

import itertools
from types import SimpleNamespace

from clue_jax import console


def clock_of(monkeypatch, *moments):
    times = itertools.chain(moments, itertools.repeat(moments[-1]))
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(times)))


def test_a_log_file_gets_a_line_now_and_then(monkeypatch, capsys):
    clock_of(monkeypatch, 0.0, 10.0, 40.0, 50.0, 100.0)
    with console.progress("prepare: users", 4_000) as advance:
        for _ in range(4):
            advance(500)
    assert capsys.readouterr().out.splitlines() == [
        "prepare: users: 1,000 of 4,000 (25%), eta 2:00, 25/s",
        "prepare: users: 2,000 of 4,000 (50%), eta 1:40, 20/s",
    ]


def test_what_is_done_soon_says_nothing(monkeypatch, capsys):
    clock_of(monkeypatch, 0.0, 1.0)
    with console.progress("prepare: users", 4_000) as advance:
        advance(4_000)
    assert capsys.readouterr().out == ""


def test_without_a_total_there_is_no_time_left(monkeypatch, capsys):
    clock_of(monkeypatch, 0.0, 31.0)
    with console.progress("reading") as advance:
        advance(62)
    assert capsys.readouterr().out == "reading: 62, 2/s\n"


def test_hours_only_where_there_are_any():
    assert [console.duration_text(s) for s in (59.9, 61, 3_725)] == ["0:59", "1:01", "1:02:05"]
