"""The page to look at: one self-contained HTML file from what a stage left on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath

from clue_jax import files
from clue_jax.buckets import absolute
from clue_jax.embeddings.layout import page_beside
from clue_jax.evaluation.results import PREFIX, metric_name
from clue_jax.report import figures
from clue_jax.report.audit import AUDIT, audit_section
from clue_jax.report.curves import curve, training_section
from clue_jax.report.embeddings import embeddings_section, people_section, people_warning
from clue_jax.report.expected import expected_section
from clue_jax.report.fragments import card, cell, folded, literal, table, text
from clue_jax.report.glossary import BASELINES, glossary, models_of
from clue_jax.report.read import Command, Material, Run, read_material
from clue_jax.report.results import headline
from clue_jax.report.scaling import study_sections
from clue_jax.report.status import status
from clue_jax.report.style import CSS
from clue_jax.report.tasks import downstream_section
from clue_jax.report.wanted import USUAL, Wanted

PAGE = "report.html"
_FOUND_AGAIN = (
    '<p class="soft">General-purpose user embeddings: the same person, seen through two services,'
    " is to be found again among all others.</p>"
)
_RECALL = (
    '<p class="soft">R@10 is the share of users whose other vector is among the ten nearest of all'
    " candidates. Baselines rank the same users:</p>"
)


def write_report(directory: epath.PathLike, view: Wanted = USUAL, again: int = 0) -> epath.Path:
    """Writes `report.html` into what a stage left; gives its path.

    An export is sealed: `erase` and `index` refuse one with a file that is not its own. Its page is
    `<export>.report.html`, beside it.

    Args:
        directory: what a stage left.
        view: of an export, where there is one.
        again: seconds after which a browser loads the page again; 0: never.

    Raises:
        DataError: the directory has nothing to report on, or a file is missing or damaged.
        StorageError: the page could not be written.
    """
    material = read_material(directory, view)
    folder = epath.Path(directory)
    page = folder / PAGE
    if material.sealed:
        page = page_beside(absolute(folder) if folder.name in ("", "..") else folder)
    files.write_text(page, render(material, again))
    return page


def render(material: Material, again: int = 0) -> str:
    """The whole page as HTML."""
    run, results = material.run, material.results
    matching = [entry for entry in results if not entry["task"].startswith((AUDIT, PREFIX))]
    body = [
        f"<h1>{text(material.title)}</h1>",
        _FOUND_AGAIN if matching or run else "",
        people_warning(material.people),
        status(run) if run else "",
        _tiles(matching, run),
        expected_section(material.expected, matching) if material.expected else "",
        _score_plots(matching),
        audit_section(results),
        downstream_section(results),
        training_section(run) if run else "",
        embeddings_section(material.spread) if material.spread else "",
        people_section(material.people),
        study_sections(material.study) if material.study else "",
        _results([entry for entry in results if not entry["task"].startswith(PREFIX)]),
        _dataset(material.dataset) if material.dataset else "",
        _commands(material.commands),
        _origin(run) if run else "",
    ]
    refresh = f'<meta http-equiv="refresh" content="{again}">' if again else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{refresh}<title>{text(material.title)}</title><style>{CSS}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _tiles(results: list[dict[str, Any]], run: Run | None) -> str:
    tiles = [*_score_tiles(results), *(_run_tiles(run) if run else ())]
    cards = (
        f'<div class="card tile"><b>{text(value)}</b><span>{text(name)}</span></div>'
        for value, name in tiles
    )
    return f'<div class="tiles">{"".join(cards)}</div>' if tiles else ""


def _score_tiles(results: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    """R@10 of each model, as the mean over tasks where there are several."""
    entries = [entry for entry in headline(results) if metric_name(entry["metric"]) == "R@10"]
    for model in dict.fromkeys(entry["model"] for entry in entries):
        scores = [entry["value"] for entry in entries if entry["model"] == model]
        mean = ", mean" if len(scores) > 1 else ""
        yield figures.interval_text(float(np.mean(scores)), None, None), f"R@10{mean}: {model}"


def _run_tiles(run: Run) -> Iterable[tuple[str, str]]:
    if run.training:
        yield f"{run.training[-1]['step']:,}", "training steps"
    best = curve(run.validation, "recall_at_10")
    if best is not None:
        yield f"{best.values.max():.3f}", "best validation R@10"
    speed = curve(run.training, "users_per_second")
    if speed is not None:
        yield figures.label(float(np.median(speed.values))), "users/s, median"
    goodput = curve(run.training, "goodput")
    if goodput is not None:
        restarts = run.training[-1].get("restarts", 0)
        yield f"{goodput.values[-1]:.0%}", f"goodput, {restarts} restart{'s' * (restarts != 1)}"
    skipped = sum(row.get("skipped", 0) for row in run.training)
    if skipped:
        yield f"{skipped:,}", "skipped steps"


def _score_plots(results: list[dict[str, Any]]) -> str:
    entries = [entry for entry in headline(results) if metric_name(entry["metric"]) == "R@10"]
    tasks = dict.fromkeys(entry["task"] for entry in entries)
    plots = [_score_plot(task, [e for e in entries if e["task"] == task]) for task in tasks]
    if not plots:
        return ""
    said = glossary(models_of(entries))
    return f'<h2>Evaluation</h2>{_RECALL}{said}<div class="charts">{"".join(plots)}</div>'


def _score_plot(task: str, entries: list[dict[str, Any]]) -> str:
    intervals = [
        figures.Interval(
            label=entry["model"],
            value=entry["value"],
            low=entry.get("low"),
            high=entry.get("high"),
            baseline=entry["model"] in BASELINES,
        )
        for entry in entries
    ]
    users = {entry["n"] for entry in entries if isinstance(entry.get("n"), int)}
    among = f", n = {users.pop():,}" if len(users) == 1 else ""
    title, said = _of_task(task)
    chart = figures.interval_plot(f"{title}, R@10", "R@10", intervals)
    return card(title, chart, f"{said}ith 95 % intervals{among}.")


def _of_task(task: str) -> tuple[str, str]:
    """A title for a task, and the beginning of a caption."""
    named = re.fullmatch(r"matching/([^/]+)/(.+?)( \(mean\))?", task)
    if not named:
        return task, "W"
    both = ", mean of both directions" if named[3] else ""
    return named[2], f"Users of {named[1]} found again through the other service{both}, w"


def _results(results: list[dict[str, Any]]) -> str:
    """Results of matching and audits, models of one task and metric under each other."""
    if not results:
        return ""
    groups: dict[str, list[list[str]]] = {}
    for entry in results:
        score = figures.interval_text(entry["value"], entry.get("low"), entry.get("high"))
        title = f"{entry['task']}, {metric_name(entry['metric'])}"
        groups.setdefault(title, []).append([entry["model"], score, cell(entry.get("n"))])
    columns = [("model", False), ("value [95 % interval]", True), ("n", True)]
    return f"<h2>All results</h2>{folded('Every model, task and metric', table(columns, groups))}"


def _dataset(manifest: dict[str, Any]) -> str:
    services = [str(name) for name in manifest.get("services", [])]
    rows: list[list[str]] = []
    for split, entry in manifest.get("splits", {}).items():
        behaviours = entry.get("behaviours", {})
        rows.append([split, cell(entry.get("users")), *(cell(behaviours.get(s)) for s in services)])
    columns = [("split", False), ("users", True), *((f"on {s}", True) for s in services)]
    return f"<h2>Data</h2><p>Users and their behaviours.</p>{table(columns, {'': rows})}"


def _commands(commands: list[Command]) -> str:
    if not commands:
        return ""
    listing = "\n".join(
        command.line + (f"  # {command.seconds:,.0f} s" if command.seconds is not None else "")
        for command in commands
    )
    return f"<h2>Commands</h2><p>What made this, to make it again:</p>{literal(listing)}"


def _origin(run: Run) -> str:
    parts = [
        folded(title, literal(json.dumps(value, indent=2, ensure_ascii=False)))
        for title, value in (("Config of the run", run.config), ("Environment", run.environment))
        if value
    ]
    return f"<h2>Origin</h2>{''.join(parts)}" if parts else ""
