"""The section of a report on an audit: what whoever holds the vectors learns of people."""

from __future__ import annotations

from typing import Any

from clue_jax.evaluation.results import ATTACK, LINKAGE, MEMBERSHIP, MODEL
from clue_jax.report import figures
from clue_jax.report.fragments import card

AUDIT = "audit/"


def audit_section(results: list[dict[str, Any]]) -> str:
    """Plots of linkage, each of its sizes of galleries in one, and of membership."""
    linkage = _by_task(results, LINKAGE, "recall_at_1")
    whole = [task for task in linkage if task.endswith("(mean)")]
    cards = [_linkage(task, linkage, results) for task in whole]
    found = _by_task(results, MEMBERSHIP, "tpr_at_1_percent_fpr")
    cards += [
        _membership(task, rows, found.get(task, {}))
        for task, rows in _by_task(results, MEMBERSHIP, "auc").items()
    ]
    if not cards:
        return ""
    return (
        '<h2>What an attacker learns</h2><p class="soft">Of people whose vectors somebody holds:'
        " who is the same person, and who was trained on. Bounds from below, by attacks of a few"
        f' lines, on as many people as there are.</p><div class="charts">{"".join(cards)}</div>'
    )


def _by_task(
    results: list[dict[str, Any]], prefix: str, metric: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Task -> model -> entry, of a metric."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in results:
        if entry["task"].startswith(prefix) and entry["metric"] == metric:
            found.setdefault(entry["task"], {})[entry["model"]] = entry
    return found


def _linkage(
    task: str, linkage: dict[str, dict[str, dict[str, Any]]], results: list[dict[str, Any]]
) -> str:
    splits, _, sides = task.removeprefix(LINKAGE).partition("/")
    title = sides.removesuffix(" (mean)")
    smaller = {name: rows for name, rows in linkage.items() if name.startswith(f"{task} among ")}
    people = linkage[task][MODEL].get("n")
    galleries = {f"among {people:,}" if isinstance(people, int) else "": linkage[task]}
    galleries |= {f"among {int(name.rpartition(' ')[2]):,}": r for name, r in smaller.items()}
    rows = [
        _interval(f"{'linked' if model == MODEL else model} {name}".strip(), entry, model)
        for name, of in galleries.items()
        for model, entry in of.items()
    ]
    chart = figures.interval_plot(f"Linkage of {title}, R@1", "R@1", rows)
    caption = (
        f"Users of {splits}: the nearest on the other side is the same person (R@1), with 95 %"
        f" intervals.{_links(task, results)}"
    )
    return card(title, chart, caption)


def _links(task: str, results: list[dict[str, Any]]) -> str:
    mine = {
        entry["metric"]: entry["value"]
        for entry in results
        if entry["task"] == task and entry["model"] == MODEL
    }
    if not {"linked_share", "link_precision"} <= mine.keys():
        return ""
    return (
        f" Mutual nearest neighbours link {mine['linked_share']:.0%} of the people;"
        f" {mine['link_precision']:.0%} of these links are right."
    )


def _membership(
    task: str, rows: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]
) -> str:
    title = f"Trained on: {task.removeprefix(MEMBERSHIP)}"
    names = {MODEL: "told apart", ATTACK: "told apart by the attack model"}
    intervals = [
        _interval(names.get(model, model), entry, MODEL if model in names else model)
        for model, entry in rows.items()
    ]
    chart = figures.interval_plot(f"{title}, AUC", "AUC", intervals)
    caption = (
        "AUC: chance that a training user looks more like one than another user does, by how near"
        " the vectors of a user are, with 95 % intervals; .5 is guessing."
    )
    if ATTACK in rows:
        caption += (
            " The attack model reads several features of the same vectors, and those of reference"
            " encoders that were not trained on these users, where there are."
        )
    shares = [f"{found[m]['value']:.1%}" for m in (MODEL, ATTACK) if m in found]
    if shares:
        caption += (
            f" Of the training users {' and '.join(shares)} are found where 1 % of the others are"
            " taken for one."
        )
    return card(title, chart, caption)


def _interval(name: str, entry: dict[str, Any], model: str) -> figures.Interval:
    return figures.Interval(
        label=name,
        value=entry["value"],
        low=entry.get("low"),
        high=entry.get("high"),
        baseline=model != MODEL,
    )
