"""Pieces of HTML that the sections of a report share. All text from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from clue_jax.report.results import number


def text(value: Any) -> str:
    """`value` as HTML text; arrows of service pairs as arrows."""
    arrows = str(value).replace("<->", " ↔ ").replace("->", " → ")
    return html.escape(arrows.replace("  ", " "))


def literal(value: str) -> str:
    """`value` as preformatted HTML, character by character."""
    return f"<pre>{html.escape(value)}</pre>"


def cell(value: Any) -> str:
    """A number for a table, or a dash where there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    known = number(value)
    return "-" if known is None else f"{known:.4g}"


def card(title: str, svg: str, caption: str) -> str:
    """A figure with its heading and caption."""
    return (
        f'<figure class="card"><h3>{text(title)}</h3>{svg}'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def legend(entries: list[tuple[str, str]]) -> str:
    """Marks as HTML, each with what it stands for."""
    items = "".join(f"<li>{mark}{text(name)}</li>" for mark, name in entries)
    return f'<ul class="legend">{items}</ul>'


def folded(summary: str, content: str) -> str:
    """Content that opens when its summary is clicked."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def table(columns: list[tuple[str, bool]], groups: dict[str, list[list[str]]]) -> str:
    """A table whose columns are (heading, is a number); each group of rows under its own title.

    Rows of the group titled "" have none.
    """
    kinds = [' class="number"' if numeric else "" for _, numeric in columns]

    def line(tag: str, cells: Iterable[str]) -> str:
        filled = zip(cells, kinds, strict=True)
        return (
            f"<tr>{''.join(f'<{tag}{kind}>{text(value)}</{tag}>' for value, kind in filled)}</tr>"
        )

    body = []
    for title, rows in groups.items():
        span = f'<tr class="group"><th colspan="{len(columns)}">{text(title)}</th></tr>'
        body.append(
            f"<tbody>{span if title else ''}{''.join(line('td', row) for row in rows)}</tbody>"
        )
    head = line("th", (name for name, _ in columns))
    content = f"<table><thead>{head}</thead>{''.join(body)}</table>"
    return f'<div class="scroll" tabindex="0">{content}</div>'
