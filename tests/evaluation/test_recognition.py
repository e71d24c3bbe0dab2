"""What is left of matching when users repeat nothing: texts taken away, and the decomposition."""

import numpy as np
import pytest

from clue_jax import files
from clue_jax.config import EvaluateConfig, MatchingConfig
from clue_jax.errors import CheckpointError, DataError
from clue_jax.evaluation import recognition, suite
from clue_jax.evaluation.recognition import FORMS, PARTS

BOTH = (["Blue pen", "red ink", "blue pen big"], ["blue PEN", "green paper", "ink-pot x"])


def test_shared_texts_go_whatever_their_case():
    first, second = recognition.without_shared_texts(BOTH)
    assert first == ["red ink", "blue pen big"] and second == ["green paper", "ink-pot x"]


def test_shared_words_go_and_texts_without_a_word_too():
    first, second = recognition.without_shared_words(BOTH)
    assert [text.split() for text in first] == [["red"], ["big"]]
    assert [text.split() for text in second] == [["green", "paper"], ["-pot", "x"]]
    assert not recognition.words_in(first) & recognition.words_in(second)
    assert recognition.without_shared_words((["a pen"], ["a pen", "b"])) == ([], [])


def test_the_part_of_a_user():
    parts = [recognition.part_of(both) for both in (BOTH, (["a pen"], ["pen b"]), (["x y"], ["z"]))]
    assert parts == [0, 1, 2] and len(PARTS) == 3


@pytest.fixture(scope="module")
def found(smoke_run, smoke_data, tmp_path_factory):
    from tests.stages import run_stage

    folder = tmp_path_factory.mktemp("recognition")
    users = folder / "users"
    run_stage("export", f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={users}")
    matching = MatchingConfig(
        services=("search", "shop"),
        splits=("train", "test"),
        min_behaviours=2,
        bootstrap=50,
        baselines=("tfidf",),
        probe=str(smoke_run),
    )
    suite.evaluate(
        EvaluateConfig(matching=matching, min_audience=1), str(users), str(folder / "out")
    )
    rows = files.read_json(folder / "out" / "results.json")
    return folder, matching, {(row["task"], row["model"], row["metric"]): row for row in rows}


def test_tfidf_has_nothing_left_without_shared_words(found):
    _, _, rows = found
    mean = "matching/train+test/search<->shop (mean)"
    scores = {f: rows[f"{mean}, {f}", "tfidf", "mrr"] for f in FORMS}
    whole, fewer, none = (scores[form]["value"] for form in FORMS)
    assert whole > 1.3 * none and whole >= fewer > 0
    chance = rows[f"{mean}, {FORMS[2]}", "chance", "mrr"]["value"]
    assert none < 1.05 * chance
    assert len({row["n"] for row in scores.values()}) == 1
    # Few texts change where services share 1 % of their words.
    clue = [rows[f"{mean}, {form}", "clue", "mrr"]["value"] for form in FORMS]
    assert clue[0] != clue[2]


def test_texts_as_they_are_give_the_vectors_of_the_export(found):
    _, _, rows = found
    mean = "matching/train+test/search<->shop (mean)"
    ours, exported = (rows[t, "clue", "mrr"] for t in (f"{mean}, as they are", mean))
    if ours["n"] == exported["n"]:  # nobody was left out
        assert ours["value"] == pytest.approx(exported["value"], abs=1e-3)
    parts = [rows.get((f"{mean}, users {part}", "clue", "mrr")) for part in PARTS]
    there = [part for part in parts if part]
    assert there and sum(part["n"] for part in there) <= ours["n"]
    total = np.sum([part["n"] * part["value"] for part in there])
    if sum(part["n"] for part in there) == ours["n"]:
        assert total / ours["n"] == pytest.approx(ours["value"])


def test_an_encoder_of_another_model_is_refused(found, tmp_path, monkeypatch):
    folder, matching, _ = found
    matching.probe = str(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="nowhere"):
        suite.evaluate(
            EvaluateConfig(matching=matching), str(folder / "users"), str(tmp_path / "o")
        )
    assert not (tmp_path / "o").exists()

    class Other:
        model_version = "other"

    monkeypatch.setattr(recognition.UserEncoder, "from_pretrained", lambda path, step: Other())
    with pytest.raises(DataError, match="is model other, but the export is of"):
        suite.evaluate(
            EvaluateConfig(matching=matching), str(folder / "users"), str(tmp_path / "o")
        )
