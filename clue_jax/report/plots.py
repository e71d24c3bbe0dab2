"""Charts of many embeddings as inline SVG: points on a plane, and histograms side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clue_jax.report.figures import (
    BOTTOM,
    LEFT,
    TOP,
    WIDTH,
    centred,
    label,
    percent,
    svg,
    tick_row,
    ticks,
    y_axis,
)

PLANE_HEIGHT = 300
HISTOGRAM_HEIGHT = 200
MARGIN = 10  # of the plane, so that no mark is cut
SIZE = 2.4  # half the width of a mark
GROUPS = 6  # that differ in colour and shape; what is beyond them is drawn as `others`
OTHERS = "others"


@dataclass(frozen=True)
class Histogram:
    """Shares of some values in bins of equal width."""

    name: str
    shares: np.ndarray  # [K]
    median: float


def plane(
    title: str,
    points_N2: np.ndarray,
    groups_N: np.ndarray,
    names: tuple[str, ...],
    ties_M4: np.ndarray,
) -> str:
    """Points on a plane as SVG, each group by a colour and a shape of its own.

    Args:
        title: what is shown, for readers who cannot see it.
        points_N2: both directions have the same scale.
        groups_N: number of the group of each point, -1: of others.
        names: of the groups.
        ties_M4: lines between pairs of points, x and y of the one and of the other.
    """
    low_2, high_2 = points_N2.min(axis=0), points_N2.max(axis=0)
    space_2 = np.array([WIDTH, PLANE_HEIGHT]) - 2 * MARGIN
    scale = float((space_2 / np.maximum(high_2 - low_2, 1e-12)).min())
    origin_2 = (np.array([WIDTH, PLANE_HEIGHT]) - scale * (high_2 - low_2)) / 2

    def placed(xy_N2: np.ndarray) -> np.ndarray:
        """Up is positive, as on paper."""
        x, y = (origin_2 + scale * (xy_N2 - low_2)).T
        return np.stack([x, PLANE_HEIGHT - y], axis=1)

    marks = [_marks(placed(points_N2[groups_N == k]), k) for k in (-1, *range(len(names)))]
    ends = [placed(ties_M4[:, :2]), placed(ties_M4[:, 2:])]
    lines = "".join(
        f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}"
        for (x, y), (u, v) in zip(ends[0].tolist(), ends[1].tolist(), strict=True)
    )
    marks.append(f'<path class="tie" d="{lines}"/>' if lines else "")
    counts = ", ".join(f"{int((groups_N == k).sum()):,} {name}" for k, name in enumerate(names))
    return svg(PLANE_HEIGHT, f"{title}: {len(points_N2):,} points ({counts})", marks)


def mark(group: int) -> str:
    """The mark of a group, for a legend."""
    return (
        '<svg class="mark" aria-hidden="true" viewBox="0 0 12 12">'
        f"{_marks(np.array([[6.0, 6.0]]), group, 2.0)}</svg>"
    )


def _marks(places_N2: np.ndarray, group: int, grown: float = 1.0) -> str:
    """All points of a group as one path."""
    if not len(places_N2):
        return ""
    r = SIZE * grown
    shape = _SHAPES[group](r) if group >= 0 else "h0"
    begin_N2 = places_N2 + (_BEGINS[group] * r if group >= 0 else 0.0)
    path = "".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in begin_N2.tolist())
    name = f"g g{group}" if group >= 0 else OTHERS
    # A dot is as wide as the line that it is the end of.
    width = f' style="stroke-width:{r if group < 0 else 2 * r:.1f}"' if shape == "h0" else ""
    return f'<path class="{name}"{width} d="{path}"/>'


# Where the pen begins, in half widths from the centre, and what it draws from there.
_BEGINS = np.array([[0, 0], [-0.9, -0.9], [0, -1.2], [0, -1.3], [0, 1.2], [-1.1, 0]])
_SHAPES = (
    lambda r: "h0",  # a dot, by round ends of a line
    lambda r: f"h{1.8 * r:.1f}v{1.8 * r:.1f}h{-1.8 * r:.1f}z",
    lambda r: f"l{1.2 * r:.1f} {2.1 * r:.1f}h{-2.4 * r:.1f}z",
    lambda r: (
        f"l{1.3 * r:.1f} {1.3 * r:.1f}l{-1.3 * r:.1f} {1.3 * r:.1f}l{-1.3 * r:.1f} {-1.3 * r:.1f}z"
    ),
    lambda r: f"l{1.2 * r:.1f} {-2.1 * r:.1f}h{-2.4 * r:.1f}z",
    lambda r: f"h{2.2 * r:.1f}m{-1.1 * r:.1f} {-1.1 * r:.1f}v{2.2 * r:.1f}",
)


def binned(values: dict[str, np.ndarray], edges: np.ndarray) -> list[Histogram]:
    """Histograms of several sets of values over the same edges [K + 1]."""
    return [
        Histogram(name, np.histogram(found, edges)[0] / len(found), float(np.median(found)))
        for name, found in values.items()
    ]


def histogram_chart(title: str, axis: str, edges: np.ndarray, rows: list[Histogram]) -> str:
    """Histograms over one axis as SVG; the height of a bar is the share of its own set."""
    x_ticks = [t for t in ticks(float(edges[0]), float(edges[-1])) if edges[0] <= t <= edges[-1]]
    bottom, right = HISTOGRAM_HEIGHT - BOTTOM, WIDTH - 14
    y_ticks = ticks(0.0, float(max(row.shares.max() for row in rows)), 3)

    def x(value: float) -> float:
        return float(LEFT + (right - LEFT) * (value - edges[0]) / (edges[-1] - edges[0]))

    def y(share: float) -> float:
        return float(bottom - (bottom - TOP) * share / y_ticks[-1])

    parts = [y_axis(y_ticks, y, right, percent)]
    parts += [_outline(row, edges, x, y, k) for k, row in enumerate(rows)]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts += [tick_row(x_ticks, x, bottom), centred(axis, (LEFT + right) / 2, bottom + 34)]
    said = "; ".join(f"{row.name} with a median of {label(row.median)}" for row in rows)
    return svg(HISTOGRAM_HEIGHT, f"{title}: {said}", parts)


def _outline(row: Histogram, edges: np.ndarray, x, y, group: int) -> str:
    steps = zip(edges[:-1].tolist(), edges[1:].tolist(), row.shares.tolist(), strict=True)
    path = "".join(f"L{x(a):.1f} {y(s):.1f}H{x(b):.1f}" for a, b, s in steps)
    start, end = f"M{x(edges[0]):.1f} {y(0.0):.1f}", f"L{x(edges[-1]):.1f} {y(0.0):.1f}"
    return f'<path class="hist h{group}" d="{start}{path}{end}"/>'
