"""The site of docs/ builds without a warning, shows what the program has, and needs no network."""

import re
import shutil
from pathlib import Path

import pytest

from clue_jax import cli, cli_help
from tests.sphinx_build import build

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Whatever a page would fetch by itself, unlike a link that somebody follows.
FETCHED = re.compile(
    r"<(?:script|img|source|iframe)\b[^>]*\bsrc=\"(?:https?:)?//[^\"]+"
    r"|<link\b[^>]*\bhref=\"(?:https?:)?//[^\"]+"
    r"|url\([\"']?(?:https?:)?//[^)]+|@import[^;]+"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Path in the site -> its HTML, built with the notebook executed."""
    out = tmp_path_factory.mktemp("site") / "html"
    done = build(DOCS, out)
    assert done.returncode == 0, done.stdout
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.html")} | {
        str(path.relative_to(out)): path.read_text() for path in out.rglob("*.css")
    }


def test_every_page_is_in_the_site(site):
    pages = {str(path.relative_to(DOCS).with_suffix(".html")) for path in DOCS.rglob("*.md")}
    assert {"index.html", "start.html", "faults.html", "results/matching.html"} <= pages
    assert pages <= site.keys()


def test_nothing_is_fetched_when_a_page_is_read(site):
    assert {
        name: FETCHED.findall(text) for name, text in site.items() if FETCHED.search(text)
    } == {}


@pytest.mark.parametrize(
    "text",
    [
        '<script defer src="https://cdn.example.org/mathjax.js">',
        '<link rel="stylesheet" href="//fonts.example.org/css">',
        "src: url(https://fonts.example.org/a.woff2)",
        '<img alt="x" src="http://example.org/badge.svg">',
    ],
)
def test_what_is_fetched_is_found(text):
    assert FETCHED.search(text)
    assert not FETCHED.search('<a href="https://example.org">x</a> <img src="_images/x.svg">')


@pytest.mark.parametrize(
    "stage", [s for s in cli.STAGES.values() if s.config], ids=lambda s: s.name
)
def test_every_config_key_is_described(site, stage):
    of = cli_help.ELSEWHERE.get(stage.config, stage.name)
    page = site["config.html"]
    section = page[page.index(f'<section id="{of}">') :]
    section = section[: section.index("</section>")]
    rows = re.findall(r"<tr.*?</tr>", section, re.DOTALL)
    texts = [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]
    for key, _, _, note in cli_help.config_keys(stage.config()):
        name = key.rpartition(".")[2]
        words = set(re.findall(r"[A-Za-z]+", note))
        described = [text for text in texts if text.split()[0] == name]
        assert any(words <= set(re.findall(r"[A-Za-z]+", text)) for text in described), key


def test_elements_of_lists_and_choices_are_described(site):
    page = site["config.html"]
    for text in ("service_column", "ScrubPattern", "window_days", "one of these three"):
        assert text in page
    assert "attention and what is cheap are computed again" in page  # a value of `encoder.remat`


def test_every_stage_is_described(site):
    directives = re.findall(r"```\{cli-stage\} (.+)", (DOCS / "cli.md").read_text())
    assert directives == list(cli.STAGES)
    for stage in cli.STAGES.values():
        for flag in stage.flags:
            assert f"--{flag.name}" in site["cli.html"]
    assert "config.html#train" in site["cli.html"]


def test_commands_are_not_broken_at_a_hyphen(site):
    page = site["how-to/audit.html"]
    blocks = re.findall(r'<div class="highlight-bash notranslate">.*?</pre>', page, re.DOTALL)
    assert len(blocks) == page.count("highlight-bash") >= 4
    for block in blocks:
        loose = re.sub(r'<span class="whole">.*?</span>|<[^>]+>', "", block)
        assert "-" in re.sub(r"<[^>]+>", "", block) and "-" not in loose
    assert 'class="whole"' not in site["index.html"]
    assert ".highlight-bash .whole" in site["_static/site.css"]


def test_every_config_file_is_described(site):
    for path in (ROOT / "configs").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in site["config-files.html"]


def test_the_notebook_was_run(site):
    page = re.sub(r"<[^>]+>", "", site["first_embeddings.html"])
    assert "clue-jax train: done in" in page and "(200, 16)" in page
    assert re.search(r"R@5 0\.\d\d, chance 0\.\d\d, \d+ people", page)
    assert site["first_embeddings.html"].count("_images/") >= 2
    assert "Traceback" not in page


SOUND = "# Sound\n\n[itself](index.md#sound)\n"
BROKEN = """# Broken

[nowhere](none.md)

```{cli-stage} trian
```

```{eval-rst}
.. autofunction:: clue_jax.ranking.nothing
```
"""


@pytest.mark.parametrize(
    ("page", "messages"),
    [(SOUND, []), (BROKEN, ["none.md", "no stage 'trian'", "failed to import 'nothing'"])],
    ids=["sound", "broken"],
)
def test_a_warning_fails_the_build(tmp_path, page, messages):
    source = tmp_path / "docs"
    for folder in ("_ext", "_static"):
        shutil.copytree(DOCS / folder, source / folder)
    shutil.copy(DOCS / "conf.py", source)
    (source / "index.md").write_text(page)
    done = build(source, tmp_path / "out", "-b", "dummy")
    assert (done.returncode != 0) == bool(messages), done.stdout
    assert [message for message in messages if message not in done.stdout] == []
