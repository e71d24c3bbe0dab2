"""The page of an audit says who can be linked, beside chance, and takes it for no success."""

import json
import re

from clue_jax.report.audit import audit_section
from clue_jax.report.page import write_report
from tests.report.test_page import Outline


def entry(task, model, metric, value, n=340, interval=0.05):
    low, high = (value - interval, value + interval) if interval else (None, None)
    return {
        "task": f"audit/{task}", "model": model, "metric": metric, "value": value, "low": low,
        "high": high, "n": n, "seed": 0,
    }  # fmt: skip


LINKED = "linkage/test/shop<->search (mean)"
RESULTS = [
    entry(LINKED, "clue", "recall_at_1", 0.43),
    entry(LINKED, "chance", "recall_at_1", 0.003, interval=0),
    entry(LINKED, "clue", "recall_at_10", 0.83),
    entry(LINKED, "clue", "linked_share", 0.53),
    entry(LINKED, "clue", "link_precision", 0.64),
    entry(f"{LINKED} among 100", "clue", "recall_at_1", 0.6),
    entry(f"{LINKED}, at most 20 behaviours", "clue", "recall_at_1", 0.26, n=73),
    entry("membership/shop<->search", "clue", "auc", 0.716),
    entry("membership/shop<->search", "chance", "auc", 0.5, interval=0),
]


def test_linkage_and_membership_are_drawn_beside_chance(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    page = Outline(write_report(tmp_path).read_text())
    assert "What an attacker learns" in page.text
    assert "Mutual nearest neighbours link 53% of the people; 64% of these" in page.text
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    linkage, membership = labels
    for part in ("linked among 340 0.430 [0.380, 0.480]", "chance among 340 0.0030"):
        assert part in linkage
    assert "linked among 100 0.600" in linkage and "behaviours" not in linkage
    assert "told apart 0.716" in membership and "chance 0.500" in membership
    assert "attack model" not in page.text and "are found" not in page.text
    # Nothing of it among the tiles and plots of what is to be high.
    assert "R@10: clue" not in page.text and "Evaluation</h2>" not in page.text


def test_the_attack_model_is_explained_where_it_was_run(tmp_path):
    task, found = "membership/search+shop", "tpr_at_1_percent_fpr"
    added = [entry(task, "attack model", "auc", 0.8), entry(task, "reference x", "auc", 0.5)]
    added += [entry(task, m, found, v) for m, v in (("clue", 0.021), ("attack model", 0.1))]
    (tmp_path / "results.json").write_text(
        json.dumps([*RESULTS, entry(task, "clue", "auc", 0.7), *added])
    )
    page = Outline(write_report(tmp_path).read_text())
    said = "2.1% of training users are found, 10.0% of training users by the attack model."
    assert f"At one false alarm in a hundred others, {said}" in page.text
    assert "The attack model is fitted on users of whom it is known" in page.text
    plot = [a["aria-label"] for tag, a in page.tags if tag == "svg"][-1]
    assert plot.startswith("Trained on: search, shop") and "by the attack model 0.800" in plot
    dots = re.findall(r'<g class="(model|baseline)">', (tmp_path / "report.html").read_text())
    assert dots[-3:] == ["model", "model", "baseline"]


def test_other_results_have_no_such_section():
    other = [{**one, "task": one["task"].replace("audit/linkage", "matching")} for one in RESULTS]
    assert audit_section(other[:7]) == "" == audit_section([])
