"""The section of a report on an export: maps, how near vectors are, how far they are spread."""

from __future__ import annotations

import numpy as np

from clue_jax.report.figures import Curve, label, line_chart
from clue_jax.report.fragments import card, folded, legend, table, text
from clue_jax.report.people import NEAREST, NEWEST, SPLIT, Neighbourhood, Person
from clue_jax.report.plots import OTHERS, binned, histogram_chart, mark, plane
from clue_jax.report.spread import Map, Spread

BINS = 40


def embeddings_section(spread: Spread) -> str:
    """Everything as HTML."""
    manifest = spread.statistics.manifest
    what, rows, width = manifest["what"], manifest["rows"], manifest["embedding_width"]
    maps = "".join(_map(one, what) for one in spread.maps)
    charts = "".join((_view_cosines(spread), _pair_cosines(spread), _lengths(spread)))
    return (
        f"<h2>Embeddings</h2><p>{rows:,} {text(what)} of {width} dimensions, model"
        f" {text(manifest['model_version'])}. A map shows some that lie evenly over the export, of"
        " whatever split, on the plane in which their vectors vary most (principal components):"
        " what is near there may still be far in the other directions, and the other way round."
        "</p>"
        f'<div class="charts wide">{maps}</div>'
        f'<div class="charts wide after">{charts}{_variance(spread)}</div>{_numbers(spread)}'
    )


def _map(one: Map, what: str) -> str:
    first, second = one.shares
    title = f"By {one.by}"
    svg = plane(title, one.points_N2, one.groups_N, one.names, one.ties_M4)
    counts = [(name, int((one.groups_N == k).sum())) for k, name in enumerate(one.names)]
    entries = [(mark(k), f"{name} ({count:,})") for k, (name, count) in enumerate(counts)]
    others = int((one.groups_N < 0).sum())
    if others:
        entries.append((mark(-1), f"{OTHERS} ({others:,})"))
    drawn = "a vector for each service" if len(one.ties_M4) else f"a vector of each of the {what}"
    caption = f"{drawn.capitalize()}; the plane shows {first + second:.0%} of the variance."
    if len(one.ties_M4):
        caption += f" Lines join two services' vectors of {len(one.ties_M4)} of the users."
    return card(title, legend(entries) + svg, caption)


def _view_cosines(spread: Spread) -> str:
    """The picture of what training is for."""
    if not spread.cosines:
        return ""
    edges = _edges(min(float(found.min()) for found in spread.cosines.values()))
    rows = binned({name: np.clip(v, -1, 1) for name, v in spread.cosines.items()}, edges)
    title = "The same user against others"
    entries = [
        (f'<span class="swatch s{k}" aria-hidden="true"></span>', f"{row.name}, median"
         f" {row.median:.2f}") for k, row in enumerate(rows)
    ]  # fmt: skip
    same, other = spread.cosines.values()
    ranks = np.searchsorted(np.sort(other), same).mean() / len(other)
    caption = (
        "Cosine between vectors of two services. A user's own second vector is nearer than that"
        f" of another user in {ranks:.1%} of all comparisons."
    )
    return card(title, legend(entries) + histogram_chart(title, "cosine", edges, rows), caption)


def _pair_cosines(spread: Spread) -> str:
    cosines = spread.statistics.cosines
    if not len(cosines):
        return ""
    edges = _edges(float(cosines.min()))
    rows = binned({"pairs": cosines}, edges)
    what = spread.statistics.manifest["what"]
    title = f"Similarity of two {what}"
    caption = (
        f"Cosines of {len(cosines):,} pairs of a sample, of combined vectors; median"
        f" {rows[0].median:.2f}. All near 1 would be a collapse."
    )
    return card(title, histogram_chart(title, "cosine", edges, rows), caption)


def _lengths(spread: Spread) -> str:
    """Of the vectors themselves all lengths are one, so these are of what they are made from."""
    if not len(spread.means):
        return ""
    edges = _edges(float(spread.means.min()))
    rows = binned({"users": np.minimum(spread.means, 1.0)}, edges)
    title = "Norms before normalisation"
    least, most = spread.statistics.norms
    caption = (
        "Length of the mean of a user's vectors of two services or more: 1 where they agree. The"
        f" export scales it to one (here {least:.4f} to {most:.4f})."
    )
    return card(title, histogram_chart(title, "norm of the mean", edges, rows), caption)


def _edges(low: float) -> np.ndarray:
    """Of bins from a tenth below all values up to one, also where all are one."""
    return np.linspace(min(np.floor(10 * low) / 10, 0.9), 1.0, BINS + 1)


def _variance(spread: Spread) -> str:
    variance_E = spread.statistics.variance_E
    if len(variance_E) < 2 or not variance_E.sum():
        return ""
    shares = np.cumsum(variance_E) / variance_E.sum()
    curve = Curve(np.arange(1, len(shares) + 1), shares)
    title = "Spread over directions"
    chart = line_chart(title, curve, floor=0.0, ceiling=1.0, axis="directions")
    caption = (
        "Share of the variance in as many directions, the greatest first; effective rank"
        f" {spread.statistics.effective_rank:.1f} of {len(variance_E)}."
    )
    return card(title, chart, caption)


def _numbers(spread: Spread) -> str:
    found = spread.statistics
    rows, dead = found.manifest["rows"], len(found.dead)
    lines = [
        *([f"with {name}", f"{n:,} ({n / rows:.0%})"] for name, n in found.services.items()),
        ["norms", f"{found.norms[0]:.6f} to {found.norms[1]:.6f}"],
        ["length of the mean vector", label(float(np.linalg.norm(found.mean_E)))],
        ["dimensions that hardly vary", f"{dead:,} of {len(found.mean_E):,}"],
    ]
    numbers = table([("of all rows", False), ("", True)], {"": lines})
    return folded("Numbers of the export", numbers)


def people_warning(shown: list[Neighbourhood]) -> str:
    """For the top of a page that shows them."""
    if not shown:
        return ""
    return (
        '<p class="warning"><strong>This page shows texts of people. Do not hand it on</strong>,'
        " and delete it when you have looked; without <code>--show_texts</code> the same command"
        " writes one without them.</p>"
    )


def people_section(shown: list[Neighbourhood]) -> str:
    """Users beside their neighbours as HTML."""
    if not shown:
        return ""
    return (
        f"<h2>Users and their nearest</h2><p>Users of the {SPLIT} split and the {NEAREST} others"
        f" of it with the nearest combined vectors, with the newest {NEWEST} texts in each"
        " service.</p>" + "".join(_block(number, of) for number, of in enumerate(shown, start=1))
    )


def _block(number: int, of: Neighbourhood) -> str:
    nearest = "".join(_person("h4", f"Neighbour, cosine {p.cosine:.2f}", p) for p in of.nearest)
    whole = _person("h3", f"User {number}", of.user) + nearest
    return f'<div class="card people">{whole}</div>'


def _person(tag: str, title: str, person: Person) -> str:
    columns = "".join(
        f"<div><b>{text(service)}</b><ul>{''.join(f'<li>{text(one)}</li>' for one in found)}</ul>"
        f"{'' if found else '<p>nothing</p>'}</div>"
        for service, found in person.texts.items()
    )
    return f'<{tag}>{text(title)}</{tag}><div class="texts">{columns}</div>'
