"""A sentence for each model of a page: what it knows, and what it is there to show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clue_jax.evaluation.results import HEADS, MODEL
from clue_jax.report.fragments import text

CHANCE = "chance"
BASELINES = ("tfidf", "random_encoder", CHANCE)  # of matching

# Model -> (as people write it, what it is).
MODELS = {
    MODEL: ("", "the embeddings that are evaluated; the encoder is not trained any further."),
    "random_encoder": (
        "",
        "the same encoder with random parameters, before any training: what comes of the texts"
        " without learning.",
    ),
    "tfidf": (
        "TF-IDF",
        "counts of the words in a user's texts, rare words weighing more; it knows no word that"
        " means the same as another.",
    ),
    "factors": (
        "",
        "matrix factorisation: a truncated singular value decomposition of the table of who has"
        " which item, by ids of items and without their texts.",
    ),
    "als": (
        "ALS",
        "matrix factorisation for implicit feedback, by alternating least squares: users and items"
        " as vectors whose products are high where a user has an item.",
    ),
    "sasrec": (
        "SASRec",
        "a Transformer over the sequence of a user's items by their ids, trained from scratch to"
        " predict the next one on this service alone.",
    ),
    "item_mean": ("", "the mean of the encoder's vectors of a user's items."),
    "item_recent": (
        "",
        "the mean of the encoder's vectors of a user's items, an older one weighing less.",
    ),
    "context": (
        "",
        "nothing of the user: only what was shown and where, which every model is told.",
    ),
    "fine_tuned": (
        "",
        "the whole encoder trained further on the labels of the task, from where its training"
        " ended.",
    ),
    "text_transformer": (
        "",
        "the same architecture trained on the labels of the task alone, from random parameters.",
    ),
    "prior": (
        "",
        "knows nothing of a user: predicts the shares, or the mean, that the labels of the others"
        " have.",
    ),
    "popularity": ("", "shows everybody the same items, those that most users have first."),
    "history": (
        "",
        "what a user had comes first, most often had before the rest, then what is popular.",
    ),
    "best": (
        "best possible",
        "the prediction of one who knows what caused these synthetic labels: nobody can do better.",
    ),
    "stated policy": (
        "",
        "shows what the truth of the synthetic clicks says, to see how well lifts are estimated.",
    ),
    CHANCE: ("", "what guessing reaches."),
}

# Metric, of those at k without k -> what it is; of metrics that a plot is of.
_METRICS = {
    "auc": "chance that one with the label is ranked above one without; guessing has .5",
    "accuracy": "share of users whose class is predicted",
    "r2": "share of the variance that is predicted; the mean of all has 0",
    "hit_rate_at_": "share of users whose next item is among the first so many of the catalogue",
    "ips_lift": "clicks that a policy would have earned over those of the log, estimated, minus 1",
}


def glossary(models: Iterable[str]) -> str:
    """A sentence for each of some models, and for each part of a joined one, as HTML.

    Differences (`A - B`) and single heads (`A linear`) are no models of a plot, so they have none.
    """
    names = [model.partition(" (")[0] for model in models]
    shown = [name for name in names if " - " not in name and not name.endswith(HEADS)]
    if not shown:
        return ""
    parts = dict.fromkeys(part for name in shown for part in name.split("+"))
    known = [name for name in MODELS if name in parts]
    entries = [_entry(part) for part in [*known, *(part for part in parts if part not in MODELS)]]
    if any("+" in name for name in shown):
        entries.append(("A+B", "two of these side by side: what the second adds to the first."))
    items = "".join(
        f"<div><dt>{text(name)}:</dt> <dd>{text(said)}</dd></div>" for name, said in entries
    )
    return f'<dl class="glossary">{items}</dl>'


def metric_said(metric: str) -> str:
    """What a metric of results.json is, as the end of a sentence; empty if not known."""
    plain = metric.removesuffix("_difference")
    named = plain.rstrip("0123456789")  # hit_rate_at_10
    said = _METRICS.get(named if named.endswith("_at_") else plain)
    return f": {said}" if said else ""


def models_of(entries: Iterable[dict[str, Any]]) -> dict[str, None]:
    """Names of the models of some results, each once, in their order."""
    return dict.fromkeys(entry["model"] for entry in entries)


def _entry(part: str) -> tuple[str, str]:
    """Heading and sentence for one set of vectors."""
    if part in MODELS:
        written, said = MODELS[part]
        return (f"{part} ({written})" if written else part), said
    export, _, service = part.partition("/")
    if service:
        of = "the export" if export == MODEL else f"the other export {export}"
        return part, f"vectors of {of} from what users did on {service} alone."
    return part, (
        "another export named beside the evaluated one (downstream.beside), such as a window of"
        " time, fewer dimensions, or another encoder; under the same protocol."
    )
