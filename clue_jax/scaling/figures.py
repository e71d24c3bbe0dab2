"""Figures of a scaling study, as SVG files that print well; needs the extra `scale`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from clue_jax.errors import ConfigError
from clue_jax.scaling.analysis import Analysis
from clue_jax.scaling.forms import FROM_CHANCE, OF_COMPUTE
from clue_jax.scaling.results import Result
from clue_jax.scaling.selection import FACTORS, points_of

_MARKERS = "os^Dvp*X"
_FACTORS = {"users": "training users", "behaviours": "behaviours per service", "batch": "batch"}


def figures_of(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """Name and SVG of each figure that the runs have something to show in.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError(
            "figures need matplotlib: pip install '.[scale]'; the fits are there without"
        ) from error
    matplotlib.use("Agg")
    settings: Any = {
        "svg.hashsalt": "clue_jax",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
    with matplotlib.rc_context(settings):
        yield "compute", _drawn(_compute, analysis)
        for factor, name in _FACTORS.items():
            if len({run[factor] for run in analysis.kept}) > 1:
                yield factor, _drawn(_factor, analysis, factor, name)
        if any(form.name in analysis.fits for form in OF_COMPUTE):
            yield "residuals", _drawn(_residuals, analysis)
        yield "downstream", _drawn(_downstream, analysis)


def _drawn(draw: Callable[..., None], *arguments: Any) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    draw(figure.subplots(), *arguments)
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _compute(axes: Any, analysis: Analysis) -> None:
    """Loss against compute by size, the frontier, laws of it and how they go on."""
    for marker, (size, runs) in zip(_MARKERS * 9, _by_size(analysis).items(), strict=False):
        compute, losses = _columns(runs, "compute", "loss")
        axes.plot(compute, losses, marker, label=size, markersize=4, alpha=0.8)
    compute, losses = _columns(analysis.best, "compute", "loss")
    axes.plot(compute, losses, "o", markersize=8, fillstyle="none", color="black", label="frontier")
    if analysis.forecast is not None:
        told = analysis.forecast.largest
        axes.plot(told.compute, told.losses, "x", color="black", label="held out for the forecast")
    reach = np.geomspace(compute.min(), 10 * compute.max(), 100)
    columns = {"compute": reach, "chance": np.full(100, analysis.best[0]["chance"])}
    for style, form in zip(("-", "--", ":", "-."), OF_COMPUTE, strict=True):
        if form.name in analysis.fits:
            law = analysis.fits[form.name]
            axes.plot(reach, law(columns), style, color="gray", label=form.name)
            if len(law.resampled_KP) and form is FROM_CHANCE:
                axes.fill_between(reach, *law.interval(columns), alpha=0.15)
    axes.set(xscale="log", yscale="log", xlabel="compute [PF-days]", ylabel="held-out loss")
    _plain(axes.yaxis)
    seen = [run["loss"] for run in analysis.kept]
    axes.set_ylim(0.5 * min(seen), 1.1 * max(seen))  # laws may go on to nothing
    axes.legend(fontsize=6, ncols=2, loc="lower left")


def _factor(axes: Any, analysis: Analysis, factor: str, name: str) -> None:
    """Loss against one factor, a line for each choice of all others."""
    others = [name for name in FACTORS if name != factor]
    lines: dict[tuple[Any, ...], list[Result]] = {}
    for run in analysis.kept:
        lines.setdefault(tuple(run[f] for f in others), []).append(run)
    for marker, (key, runs) in zip(_MARKERS * 9, lines.items(), strict=False):
        by_value = _by(runs, factor)
        if len(by_value) > 1:
            values = sorted(by_value)
            means = [np.mean([run["loss"] for run in by_value[value]]) for value in values]
            label = f"{key[0]}, {key[-1]:,} samples"
            axes.plot(values, means, f"{marker}-", markersize=4, label=label)
    axes.set(xscale="log", yscale="log", xlabel=name, ylabel="held-out loss")
    _plain(axes.yaxis)
    _plain(axes.xaxis, sorted({run[factor] for run in analysis.kept}))
    if axes.has_data():
        axes.legend(fontsize=7)


def _residuals(axes: Any, analysis: Analysis) -> None:
    points = points_of(analysis.best)
    for marker, form in zip("os^D", OF_COMPUTE, strict=True):
        if form.name in analysis.fits:
            said = analysis.fits[form.name](points.columns)
            error = 100 * (points.losses / said - 1)
            axes.plot(points.columns["compute"], error, marker, markersize=5, label=form.name)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="compute [PF-days]", ylabel="measured over law - 1 [%]")
    axes.legend(fontsize=7)


def _downstream(axes: Any, analysis: Analysis) -> None:
    for marker, (size, runs) in zip(_MARKERS * 9, _by_size(analysis).items(), strict=False):
        losses, scores = _columns(runs, "loss", "mrr")
        axes.plot(losses, scores, marker, label=size, markersize=4)
    axes.set(xscale="log", xlabel="held-out loss", ylabel="MRR of matching held-out users")
    _plain(axes.xaxis)
    axes.legend(fontsize=7)


def _plain(axis: Any, places: list[float] | None = None) -> None:
    """Ticks of a logarithmic axis as plain numbers, at some places or at 1, 1.5, 2, 3, 5, 7."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, StrMethodFormatter

    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(FixedLocator(places) if places else LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _by(runs: list[Result], factor: str) -> dict[Any, list[Result]]:
    groups: dict[Any, list[Result]] = {}
    for run in runs:
        groups.setdefault(run[factor], []).append(run)
    return groups


def _by_size(analysis: Analysis) -> dict[Any, list[Result]]:
    """The smallest encoder first."""
    return _by(sorted(analysis.kept, key=lambda run: float(run["parameters"])), "size")


def _columns(runs: list[Result], *names: str) -> tuple[np.ndarray, ...]:
    return tuple(np.array([run[name] for run in runs], float) for name in names)
