"""Every model that a page can show has a sentence, and no page explains what it does not show."""

import json
import re

import pytest

from clue_jax.config import DownstreamConfig
from clue_jax.config.evaluation import BASELINES, FEATURES, MORE_FEATURES
from clue_jax.report.glossary import glossary, metric_said
from clue_jax.report.page import write_report
from tests.report.test_page import Outline, fill_evaluation

REFERENCES = ("prior", "popularity", "history", "best", "context", "stated policy")
BESIDE = "another export named beside"


def explained(html):
    return dict(re.findall(r"<dt>(.*?):</dt> <dd>(.*?)</dd>", html))


@pytest.mark.parametrize("model", sorted({*BASELINES, *FEATURES, *MORE_FEATURES, *REFERENCES}))
def test_every_model_has_a_sentence(model):
    found = explained(glossary([model]))
    first, *_ = found
    assert first.split(" (")[0] == model.partition("+")[0]
    assert all(len(said) > 15 and said.endswith(".") for said in found.values())
    if model != "clue+best":
        assert BESIDE not in str(found)


def test_names_of_the_literature_are_given():
    assert set(explained(glossary(["tfidf", "als", "sasrec"]))) == {
        "tfidf (TF-IDF)", "als (ALS)", "sasrec (SASRec)",
    }  # fmt: skip


def test_joined_and_other_exports_are_explained_by_their_parts():
    models = ["clue+month", "clue/shop", "tfidf (order unknown)", "clue - tfidf", "clue linear"]
    found = explained(glossary(models))
    assert list(found) == ["clue", "tfidf (TF-IDF)", "month", "clue/shop", "A+B"]
    assert BESIDE in found["month"] and "shop alone" in found["clue/shop"]
    assert glossary(["clue - tfidf"]) == ""


def test_tasks_are_explained_where_they_are_shown(tmp_path):
    entry = {"task": "downstream/buys", "metric": "auc", "value": 0.7, "n": 9}
    models = ("prior", *DownstreamConfig().features[:3], "clue linear", "clue - prior")
    (tmp_path / "results.json").write_text(json.dumps([entry | {"model": m} for m in models]))
    page = write_report(tmp_path).read_text()
    assert list(explained(page)) == ["clue", "random_encoder", "tfidf (TF-IDF)", "prior"]
    assert (
        "AUC: chance that one with the label is ranked above one without; guessing has .5. With"
        in Outline(page).text
    )
    fill_evaluation(tmp_path)
    assert list(explained(write_report(tmp_path).read_text())) == [
        "tfidf (TF-IDF)", "chance", "encoder &lt;v1&gt;",
    ]  # fmt: skip


def test_names_are_escaped():
    assert "<script>" not in glossary(["<script>"]) and "&lt;script&gt;" in glossary(["<script>"])


@pytest.mark.parametrize(
    ("metric", "begins"),
    [("hit_rate_at_10", ": share"), ("auc_difference", ": chance"), ("log_loss", "")],
)
def test_metrics_of_plots_are_explained(metric, begins):
    said = metric_said(metric)
    assert said.startswith(begins) and bool(said) == bool(begins)
