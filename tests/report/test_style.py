"""The colours of a page: text that can be read, and groups that all eyes tell apart."""

import re

import numpy as np
import pytest

from clue_jax.report import plots
from clue_jax.report.style import CSS

# Linear RGB as protanopes and deuteranopes see it (Machado, Oliveira and Fernandes, 2009).
SEEN = {
    "all": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def schemes():
    """Variables of the light and of the dark scheme."""
    light, dark = CSS.split("prefers-color-scheme: dark")
    return [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in (light, dark)]


def linear(colour):
    values = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """As WCAG 2 has it."""
    bright = sorted(float(linear(of) @ [0.2126, 0.7152, 0.0722]) for of in (one, other))
    return (bright[1] + 0.05) / (bright[0] + 0.05)


def lab(rgb_3):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(np.array(to_xyz) @ np.clip(rgb_3, 0, 1) / [0.9505, 1, 1.089], 0, None)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_text_and_marks_stand_out(scheme):
    for behind in ("page", "card"):
        for text in ("ink", "soft", "accent"):
            assert contrast(scheme[text], scheme[behind]) >= 4.5, (text, behind)
    for mark in ("muted", "reference", "accent", *(f"g{k}" for k in range(plots.GROUPS))):
        assert contrast(scheme[mark], scheme["card"]) >= 3, mark


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
@pytest.mark.parametrize("sight", SEEN)
def test_groups_are_told_apart_by_all_eyes(scheme, sight):
    seen = [lab(np.array(SEEN[sight]) @ linear(scheme[f"g{k}"])) for k in range(plots.GROUPS)]
    gaps = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a in range(6) for b in range(a)}
    assert min(gaps.values()) > 15, gaps
