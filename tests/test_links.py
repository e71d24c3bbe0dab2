"""Relative links of README and docs lead somewhere, and the check finds those that do not."""

from pathlib import Path

import pytest

from tests.links import anchors, broken_links, external_links, pages, targets

ROOT = Path(__file__).parents[1]


def test_every_relative_link_leads_somewhere():
    files = pages(ROOT)
    names = {str(path.relative_to(ROOT)) for path in files}
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/results/matching.md"} <= names
    assert broken_links(ROOT, files) == []
    assert sum(len(targets(path.read_text())) for path in files) > 80


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](b.md)", ""),
        ("[a](b.md#the-second-one)", ""),
        ("[a](#here)\n# Here", ""),
        ("[`a`](b.md)", ""),
        ("[two\nlines](c.md)", "c.md: no such file"),
        ("![alt](b.svg)", "b.svg: no such file"),
        ("[a](c.md)", "c.md: no such file"),
        ("[a](b.md#first)", "b.md#first: no heading #first there"),
        ("[a](#there)", "#there: no heading #there there"),
        ("[a](../../etc/passwd)", "../../etc/passwd: outside of the repository"),
        ("[a](https://example.org/none)", ""),
        ("[a](mailto:someone@example.org)", ""),
        ("`[a](c.md)`", ""),
        ("```\n[a](c.md)\n```", ""),
        ("```\n[a](b.md)\n```\n[a](c.md)", "c.md: no such file"),
    ],
)
def test_broken_links_are_found(tmp_path, text, problem):
    (tmp_path / "b.md").write_text("# Begin?\n\n```\n# first\n```\n## The *second* one\n")
    page = tmp_path / "a.md"
    page.write_text(text)
    assert broken_links(tmp_path, [page]) == ([f"a.md: {problem}"] if problem else [])


def test_anchors_are_those_of_github():
    text = "# `train` and [more](x.md)\n## A, b: c-d_e?\n## A, b: c-d_e?\n"
    expected = {"first-1", "first", "train-and-more", "a-b-c-d_e", "a-b-c-d_e-1"}
    assert anchors(text + "## First\n## First\n") == expected


def test_external_links_are_listed_once(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("[a](https://example.org/x#y) [b](https://example.org/x) [c](b.md)")
    assert external_links([page]) == ["https://example.org/x"]
