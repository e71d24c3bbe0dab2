"""The report page: complete, self-contained, escaped, for each kind of directory."""

import html.parser
import json
import re

import pytest

from clue_jax.errors import DataError
from clue_jax.evaluation.results import metric_name
from clue_jax.report.page import write_report

VOID = {"img", "meta"}


class Outline(html.parser.HTMLParser):
    """Collects tags and text, and checks that every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def fill_run(folder, steps=40):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for step in range(10, steps + 1, 10):
        rows.append(
            {
                "step": step,
                "loss": 50.0 / step,
                "retrieval_at_1": step / 100,
                "logit_scale": 14.0,
                "learning_rate": 1e-3,
                "users_per_second": 1_234.0,
                "goodput": 0.75,
                "restarts": 2,
                "data_wait": 0.01,
                "skipped": int(step == 20),
            }
        )
    rows[1]["loss"] = float("nan")  # a skipped step: a gap, not the end of the report
    rows.append({"step": steps, "split": "validation", "recall_at_10": 0.625, "mrr": 0.3})
    rows[-1] |= {"users": 211, "chance": 0.047}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"train": {"batch_users": 32}, "sampling": {"item_steps": 20}}
    (folder / "config.json").write_text(json.dumps(config))
    command = ["python", "-m", "clue_jax", "train", "--workdir=a b"]
    (folder / "environment.json").write_text(json.dumps({"jax": "0.10.2", "command": command}))


def fill_evaluation(folder):
    folder.mkdir(parents=True, exist_ok=True)
    scores = {"encoder <v1>": (0.625, 0.55, 0.7), "tfidf": (0.25, 0.2, 0.3)}
    scores["chance"] = (0.0474, None, None)
    entries = [
        {"task": task, "model": model, "metric": metric, "n": 211, "seed": 0}
        | dict(zip(("value", "low", "high"), score, strict=True))
        for task in ("search->shop", "shop->search")
        for model, score in scores.items()
        for metric in ("recall_at_10", "mrr")
    ]
    (folder / "results.json").write_text(json.dumps(entries))


def page_of(folder):
    path = write_report(str(folder))
    assert path.name == "report.html" and path.parent.name == folder.name
    return path.read_text()


def test_a_run_is_shown_with_its_curves(tmp_path):
    fill_run(tmp_path / "run")
    page = page_of(tmp_path / "run")
    outline = Outline(page)
    charts = [attrs for tag, attrs in outline.tags if tag == "svg"]
    assert len(charts) == 9 and all(attrs["role"] == "img" for attrs in charts)
    names = [attrs["aria-label"].split(":")[0] for attrs in charts]
    assert names[0] == "Loss" and "Validation R@10" in names and "Temperature" in names
    assert "chance 0.047" in next(a["aria-label"] for a in charts if "R@10" in a["aria-label"])
    assert "whole users" in outline.text and "among 211" in outline.text
    assert "75% goodput, 2 restarts" in outline.text and "1 skipped steps" in outline.text
    assert not re.search(r"\bnan\b", re.sub(r"<pre.*?</pre>", "", page, flags=re.S).lower())
    assert "--workdir=a b" in outline.text
    assert "Throughput" in names and "MFU" not in names  # which CPUs have not


def test_utilisation_is_shown_where_it_is_known(tmp_path):
    fill_run(tmp_path)
    rows = [{"step": step, "loss": 1.0, "mfu": step / 100} for step in (10, 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outline = Outline(page_of(tmp_path))
    assert any(of.get("aria-label", "").startswith("MFU: 0.1") for _, of in outline.tags)


def test_an_evaluation_is_shown_with_its_intervals(tmp_path):
    fill_evaluation(tmp_path / "evaluation")
    outline = Outline(page_of(tmp_path / "evaluation"))
    assert [tag for tag, _ in outline.tags].count("tr") == 1 + 4 + 12
    assert "0.625 [0.550, 0.700]" in outline.text and "search → shop, R@10" in outline.text
    assert "encoder <v1>" in outline.text  # shown as text, so it was escaped
    assert "v1" not in {tag for tag, _ in outline.tags}


def test_the_mean_of_both_directions_is_seen_first(tmp_path):
    entry = {"model": "clue", "metric": "recall_at_10", "value": 0.5}
    tasks = {"a->b": 0.25, "b->a": 0.75, "a<->b (mean)": 0.5}
    entries = [entry | {"task": task, "value": value} for task, value in tasks.items()]
    entries.append(entries[-1] | {"model": "clue - tfidf", "value": 0.125})
    (tmp_path / "results.json").write_text(json.dumps(entries))
    outline = Outline(page_of(tmp_path))
    (chart,) = [attrs["aria-label"] for tag, attrs in outline.tags if tag == "svg"]
    assert "0.500" in chart and "0.125" not in chart
    assert "a ↔ b (mean)" in outline.text and "0.125" in outline.text


def test_downstream_tasks_are_shown_by_their_first_metric(tmp_path):
    def entry(task, model, metric, value):
        interval = {"low": value - 0.05, "high": value + 0.05, "n": 893, "seed": 0}
        return {"task": task, "model": model, "metric": metric, "value": value} | interval

    task, new = "downstream/buys <soon>", "downstream/buys <soon>, new users"
    models = {"prior": 0.5, "clue": 0.7, "clue linear": 0.69, "clue - prior": 0.2, "best": 0.85}
    entries = [entry(task, model, "auc", value) for model, value in models.items()]
    lift = entry(f"{task}, lift of the policy", "clue", "dr_lift", 1.25)
    entries += [entry(task, "clue", "log_loss", 0.61), entry(new, "clue", "auc", 0.66), lift]
    (tmp_path / "results.json").write_text(json.dumps(entries))
    outline = Outline(page_of(tmp_path))
    first, second = [attrs["aria-label"] for tag, attrs in outline.tags if tag == "svg"]
    assert first.startswith("buys <soon>, AUC: prior 0.500 [0.450, 0.550]")
    assert "best possible 0.850" in first and "clue 0.700" in first
    assert "linear" not in first and "0.200" not in first and "0.610" not in first
    assert "lift of the policy" in second and "1.250" in second
    for expected in ("clue linear", "clue - prior", "log loss", "n = 893"):
        assert expected in outline.text
    # Groups of users stand beside each other, in a table of the task.
    for expected in ("buys <soon>, by groups of users", "new users, n = 893", "0.660"):
        assert expected in outline.text
    assert [tag for tag, _ in outline.tags].count("details") == 3


def test_a_quickstart_is_shown_whole(tmp_path):
    folder = tmp_path / "quickstart"
    fill_run(folder / "run")
    fill_evaluation(folder / "evaluation")
    (folder / "data").mkdir()
    split = {"users": 2_400, "behaviours": {"search": 41_000, "shop": 42_000}}
    manifest = {"services": ["search", "shop"], "splits": {"train": split}}
    (folder / "data" / "manifest.json").write_text(json.dumps(manifest))
    commands = [{"stage": "train", "argv": ["python", "--out=a b"], "seconds": 61.0}]
    (folder / "commands.json").write_text(json.dumps(commands))
    outline = Outline(page_of(folder))
    for expected in ("2,400", "41,000", "python '--out=a b'  # 61 s", "Evaluation", "Training"):
        assert expected in outline.text


@pytest.mark.parametrize(("low", "said"), [(0.6, "within"), (0.63, "OUTSIDE")])
def test_a_quickstart_says_what_was_to_be_expected(tmp_path, low, said):
    folder = tmp_path / "quickstart"
    fill_evaluation(folder / "evaluation")
    assert "range to expect" not in Outline(page_of(folder)).text
    expected = {"metric": "recall_at_10", "low": low, "high": 0.7}
    (folder / "expected.json").write_text(json.dumps(expected))
    line = (
        f"R@10 of encoder <v1>, the mean of 2 pairs of services, is 0.625: {said} the range to"
        f" expect, {low:.2f} to 0.70; chance is 0.047."
    )
    assert line in Outline(page_of(folder)).text
    (folder / "expected.json").write_text(json.dumps(expected | {"low": "high"}))
    with pytest.raises(DataError, match=r"expected\.json: .* run quickstart again"):
        write_report(str(folder))


def test_a_page_needs_nothing_from_elsewhere(tmp_path):
    fill_run(tmp_path)
    fill_evaluation(tmp_path / "evaluation")
    for folder in (tmp_path, tmp_path / "evaluation"):
        page = page_of(folder)
        outline = Outline(page)
        assert not {tag for tag, _ in outline.tags} & {"script", "link", "img", "iframe"}
        assert not any(key in attrs for _, attrs in outline.tags for key in ("src", "href"))
        assert not re.search(r"https?:|url\(|@import", page)
        assert "prefers-color-scheme: dark" in page and "width=device-width" in page


def test_every_colour_has_a_dark_value(tmp_path):
    fill_run(tmp_path)
    page = page_of(tmp_path)
    light, dark = page.split("prefers-color-scheme: dark")[0], page.split("color-scheme: dark")[1]
    used = set(re.findall(r"var\((--\w+)\)", page))
    assert used and used <= set(re.findall(r"(--\w+):", light)) & set(re.findall(r"(--\w+):", dark))


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    fill_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1')
    assert "No step has been logged yet" in page_of(tmp_path)


def test_a_failed_report_leaves_the_old_page(tmp_path):
    fill_run(tmp_path)
    before = page_of(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("damaged\n")
    with pytest.raises(DataError, match="metrics.jsonl:1"):
        write_report(str(tmp_path))
    assert (tmp_path / "report.html").read_text() == before


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("recall_at_10", "R@10"),
        ("R@10", "R@10"),
        ("mrr", "MRR"),
        ("recall_at_10_block", "R@10 block"),
        ("hit_rate_at_5", "HR@5"),
        ("ndcg_at_10", "NDCG@10"),
        ("precision_at_20", "precision@20"),
        ("r2", "R2"),
        ("log_loss", "log loss"),
    ],
)
def test_metric_names(metric, name):
    assert metric_name(metric) == name
