"""Exports of made-up people for tests of the audit, and the audit of them."""

import numpy as np

from clue_jax import files
from clue_jax.config import AuditConfig, EvaluateConfig
from clue_jax.evaluation import suite
from tests.embeddings.exports import random_users, unit, write_export

PEOPLE, WIDTH = 240, 16
PAIR = "audit/linkage/test/art<->office (mean)"
OTHER = "audit/linkage/test/clue<->other"


def write_people(folder, noise=0.0, seed=0, **columns):
    """People whose vectors of two services are one random direction each, with noise; or columns.

    Args:
        noise: of each person, [PEOPLE], or of all.
    """
    rng = np.random.default_rng(0)
    person = unit(rng.normal(size=(PEOPLE, WIDTH)))
    rng = np.random.default_rng(seed + 1)
    drawn = np.broadcast_to(noise, PEOPLE)[:, None, None] * rng.normal(size=(PEOPLE, 2, WIDTH))
    z_NSE = unit(person[:, None] + drawn)
    known = {
        "splits": np.full(PEOPLE, "test", object),
        "counts_NS": np.full((PEOPLE, 2), 9),
        "z_NSE": z_NSE,
        "embedding_NE": unit(z_NSE.sum(axis=1)),
    }
    users = random_users(PEOPLE, width=WIDTH, **(known | columns))
    write_export(folder, users)
    return users


def run(tmp_path, export="users", downstream=None, **keys):
    """Results by task, model and metric."""
    audit = AuditConfig(**{"membership": False, "bootstrap": 200, "histories": ()} | keys)
    config = EvaluateConfig(suites=("audit",), audit=audit, overwrite=True)
    if downstream is not None:
        config.suites, config.downstream = ("audit", "downstream"), downstream
    suite.evaluate(config, str(tmp_path / export), str(tmp_path / "out"))
    results = files.read_json(tmp_path / "out" / "results.json")
    return {(r["task"], r["model"], r["metric"]): r for r in results}


def value(results, metric, task=PAIR, model="clue"):
    return results[task, model, metric]["value"]


def holds(results, metric, expected, task=PAIR):
    """Whether the interval of the export has a value in it."""
    row = results[task, "clue", metric]
    return row["low"] <= expected <= row["high"]
