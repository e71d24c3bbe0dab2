"""Whether training users are told from others, where training left a trace and where not."""

import shutil

import numpy as np
import pytest

from clue_jax.embeddings.reader import read_embeddings
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation.attack import features, told
from tests.embeddings.exports import random_users, unit, write_export
from tests.evaluation.audit_world import PEOPLE, WIDTH, run, value, write_people
from tests.stages import run_stage, train_arguments

TOLD = "audit/membership/art<->office"
SPLITS = np.where(np.arange(PEOPLE) % 3 == 0, "test", "train").astype(object)
MEMBER = SPLITS == "train"
# How much the services of a person differ, whoever the encoder was trained on.
HARD = np.random.default_rng(7).uniform(0.02, 0.3, PEOPLE)


def test_training_users_are_told_by_how_near_their_vectors_are(tmp_path, capsys):
    noise = np.where(SPLITS == "train", 0.1, 0.3)
    write_people(tmp_path / "users", noise=noise, splits=SPLITS)
    results = run(tmp_path, membership=True)
    for model in ("clue", "attack model"):
        auc, found = (results[TOLD, model, m] for m in ("auc", "tpr_at_1_percent_fpr"))
        assert auc["low"] > 0.9 and found["value"] > 0.5 and auc["n"] == PEOPLE
    assert value(results, "auc", TOLD, "chance") == 0.5
    assert "who was trained on is told by how near" in capsys.readouterr().out


def test_training_that_left_no_trace_is_not_told(tmp_path, capsys):
    write_people(tmp_path / "users", noise=0.3, splits=SPLITS)
    write_reference(tmp_path, noise=0.3)
    results = run(tmp_path, membership=True, reference=(f"other={tmp_path / 'other'}",))
    for model in ("clue", "attack model", "reference other"):
        row = results[TOLD, model, "auc"]
        assert row["low"] <= 0.5 <= row["high"], model
        assert value(results, "tpr_at_1_percent_fpr", TOLD, model) < 0.1
    printed = capsys.readouterr().out
    assert "who was trained on is not told" in printed and "tells them too" not in printed


def write_reference(tmp_path, noise, **columns):
    """The same people in the space of another encoder."""
    columns = {"model_version": "model-2", "splits": SPLITS} | columns
    return write_people(tmp_path / "other", noise=noise, seed=3, **columns)


def test_a_reference_finds_the_trace_that_hard_users_hide(tmp_path, capsys):
    # Training took half of it off, which is little beside how much users differ among themselves.
    write_people(tmp_path / "users", noise=np.where(MEMBER, 0.5, 1.0) * HARD, splits=SPLITS)
    write_reference(tmp_path, noise=HARD)
    results = run(tmp_path, membership=True, reference=(f"other={tmp_path / 'other'}",))
    simple, model = (results[TOLD, name, "auc"] for name in ("clue", "attack model"))
    assert simple["high"] < model["low"] and model["value"] > 0.8
    assert value(results, "auc", TOLD, "reference other") == pytest.approx(0.5, abs=0.1)
    assert "several features beside reference other: AUC" in capsys.readouterr().out


def test_a_reference_that_was_trained_on_the_users_is_named(tmp_path, capsys):
    noise = np.where(MEMBER, 0.1, 0.3)
    write_people(tmp_path / "users", noise=noise, splits=SPLITS)
    write_reference(tmp_path, noise)
    run(tmp_path, membership=True, reference=(f"other={tmp_path / 'other'}",))
    assert "reference other tells them too, AUC" in capsys.readouterr().out


def test_crops_of_the_same_encoder_take_part(tmp_path):
    # What is left of the trace is in the vectors of few behaviours alone.
    write_people(tmp_path / "users", noise=0.3, splits=SPLITS)
    write_people(tmp_path / "few", noise=np.where(MEMBER, 0.1, 0.3), splits=SPLITS, seed=5)
    without = run(tmp_path, membership=True)
    results = run(tmp_path, membership=True, crops=(f"few={tmp_path / 'few'}",))
    assert without[TOLD, "attack model", "auc"]["high"] < 0.65
    assert results[TOLD, "attack model", "auc"]["low"] > 0.9
    assert (TOLD, "reference few", "auc") not in results


def test_all_services_together_tell_more_than_two(tmp_path):
    services, rng = ("art", "books", "office"), np.random.default_rng(0)
    person = unit(rng.normal(size=(PEOPLE, WIDTH)))
    noise = np.where(MEMBER, 0.35, 0.45)[:, None, None] * rng.normal(size=(PEOPLE, 3, WIDTH))
    z_NSE = unit(person[:, None] + noise)
    users = random_users(
        PEOPLE, services, WIDTH, splits=SPLITS, z_NSE=z_NSE, embedding_NE=unit(z_NSE.sum(axis=1)),
        counts_NS=np.full((PEOPLE, 3), 9),
    )  # fmt: skip
    write_export(tmp_path / "users", users)
    results = run(tmp_path, membership=True, splits=("test",))
    together = value(results, "auc", "audit/membership/art+books+office")
    assert together > max(
        value(results, "auc", f"audit/membership/{pair}")
        for pair in ("art<->books", "art<->office", "books<->office")
    )


def test_nobody_is_told_by_a_model_that_knows_them():
    rng = np.random.default_rng(0)
    member_n = rng.random(400) < 0.5
    # As many random features as would tell everybody apart if the model were asked about its own.
    noise_nX = rng.normal(size=(400, 150))
    odds_n = told(noise_nX, member_n, 5, 0)
    assert abs(odds_n[member_n].mean() - odds_n[~member_n].mean()) < 0.5 * odds_n.std()
    noise_nX[:, 0] += 2.0 * member_n
    odds_n = told(noise_nX, member_n, 5, 0)
    assert odds_n[member_n].mean() - odds_n[~member_n].mean() > odds_n.std()


def test_features_are_what_they_say():
    rng = np.random.default_rng(0)
    first_nE, second_nE = (unit(rng.normal(size=(300, 8))).astype(np.float64) for _ in range(2))
    cosine_nn = first_nE @ second_nE.T
    own_n = np.diag(cosine_nn)
    logits_nn = cosine_nn / 0.07
    loss_n = np.mean([np.log(np.exp(logits_nn).sum(axis=a)) for a in (0, 1)], 0) - own_n / 0.07
    rank_n = np.mean([np.log((own_n <= c_nn).sum(axis=0)) for c_nn in (cosine_nn, cosine_nn.T)], 0)
    found = features([(first_nE, second_nE)], np.full((300, 2), 5))
    expected = np.stack([own_n, np.log(1.0 - own_n), loss_n, rank_n], 1)
    np.testing.assert_allclose(found[:, :4], expected, atol=1e-9)
    assert (found[:, 4:] == np.log(5)).all()


def test_membership_needs_users_of_both_kinds(tmp_path):
    write_people(tmp_path / "users")
    with pytest.raises(DataError, match=r"this one has test: export with .*audit\.membership=f"):
        run(tmp_path, membership=True)
    few = np.full(PEOPLE, "test", object)
    few[:9] = "train"
    write_people(tmp_path / "users", splits=few)
    with pytest.raises(DataError, match="art and office: 9 training users .*min_audience=30"):
        run(tmp_path, membership=True)
    assert not (tmp_path / "out").exists()


def test_other_exports_of_an_attack_must_fit(tmp_path):
    users = write_people(tmp_path / "users", splits=SPLITS)
    other = f"other={tmp_path / 'other'}"
    write_people(tmp_path / "other", splits=SPLITS)
    with pytest.raises(DataError, match=r"reference=other: .* is of model model-1, .*another enc"):
        run(tmp_path, membership=True, reference=(other,))
    shutil.rmtree(tmp_path / "other")
    write_reference(tmp_path, noise=0.1)
    with pytest.raises(DataError, match=r"crops=other: .* model model-2, .*fewer behaviours"):
        run(tmp_path, membership=True, crops=(other,))
    shutil.rmtree(tmp_path / "other")
    some = {key: v[:200] if isinstance(v, np.ndarray) else v for key, v in users.items()}
    write_export(tmp_path / "other", some | {"model_version": "model-2"})
    with pytest.raises(DataError, match=r"lacks 40 of the 240 users .*same splits and window"):
        run(tmp_path, membership=True, reference=(other,))
    assert len(read_embeddings(tmp_path / "other")) == 200


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"reference": ("other",)}, r"audit\.reference: 'other': give NAME=DIR"),
        ({"crops": ("a=b", "a=c")}, r"audit\.crops: two have the same name"),
        ({"crops": ("a=b",), "membership": False}, r"crops: is for audit\.membership=true"),
        ({"attack_folds": 1}, r"audit\.attack_folds: 1 must be at least 2"),
    ],
)
def test_settings_of_the_attack_are_checked(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **({"membership": True} | keys))


def audit_of_encoder(folder, run_folder, seed, *prepared):
    """The AUC of both attacks on 200 synthetic people, half of whom are of the training split."""
    logs, data = folder / "logs", folder / "data"
    users = f"--config.seed={seed}", "--config.labels=false"
    run_stage("synthesize", "--config=configs/synthesize.py:smoke", f"--out={logs}", *users)
    source = f"--config.source={logs}", "--config.split.test=0.5", "--config.split.validation=0"
    config = "--config=configs/data/synthetic.py:smoke"
    run_stage("prepare", config, f"--out={data}", *source, *prepared)
    if not run_folder.exists():
        overfit = "train.steps=100", "train.eval_every=0", "optim.learning_rate=1e-2"
        overfit += "checkpoint.every_steps=100", "train.batch_users=64"
        # A bag of words does it, and compiles in a fraction of the time.
        overfit += "encoder.item.num_layers=0", "encoder.service.num_layers=0"
        run_stage("train", *train_arguments(data, run_folder, *(f"--config.{o}" for o in overfit)))
    run_stage("export", f"--workdir={run_folder}", f"--data={data}", f"--out={folder / 'users'}")
    results = run(folder, membership=True, services=("search", "shop"), min_behaviours=2)
    return [results["audit/membership/search<->shop", m, "auc"] for m in ("clue", "attack model")]


def test_an_overfit_encoder_is_found_on_its_users_and_on_nobody_else(tmp_path):
    encoder = tmp_path / "run"
    for of_its_own in audit_of_encoder(tmp_path / "own", encoder, 0):
        assert of_its_own["low"] > 0.9
    guides = f"--config.tokenizer.path={encoder}"
    for of_others in audit_of_encoder(tmp_path / "others", encoder, 3, guides):
        assert of_others["low"] <= 0.5 and of_others["value"] < 0.65
