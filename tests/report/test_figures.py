"""Charts: round ticks, points where they belong, thinning that hides no spike."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clue_jax.report import figures


@given(
    st.floats(-1e6, 1e6, allow_nan=False),
    st.floats(1e-6, 1e6, allow_nan=False),
)
def test_ticks_span_the_range_and_are_few(low, span):
    ticks = figures.ticks(low, low + span)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step and ticks[-1] >= low + span - 1e-6 * step
    assert 2 <= len(ticks) <= 7


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (3.0, 3.0), (-2.0, -2.0)])
def test_ticks_of_a_single_value(low, high):
    ticks = figures.ticks(low, high)
    assert ticks[0] <= low <= ticks[-1] and ticks[0] < ticks[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (1e-4, "1e-4"), (1.5e-3, "1.5e-3"), (20_000, "20k"), (2e9, "2G")],
)
def test_labels_are_short(value, text):
    assert figures.label(value) == text


def test_thinning_keeps_the_range():
    values = np.zeros(10_000)
    values[4_321] = 7.0
    steps, means, lows, highs = figures.thin(figures.Curve(np.arange(10_000), values))
    assert len(steps) == figures.MAX_POINTS and highs.max() == 7.0 and lows.min() == 0.0
    assert abs(means.mean() - values.mean()) < 1e-4
    few = figures.Curve(np.arange(5), np.arange(5.0))
    np.testing.assert_array_equal(figures.thin(few)[1], few.values)


def test_a_line_chart_puts_points_in_their_place():
    curve = figures.Curve(np.array([0, 50, 100]), np.array([0.0, 1.0, 0.5]))
    svg = ET.fromstring(figures.line_chart("Recall", curve, floor=0.0, reference=("chance", 0.1)))
    (line,) = svg.findall("polyline")
    points = np.array([[float(v) for v in p.split(",")] for p in line.get("points").split()])
    assert points[0, 0] == figures.LEFT and points[2, 0] == figures.WIDTH - figures.RIGHT
    assert points[1, 0] == pytest.approx(points[[0, 2], 0].mean())
    assert points[0, 1] == figures.HEIGHT - figures.BOTTOM and points[1, 1] == figures.TOP
    texts = [text.text for text in svg.iter("text")]
    assert "training step" in texts and "chance" in texts and "0.5" in texts
    assert "Recall: 0 at step 0, 0.5 at step 100" in svg.get("aria-label")


def test_one_point_and_a_flat_curve_can_be_drawn():
    for values in ([0.5], [0.5, 0.5, 0.5], [0.0]):
        curve = figures.Curve(np.arange(len(values)), np.array(values), dots=True)
        svg = figures.line_chart("Flat", curve)
        assert "nan" not in svg and "inf" not in svg
        ET.fromstring(svg)


def test_an_interval_plot_shows_each_model_inside_the_picture():
    rows = [
        figures.Interval("encoder <a&b>", 1.0, 0.9, 1.0, baseline=False),
        figures.Interval("a_baseline_with_a_long_name", 0.0, None, None, baseline=True),
    ]
    svg = ET.fromstring(figures.interval_plot("Matching", "R@10", rows))
    assert len(svg.findall("g")) == 2 and len(svg.findall(".//g/line")) == 1
    for text in svg.iter("text"):
        half = figures.CHARACTER * len(text.text) / 2
        assert 0 <= float(text.get("x")) - half and float(text.get("x")) + half <= figures.WIDTH
    assert "encoder <a&b> 1.000 [0.900, 1.000]" in svg.get("aria-label")


def test_scores_are_written_with_their_interval():
    assert figures.interval_text(0.1234, 0.1, 0.2) == "0.123 [0.100, 0.200]"
    assert figures.interval_text(0.0123, None, None) == "0.0123"
    assert re.fullmatch(r"0\.0123 \[0\.0100, 0\.0200\]", figures.interval_text(0.0123, 0.01, 0.02))
