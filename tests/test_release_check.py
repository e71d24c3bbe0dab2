"""The release check says what is wrong, and its exit code that something is."""

import http.server
import re
import subprocess
import threading
from pathlib import Path

import pytest

from tests import release_check
from tests.release_check import (
    CheckFailedError,
    check_links,
    check_versions,
    check_web_links,
    run_checks,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the files that are looked at."""
    for file in ("clue_jax/__init__.py", "CHANGELOG.md", "CITATION.cff"):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text((ROOT / file).read_text())
    return tmp_path


def test_versions_of_this_checkout_agree():
    assert check_versions() == release_check.check_versions(ROOT)


def undated(changelog):
    """Entries under no date, and dates that are not older than the one above them."""
    found, date = [], "9999-99-99"
    for line in changelog.splitlines():
        if line.startswith("## "):
            date, inside = "9999-99-99", False
        elif match := re.fullmatch(r"### (\d{4}-\d\d-\d\d)", line):
            inside = match[1] < date
            date = match[1]
            found += [] if inside else [line]
        elif line.startswith("- ") and not inside:
            found.append(line)
    return found


def test_every_change_has_its_date():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert changelog.count("\n- ") > 20 and undated(changelog) == []
    older = "### 2026-11-24\n\n- one\n\n### 2026-11-25\n\n- another\n"
    assert undated(f"## 1\n\n- none\n\n{older}") == ["- none", "### 2026-11-25", "- another"]


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("clue_jax/__init__.py", "__version__ = ", '__version__ = "9.9"\n_old = '),
        ("CHANGELOG.md", "# Changelog\n", "# Changelog\n\n## 9.9\n"),
        ("CITATION.cff", "\nversion: ", "\nversion: 9.9\nolder: "),
        ("CITATION.cff", "\nversion: ", "\nversions: "),
    ],
)
def test_a_version_that_differs_is_found(checkout, file, before, after):
    assert check_versions(checkout) == check_versions()
    path = checkout / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(CheckFailedError, match=rf"{file} has (9\.9|none)"):
        check_versions(checkout)


def test_a_broken_link_fails_the_check(checkout):
    assert "lead somewhere" in check_links(checkout)
    (checkout / "docs").mkdir()
    (checkout / "docs/page.md").write_text("[nowhere](none.md)")
    with pytest.raises(CheckFailedError, match=r"docs/page.md: none.md: no such file"):
        check_links(checkout)


@pytest.fixture
def web():
    """Address of a server that answers a path `/CODE` with that status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path[1:]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_dead_web_link_fails_the_check(checkout, web, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    page = checkout / "README.md"
    page.write_text(f"[a]({web}/200) [b]({web}/403)")
    assert check_web_links(checkout) == "2 addresses answer"
    page.write_text(f"[a]({web}/200) [b]({web}/404#x)")
    with pytest.raises(CheckFailedError, match=r"/404: HTTP Error 404"):
        check_web_links(checkout)
    page.write_text("[a](http://127.0.0.1:9/)")
    with pytest.raises(CheckFailedError, match="refused"):
        check_web_links(checkout)


def test_checks_go_on_after_one_that_failed(capsys):
    def fails(error):
        def check():
            raise error

        return check

    failed = run_checks(
        {
            "first": lambda: "fine",
            "second": fails(CheckFailedError("why")),
            "third": fails(FileNotFoundError(2, "No such file", "x")),
            "fourth": fails(subprocess.TimeoutExpired("sphinx", 500)),
            "last": lambda: "fine",
        }
    )
    assert failed == ["second", "third", "fourth"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["ok    first: fine", "FAIL  second: why"]
    assert lines[-1] == "ok    last: fine"


def test_what_it_exits_with(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["release_check.py", "--only=versions"])
    assert release_check.main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ready to be released"

    def broken():
        raise CheckFailedError("page.md: none.md: no such file")

    monkeypatch.setattr(release_check, "check_versions", broken)
    assert release_check.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "failed: versions"
