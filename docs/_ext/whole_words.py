"""Commands go on below at their spaces alone; browsers would break `--config` at its hyphens."""

import re
from typing import Any

from sphinx.application import Sphinx

_BLOCK = re.compile(r'(?<=<div class="highlight-bash notranslate">).*?</pre>', re.DOTALL)
_TAG = re.compile(r"(<[^>]+>)")
_HYPHENATED = re.compile(r"[^\s<>]*-[^\s<>]*")


def keep_words_whole(html: str) -> str:
    """The body of a page, with each word of a command that has a hyphen in a span of its own."""
    return _BLOCK.sub(lambda block: "".join(map(_whole, _TAG.split(block[0]))), html)


def _whole(piece: str) -> str:
    if piece.startswith("<"):
        return piece
    return _HYPHENATED.sub(r'<span class="whole">\g<0></span>', piece)


def _on_page(app: Sphinx, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    if "body" in context:
        context["body"] = keep_words_whole(context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", _on_page)
    return {"parallel_read_safe": True}
