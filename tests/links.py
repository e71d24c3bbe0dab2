"""Links of Markdown pages: which of them lead nowhere."""

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

FENCED = re.compile(r"^( *)(```+|~~~+).*?^\1\2`*\s*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]+`")
# [text](target) and ![text](target); text may go over lines and hold code.
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)?$", re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """The Markdown pages of a checkout that people read."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def broken_links(root: Path, files: Iterable[Path]) -> list[str]:
    """`page: target: what is wrong` for each relative link of pages that leads nowhere.

    A target has to exist, inside `root`, and where it names an anchor of a page, that page has to
    have such a heading.
    """
    return [
        f"{page.relative_to(root)}: {target}: {problem}"
        for page in files
        for target in targets(page.read_text(encoding="utf-8"))
        if not is_external(target) and (problem := _problem(root, page, target))
    ]


def external_links(files: Iterable[Path]) -> list[str]:
    """The distinct web addresses that pages link to."""
    found = (target for page in files for target in targets(page.read_text(encoding="utf-8")))
    return sorted({target.partition("#")[0] for target in found if target.startswith("http")})


def targets(text: str) -> list[str]:
    """What a page links to, code left out."""
    return LINK.findall(INLINE_CODE.sub("``", FENCED.sub("", text)))


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub names them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        words = re.sub(r"[^\w\- ]", "", LINK.sub(_text_of_link, heading).lower())
        slug = name = words.strip().replace(" ", "-")
        again = 0
        while name in found:  # the second heading of a name
            again += 1
            name = f"{slug}-{again}"
        found.add(name)
    return found


def is_external(target: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*:", target) is not None


def _text_of_link(match: re.Match[str]) -> str:
    return match[0][1 : match[0].rindex("](")]


def _problem(root: Path, page: Path, target: str) -> str:
    path, _, anchor = unquote(target).partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_relative_to(root.resolve()):
        return "outside of the repository"
    if not file.exists():
        return "no such file"
    if anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
        return f"no heading #{anchor} there"
    return ""
