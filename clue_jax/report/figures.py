"""Charts as inline SVG, made here: no script, no network; colours come from the page's CSS."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 340, 215  # user units; about the pixels of a phone, so that text stays readable
LEFT, RIGHT, TOP, BOTTOM = 50, 58, 12, 40
MAX_POINTS = 300  # more rows than this are averaged in runs, their range drawn as a band
ROW_HEIGHT = 34  # of one model in an interval plot
CHARACTER = 6.6  # width of a character of a label


@dataclass(frozen=True)
class Curve:
    """A quantity over training steps."""

    steps: np.ndarray  # [P]
    values: np.ndarray  # [P], finite
    dots: bool = False  # few points, each worth seeing


@dataclass(frozen=True)
class Interval:
    """A model's score with its confidence interval, where it has one."""

    label: str
    value: float
    low: float | None
    high: float | None
    baseline: bool  # drawn muted


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span `low` to `high`."""
    span = high - low or abs(high) or 1.0
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def label(value: float) -> str:
    """A number short enough for an axis: 0.25, 1.5e-3, 20k."""
    if value == 0:
        return "0"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    if abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share short enough for an axis: 5%, 2.5%."""
    return f"{100 * share:.3g}%"


def thin(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, means, lows and highs of at most MAX_POINTS runs of neighbouring rows."""
    runs = min(MAX_POINTS, len(curve.steps))
    starts = np.arange(runs) * len(curve.steps) // runs
    sizes = np.diff(np.append(starts, len(curve.steps)))
    return (
        np.add.reduceat(curve.steps.astype(float), starts) / sizes,
        np.add.reduceat(curve.values, starts) / sizes,
        np.minimum.reduceat(curve.values, starts),
        np.maximum.reduceat(curve.values, starts),
    )


def line_chart(
    title: str,
    curve: Curve,
    *,
    floor: float | None = None,
    ceiling: float | None = None,
    reference: tuple[str, float] | None = None,
    mark: tuple[str, int] | None = None,
    axis: str = "training step",
) -> str:
    """One curve, over steps or something else that is counted, as SVG.

    Args:
        title: what the curve shows, for readers who cannot see it.
        curve: at least one point.
        floor: the axis starts here at the latest, `ceiling`: and ends here at the latest.
        reference: a name and a level, drawn as a dashed line.
        mark: a name and a step, drawn as a vertical line.
        axis: what is counted.
    """
    bounds = [*curve.values, *([reference[1]] if reference else [])]
    low = min(bounds) if floor is None else min(floor, *bounds)
    y_ticks = ticks(low, max(bounds))
    if ceiling is not None and max(bounds) <= ceiling:
        y_ticks = [tick for tick in y_ticks if tick <= ceiling * (1 + 1e-9)]
    x_ticks = ticks(0.0, float(max(curve.steps.max(), 1)))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x_high = max(float(curve.steps.max()), 1.0)
    y_low, y_high = y_ticks[0], max(y_ticks[-1], max(bounds))

    def x(step: float) -> float:
        return LEFT + (right - LEFT) * step / x_high

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (value - y_low) / (y_high - y_low)

    parts = [
        y_axis(y_ticks, y, right),
        _x_axis([t for t in x_ticks if t <= x_high], axis, x, bottom),
    ]
    if mark:
        parts.append(_mark(mark[0], x(mark[1]), bottom))
    if reference:
        parts.append(_reference(reference[0], y(reference[1]), right))
    parts.append(_curve(curve, x, y))
    return svg(HEIGHT, describe(title, curve, reference, axis), parts)


def describe(
    title: str, curve: Curve, reference: tuple[str, float] | None, axis: str = "training step"
) -> str:
    """The chart in a sentence."""
    first, last = curve.values[0], curve.values[-1]
    unit = axis.removeprefix("training ")
    text = (
        f"{title}: {label(first)} at {unit} {curve.steps[0]:,}, {label(last)} at {unit}"
        f" {curve.steps[-1]:,}, between {label(curve.values.min())} and"
        f" {label(curve.values.max())}"
    )
    return f"{text}; {reference[0]} {label(reference[1])}" if reference else text


def interval_plot(title: str, axis: str, intervals: list[Interval]) -> str:
    """Scores of several models, one under the other, with their intervals, as SVG."""
    high = max(max(row.value, row.high or 0.0) for row in intervals)
    low = min(min(row.value, row.low or 0.0) for row in intervals)
    x_ticks = ticks(min(low, 0.0), high)
    bottom = TOP + ROW_HEIGHT * len(intervals)
    left, right = 12, WIDTH - 20

    def x(value: float) -> float:
        return left + (right - left) * (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])

    parts = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{TOP}" y2="{bottom}"/>'
        for t in x_ticks
    ]
    parts.append(tick_row(x_ticks, x, bottom))
    parts.append(centred(axis, (left + right) / 2, bottom + 34))
    sentences = []
    for position, row in enumerate(intervals):
        parts.append(_interval(row, x, TOP + ROW_HEIGHT * (position + 0.7)))
        sentences.append(f"{row.label} {interval_text(row.value, row.low, row.high)}")
    return svg(bottom + BOTTOM, f"{title}: {'; '.join(sentences)}", parts)


def interval_text(value: float, low: float | None, high: float | None) -> str:
    """A score as `0.123 [0.100, 0.145]`."""
    text = f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"
    if low is None or high is None:
        return text
    digits = 4 if abs(value) < 0.1 else 3
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def _interval(row: Interval, x, y: float) -> str:
    kind = "baseline" if row.baseline else "model"
    text = f"{row.label}  {interval_text(row.value, None, None)}"
    bar = ""
    if row.low is not None and row.high is not None:
        bar = f'<line class="bar" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}"/>'
    # The label stays inside the picture, whatever the score.
    half = CHARACTER * len(text) / 2
    middle = min(max(x(row.value), 4 + half), WIDTH - 4 - half)
    return (
        f'<g class="{kind}">{bar}<circle cx="{x(row.value):.1f}" cy="{y}" r="4.5"/>'
        f"{centred(text, middle, y - 9)}</g>"
    )


def _curve(curve: Curve, x, y) -> str:
    steps, means, lows, highs = thin(curve)
    points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, means, strict=True))
    parts = []
    if len(steps) < len(curve.steps):
        upper = [f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, highs, strict=True)]
        lower = [f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, lows, strict=True)]
        parts.append(f'<polygon class="band" points="{" ".join(upper + lower[::-1])}"/>')
    parts.append(f'<polyline class="curve" points="{points}"/>')
    if curve.dots and len(steps) <= 60:
        parts += [
            f'<circle class="dot" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3">'
            f"<title>step {s:,.0f}: {label(v)}</title></circle>"
            for s, v in zip(steps, means, strict=True)
        ]
    end_x, end_y = x(steps[-1]), y(means[-1])
    parts.append(f'<circle class="dot" cx="{end_x:.1f}" cy="{end_y:.1f}" r="3.5"/>')
    parts.append(
        f'<text class="end" x="{end_x + 7:.1f}" y="{end_y + 4:.1f}">{label(means[-1])}</text>'
    )
    return "".join(parts)


def y_axis(values: list[float], y, right: float, written: Callable[[float], str] = label) -> str:
    """Lines across the picture with their values on the left; `y` places a value."""
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{LEFT - 7}" y="{y(v) + 4:.1f}" text-anchor="end">{written(v)}</text>'
        for v in values
    )


def _x_axis(values: list[float], axis: str, x, bottom: float) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        f"{tick_row(values, x, bottom)}"
        f"{centred(axis, middle, bottom + 34)}"
    )


def centred(text: str, x: float, y: float) -> str:
    """Text around a point."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{html.escape(text)}</text>'


def tick_row(values: list[float], x, bottom: float) -> str:
    """Values under the picture; `x` places one."""
    return "".join(centred(label(v), x(v), bottom + 17) for v in values)


def _reference(name: str, y: float, right: float) -> str:
    return (
        f'<line class="reference" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{right - 4}" y="{y - 5:.1f}" text-anchor="end">{html.escape(name)}</text>'
    )


def _mark(name: str, x: float, bottom: float) -> str:
    return (
        f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text x="{x + 5:.1f}" y="{TOP + 10}">{html.escape(name)}</text>'
    )


def svg(height: float, description: str, parts: list[str]) -> str:
    """A picture that says what it shows to who cannot see it."""
    text = html.escape(description)
    return (
        f'<svg role="img" aria-label="{text}" viewBox="0 0 {WIDTH} {height}"'
        f' preserveAspectRatio="xMidYMid meet">{"".join(parts)}</svg>'
    )
