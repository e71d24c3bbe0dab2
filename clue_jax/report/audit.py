"""The section of a report on an audit: what whoever holds the vectors learns of people."""

from __future__ import annotations

from typing import Any

from clue_jax.evaluation.results import ATTACK, LINKAGE, MEMBERSHIP, MODEL
from clue_jax.report import figures
from clue_jax.report.fragments import card

AUDIT = "audit/"
_LINKAGE = (
    "<b>Who is the same person.</b> Each is looked for among others on the other side; R@1 is how"
    " often the nearest is the right one. The fewer there are to choose from, the easier it is."
)
_MEMBERSHIP = (
    "<b>Who was trained on.</b> Those whose vectors of two services are nearer than usual are held"
    " to have been. AUC is how often a training user looks more like one than another user does;"
    " guessing has .5."
)
_MODELLED = (
    " The attack model is fitted on users of whom it is known and reads several features of the"
    " vectors; where a reference is named, also those of an encoder that was trained on none of"
    " these users, by which alone nobody should be told."
)


def audit_section(results: list[dict[str, Any]]) -> str:
    """Plots of linkage, each of its sizes of galleries in one, and of membership."""
    linkage = _by_task(results, LINKAGE, "recall_at_1")
    whole = [task for task in linkage if task.endswith("(mean)")]
    linked = [_linkage(task, linkage, results) for task in whole]
    found = _by_task(results, MEMBERSHIP, "tpr_at_1_percent_fpr")
    auc = _by_task(results, MEMBERSHIP, "auc")
    members = [_membership(task, rows, found.get(task, {})) for task, rows in auc.items()]
    if not linked and not members:
        return ""
    modelled = any(ATTACK in rows for rows in auc.values())
    parts = (_LINKAGE, linked), (_MEMBERSHIP + _MODELLED * modelled, members)
    return (
        '<h2>What an attacker learns</h2><p class="soft">Of people whose vectors somebody holds.'
        " Bounds from below, by attacks of a few lines, on as many people as there are; with 95 %"
        " intervals.</p>"
        + "".join(
            f'<p class="soft after">{said}</p><div class="charts">{"".join(cards)}</div>'
            for said, cards in parts
            if cards
        )
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
    return card(f"Linked: {title}", chart, f"Users of {splits}.{_links(task, results)}")


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
    title = f"Trained on: {task.removeprefix(MEMBERSHIP).replace('+', ', ')}"
    names = {MODEL: "told apart", ATTACK: "by the attack model"}
    intervals = [
        _interval(names.get(model, model), entry, MODEL if model in names else model)
        for model, entry in rows.items()
    ]
    chart = figures.interval_plot(f"{title}, AUC", "AUC", intervals)
    shares = [
        f"{found[model]['value']:.1%} of training users {said}"
        for model, said in ((MODEL, "are found"), (ATTACK, "by the attack model"))
        if model in found
    ]
    caption = f"At one false alarm in a hundred others, {', '.join(shares)}." if shares else ""
    return card(title, chart, caption)


def _interval(name: str, entry: dict[str, Any], model: str) -> figures.Interval:
    return figures.Interval(
        label=name,
        value=entry["value"],
        low=entry.get("low"),
        high=entry.get("high"),
        baseline=model != MODEL,
    )
