"""Encoders trained on labels: what they learn and do not, whom from, and where they start."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clue_jax import files
from clue_jax.composition import combine
from clue_jax.config import (
    DownstreamConfig,
    EncoderConfig,
    EvaluateConfig,
    TaskConfig,
    TaskKind,
    TransformerConfig,
    to_json,
)
from clue_jax.data.recency import service_weights
from clue_jax.data.records import concatenate
from clue_jax.data.source import open_dataset
from clue_jax.encoder import UserEncoder
from clue_jax.errors import ConfigError, DataError
from clue_jax.evaluation import suite
from clue_jax.evaluation.fine_tuning import Batches, tune
from clue_jax.evaluation.folds import Folds
from clue_jax.evaluation.heads import Features, Problem, fit
from clue_jax.evaluation.tuned_encoder import TunedEncoder
from clue_jax.inference import embedding_encoder
from clue_jax.model import clue
from clue_jax.parallel.mesh import single_device_mesh
from tests.evaluation import downstream_world as world

ONE, NONE = TransformerConfig(num_layers=1, num_heads=2, mlp_width=32), TransformerConfig(0)
SMALL = EncoderConfig(
    width=16,
    embedding_width=16,
    item=NONE,
    service=ONE,
    max_history=16,
    row_tokens=32,
    item_rows=8,
    row_behaviours=32,
    history_rows=8,
)
CONFIG = DownstreamConfig(
    weight_decays=(1e-2,), steps=20, tune_steps=20, tune_learning_rates=(1e-2,)
)


@dataclasses.dataclass
class Company:
    """People of four kinds, an encoder that knows nothing, and which kind is whose."""

    encoder: TunedEncoder
    params: dict
    kind_N: np.ndarray

    def problem(self, target_n, kind=TaskKind.BINARY):
        owner_n = np.arange(len(self.kind_N))
        return Problem(kind, owner_n, target_n, Folds(owner_n % 3, 3))

    def tune(self, problem, seed=0, warm=False, **keys):
        config = dataclasses.replace(CONFIG, **keys)
        return tune(self.encoder, self.params, problem, config, seed, warm=warm)


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    dataset = open_dataset(world.write_data(tmp_path_factory.mktemp("company")))
    splits = [dataset.users(split) for split in ("train", "validation", "test")]
    users = concatenate(splits, dataset.services)
    return Company(
        # More room than a fold has users: what is not there must not spoil a gradient.
        TunedEncoder(SMALL, users, 120),
        clue.init(SMALL, dataset.tokenizer.vocab_size, jax.random.key(0)),
        np.array([world.kind_of(user_id) for user_id in users.user_ids]),
    )


@pytest.fixture(scope="module")
def trained(company):
    """The problem of telling two kinds from two others, and what came out."""
    problem = company.problem((company.kind_N < 2).astype(int))
    return problem, company.tune(problem)


def outputs(problem, fitted):
    found = np.empty(len(problem.owner_n))
    for number, fold in enumerate(problem.folds):
        found[fold.predict] = fitted.outputs(number, problem.owner_n[fold.predict])[:, 0]
    return found


def test_vectors_are_those_of_an_export(company):
    users, places, half_life = company.encoder.users, np.arange(len(company.kind_N))[::-1], 2.0
    batches = embedding_encoder(SMALL, users, len(users), single_device_mesh(), None, half_life)
    z_NSE, _ = batches(company.params, users)
    encoder = TunedEncoder(SMALL, users, 120, half_life)
    expected = combine(z_NSE, service_weights(users, half_life))[places]
    np.testing.assert_allclose(encoder.vectors(company.params, places), expected, atol=1e-5)


def test_a_planted_text_is_learnt_and_noise_is_not(company, trained):
    problem, fitted = trained
    assert roc_auc_score(problem.target_n, outputs(problem, fitted)) > 0.9
    assert max(fitted.losses) < 0.5 < np.log(2)
    noise = np.random.default_rng(1).permutation(problem.target_n)
    control = company.problem(noise)
    assert 0.3 < roc_auc_score(noise, outputs(control, company.tune(control))) < 0.7


def test_a_fold_is_predicted_without_its_labels(company, trained):
    problem, fitted = trained
    first = next(iter(problem.folds))
    for part, same in ((first.predict, True), (first.fit, False)):
        target = problem.target_n.copy()
        target[part[::2]] = 1 - target[part[::2]]
        other = company.tune(dataclasses.replace(problem, target_n=target))
        users = first.predict
        assert np.array_equal(other.outputs(0, users), fitted.outputs(0, users)) == same


def test_one_seed_gives_one_result(company, trained):
    problem, fitted = trained
    np.testing.assert_array_equal(outputs(problem, company.tune(problem)), outputs(problem, fitted))
    other = outputs(problem, company.tune(problem, seed=1))
    assert not np.array_equal(other, outputs(problem, fitted))


def test_a_warm_head_starts_as_the_frozen_one_and_ends_no_worse(company, trained):
    problem, _ = trained
    places = problem.owner_n
    features = Features(company.encoder.vectors(company.params, places))
    frozen = fit("linear", problem, features, CONFIG, 0)
    still = company.tune(problem, warm=True, tune_learning_rates=(1e-12,))
    np.testing.assert_allclose(outputs(problem, still), outputs(problem, frozen), atol=1e-3)
    moved = company.tune(problem, warm=True)
    assert max(np.array(moved.losses) - frozen.losses) <= 1e-5
    assert np.mean(moved.losses) < np.mean(frozen.losses) - 0.05


def test_the_learning_rate_is_that_of_the_least_validation_loss(company, trained):
    problem, fitted = trained
    both = company.tune(problem, tune_learning_rates=(1e-6, 1e-2))
    np.testing.assert_array_equal(both.losses, fitted.losses)
    np.testing.assert_array_equal(outputs(problem, both), outputs(problem, fitted))


def test_a_batch_has_all_rows_of_its_users_and_nobody_twice():
    owner = np.array([3, 5, 3, 8, 5, 3, 9, 1])
    folds = Folds(np.zeros(8, int), 3)
    shown = {"action_n": np.arange(8) % 4, "position_n": np.arange(8) % 2}
    problem = Problem(TaskKind.CLICKS, owner, np.arange(8), folds, outputs=4, **shown)
    fit_rows = np.array([0, 1, 2, 4, 5, 6])  # of users 3, 5 and 9
    batches = Batches(problem, fit_rows, 2).draw(np.random.default_rng(0))
    seen = set()
    for _ in range(20):
        users, rows = next(batches)
        assert len(set(users.tolist())) == 2
        there = rows["weight"] == 1
        assert set(rows["weight"]) <= {0, 1} and rows["weight"].shape == (5,)
        expected = fit_rows[np.isin(owner[fit_rows], users)]
        assert sorted(rows["target"][there]) == expected.tolist()
        np.testing.assert_array_equal(users[rows["seat"][there]], owner[rows["target"][there]])
        np.testing.assert_array_equal(rows["action"][there], rows["target"][there] % 4)
        seen |= set(users.tolist())
    assert seen == {3, 5, 9}


# ------------------------------------------------------------------------------ the whole suite


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports and labels, and an encoder that they might be of."""
    folder = tmp_path_factory.mktemp("exported")
    data = world.write_data(folder)
    config = dataclasses.replace(world.TINY)
    config.encoder = dataclasses.replace(config.encoder, embedding_width=16)
    world.write_users(data, folder / "users", config=to_json(config), checkpoint={"step": 1})
    world.write_items(data, folder / "items")
    world.write_labels(folder / "labels", "kind", world.label_rows(lambda u: 50 + world.kind_of(u)))
    tokenizer = open_dataset(data).tokenizer
    params = clue.init(config.encoder, tokenizer.vocab_size, jax.random.key(1))
    for version in ("m", "another"):
        encoder = UserEncoder(config.encoder, params, tokenizer, ("shop", "search"), version)
        encoder.save(folder / version)
    return folder


def settings(folder, encoder="m", **keys):
    downstream = DownstreamConfig(
        labels=str(folder / "labels"),
        items=str(folder / "items"),
        tasks=(
            TaskConfig("kind", TaskKind.REGRESSION, "kind.parquet"),
            TaskConfig("next", TaskKind.RETRIEVAL, service="shop", at=(5,)),
        ),
        features=("clue", "fine_tuned", "text_transformer", "clue+best"),
        heads=("knn",),
        weight_decays=(1e-2,),
        steps=10,
        folds=3,
        bootstrap=20,
        tune_from=str(folder / encoder),
        tune_steps=30,
        tune_learning_rates=(1e-2,),
    )
    return EvaluateConfig(
        suites=("downstream",), downstream=dataclasses.replace(downstream, **keys), overwrite=True
    )


def test_encoders_stand_in_the_table_of_their_tasks(exported, tmp_path):
    suite.evaluate(settings(exported), str(exported / "users"), str(tmp_path / "out"))
    rows = files.read_json(tmp_path / "out" / "results.json")
    found = {(row["task"].partition("/")[2], row["model"], row["metric"]): row for row in rows}
    for task, metric in (("kind", "r2"), ("next", "mrr")):
        for model in ("fine_tuned", "clue - fine_tuned"):
            assert found[task, model, metric]["n"] == found[task, "clue", metric]["n"]
    # In the units of the labels, of which the mean alone would have an R2 of zero.
    assert found["kind", "fine_tuned", "r2"]["value"] > 0.3
    assert found["kind", "text_transformer", "r2"]["value"] > 0.3
    assert ("next", "text_transformer", "mrr") not in found
    # No frozen vectors, so nothing to stand beside the export's.
    assert not any("+" in model for _, model, _ in found)


def test_another_encoder_is_refused_before_anything_is_written(exported, tmp_path):
    with pytest.raises(DataError, match=r"config\.downstream\.tune_from: .*is model another, but"):
        suite.evaluate(
            settings(exported, "another"), str(exported / "users"), str(tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "setting", "message"),
    [
        ("tune_from", "", "starts from the run, or the saved encoder, that made the export"),
        ("tune_steps", 0, "0 must be at least 1"),
        ("tune_users", 0, "0 must be at least 1"),
        ("tune_learning_rates", (), "name one or more"),
        ("tune_learning_rates", (0.0,), "0.0 must be finite and above 0"),
        ("features", ("clue", "tfidf+fine_tuned"), "no features 'fine_tuned'"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, key, setting, message):
    config = settings(tmp_path, **{key: setting})
    with pytest.raises(ConfigError, match=rf"config\.downstream\.{key}: .*{message}"):
        suite.evaluate(config, "nowhere", str(tmp_path / "out"))
