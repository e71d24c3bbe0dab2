"""What the results of an audit mean, in sentences for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clue_jax.evaluation.results import (
    ATTACK,
    HEADS,
    LINKAGE,
    MEMBERSHIP,
    MODEL,
    PREFIX,
    REFERENCE,
    Result,
    metric_name,
    short,
    with_groups,
)

MEMBER_METRICS = ("auc", "tpr_at_1_percent_fpr")
ATTRIBUTES = ("auc", "accuracy")  # first metrics of tasks that an attribute may be one of

_MODELS = (MODEL, "chance")
_NAMES = {"prior": "chance", "best": "best possible"}

Found = dict[str, dict[tuple[str, str], Result]]  # task -> (model, metric) -> result


def in_words(results: Sequence[Result]) -> list[str]:
    """Lines about linkage, membership, attributes and groups, those that there are."""
    found: Found = {}
    for result in results:
        found.setdefault(result.task, {})[result.model, result.metric] = result
    groups = with_groups({task: next(iter(rows))[1] for task, rows in found.items()})
    lines = ["What an attacker who holds these embeddings learns, beside chance [95 % interval]:"]
    for task in groups:
        for prefix, tell in _TELL.items():
            if task.startswith(prefix):
                lines += tell(task, found)
    return [
        *lines,
        "Figures are of the attacks tried here, on these people: a bound from below for them, and"
        " none for galleries of more people.",
    ]


def _linkage(task: str, found: Found) -> list[str]:
    rows, name = found[task], task.removeprefix(LINKAGE).replace(" (mean)", "")
    people, smaller, size = name.partition(" among ")
    mine, luck = ({m: rows[model, m] for of, m in rows if of == model} for model in _MODELS)
    line = (
        f"the right one is first for {_share(mine['recall_at_1'])}, among ten for"
        f" {_share(mine['recall_at_10'])}; by chance {_share(luck['recall_at_1'])} and"
        f" {_share(luck['recall_at_10'])}"
    )
    if smaller:
        return [f"  among {int(size):,}: {line}"]
    return [
        f"{people}, each among {mine['recall_at_1'].n:,} people: {line}",
        f"  mutual nearest neighbours link {_share(mine['linked_share'])} of them, and"
        f" {_share(mine['link_precision'])} of these links are right; by chance"
        f" {_share(luck['link_precision'])}",
    ]


def _membership(task: str, found: Found) -> list[str]:
    rows = found[task]
    auc, power = (rows[MODEL, m] for m in MEMBER_METRICS)
    told = "is told" if _above(auc, 0.5) else "is not told"
    lines = [
        f"{task.removeprefix(MEMBERSHIP)}: who was trained on {told} by how near the vectors of a"
        f" user are: AUC {_number(auc)} beside .5; {_share(power)} of training users found where"
        " 1 % of others are taken for one"
    ]
    references = [model for model, metric in rows if metric == "auc" and REFERENCE in model]
    if (ATTACK, "auc") in rows:
        auc, power = (rows[ATTACK, m] for m in MEMBER_METRICS)
        beside = f" beside {', '.join(references)}" if references else ""
        lines.append(
            f"  by a model of several features{beside}: AUC {_number(auc)}; {_share(power)} found"
        )
    lines += [
        f"  {model} tells them too, AUC {_number(rows[model, 'auc'])}: it was trained on some of"
        " these users, and hides what it is to show; name another"
        for model in references
        if _above(rows[model, "auc"], 0.5)
    ]
    return lines


def _attribute(task: str, found: Found) -> list[str]:
    rows, name = found[task], task.removeprefix(PREFIX)
    metric = next(iter(rows))[1]
    if metric.endswith("_difference"):
        mine, luck = rows[MODEL, metric], rows["chance", metric]
        place = "beyond" if mine.value > (luck.high or 0.0) else "within"
        return [
            f"{name}: {metric_name(metric)} {_number(mine)}, {place} what the furthest of as many"
            f" groups are apart by chance, {_number(luck)}"
        ]
    if metric not in ATTRIBUTES or (MODEL, metric) not in rows:
        return []
    beside = ", ".join(
        f"{_NAMES.get(model, model)} {_number(result)}"
        for (model, of), result in rows.items()
        if of == metric and model != MODEL and " - " not in model and not model.endswith(HEADS)
    )
    reached = _number(rows[MODEL, metric])
    return [f"{name}: predicted with {metric_name(metric)} {reached}; {beside}"]


_TELL: dict[str, Callable[[str, Found], list[str]]] = {
    LINKAGE: _linkage,
    MEMBERSHIP: _membership,
    PREFIX: _attribute,
}


def _above(result: Result, chance: float) -> bool:
    return result.low is not None and result.low > chance


def _share(result: Result) -> str:
    return _with_interval(result, lambda value: f"{100 * value:.1f}", " %")


def _number(result: Result) -> str:
    return _with_interval(result, short, "")


def _with_interval(result: Result, written: Callable[[float], str], unit: str) -> str:
    if result.low is None or result.high is None or result.low == result.high:
        return f"{written(result.value)}{unit}"
    return f"{written(result.value)}{unit} [{written(result.low)} {written(result.high)}]"
