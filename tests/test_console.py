"""Progress with rate and time left, also where nobody looks at a terminal."""

import io
import itertools
import re
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


def test_counts_are_short():
    counts = {0: "0", 3_000: "3,000", 99_949: "99,949", 99_951: "100k", 2_064_329: "2.06M"}
    counts |= {999_600: "1M", 2e11: "200G", 5e15: "5e+03T"}
    assert {count: console.count_text(count) for count in counts} == counts


def test_a_bar_fits_a_narrow_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(console.sys, "stderr", screen)
    for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with console.progress("prepare: checksums of the logs", 3e11) as advance:
        advance(1e11)
        advance(2e11)
    frames = re.split(
        r"[\r\n]+|\x1b\[2K", re.sub(r"\x1b\[[\d;?]*[A-JL-Za-z]", "", screen.getvalue())
    )
    last = [frame for frame in frames if frame.strip()][-1]
    assert "300G/300G" in last and "/s" in last and "0:00:00" in last
    assert max(map(len, frames)) <= 80 and "…" not in screen.getvalue()
