"""The page of a scaling study: what was concluded, in tables, and its figures as they print."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from clue_jax.report.fragments import folded, table, text
from clue_jax.report.read import Study
from clue_jax.scaling.words import Block, Section, Table, sections

# Long, and seldom what one came for.
FOLDED = ("Runs", "Left out", "Not yet run")
CAPTIONS = {
    "compute": "Held-out loss against compute: runs by size, the best of each budget, and laws.",
    "users": "Held-out loss against training users; a line where all else is equal.",
    "behaviours": "Held-out loss against the length of histories in training.",
    "batch": "Held-out loss against the batch, at as many samples.",
    "residuals": "What laws of compute are off by, at the runs they were fitted to.",
    "downstream": "How well held-out users are matched, against the loss.",
}


def study_sections(study: Study) -> str:
    """All sections of a study."""
    first, *rest = sections(study.conclusions, study.results)
    body = [_section(first), _figures(study.figures)]
    return "".join([*body, *(_section(section) for section in rest)])


def _section(section: Section) -> str:
    blocks = "".join(_block(block) for block in section.blocks if block)
    if section.title in FOLDED:
        return folded(section.title, blocks)
    heading = f"<h2>{text(section.title)}</h2>" if section.title else ""
    return heading + blocks


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{text(block)}</p>"
    if isinstance(block, Table):
        filled = list(zip(*block.rows, strict=True))
        columns = [
            (name, _is_number(cells)) for name, cells in zip(block.head, filled, strict=True)
        ]
        return table(columns, {"": [list(row) for row in block.rows]})
    return f"<ul>{''.join(f'<li>{text(point)}</li>' for point in block)}</ul>"


def _is_number(cells: tuple[str, ...]) -> bool:
    """Whether all that is there begins as a number does."""
    return any(cells) and all(not cell or cell[0] in "+-.0123456789" for cell in cells)


def _figures(figures: Mapping[str, bytes]) -> str:
    drawn = [
        f'<figure class="card print"><img alt="{text(CAPTIONS[name])}"'
        f' src="data:image/svg+xml;base64,{base64.b64encode(figures[name]).decode()}">'
        f"<figcaption>{text(CAPTIONS[name])}</figcaption></figure>"
        for name in CAPTIONS
        if name in figures
    ]
    return f'<h2>Figures</h2><div class="charts wide">{"".join(drawn)}</div>' if drawn else ""
