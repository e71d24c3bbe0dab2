"""Another company's people, embedded without training through services the encoder never saw."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax.config import PretrainConfig, from_json
from clue_jax.data.records import concatenate
from clue_jax.data.source import open_dataset
from clue_jax.data.tokenizer import GENERIC_GUIDE
from clue_jax.embeddings.reader import read_manifest
from clue_jax.embeddings.vectors import matrix
from clue_jax.inference import embed_users
from clue_jax.model import clue
from clue_jax.training.parameters import load_params
from clue_jax.training.trained import read_run
from tests.company import SERVICES, prepare_company
from tests.stages import run_stage


@pytest.fixture(scope="module")
def datasets(smoke_run, company_logs, tmp_path_factory):
    """The company prepared with the run's tokenizer, by what its services get for a guide."""
    folder = tmp_path_factory.mktemp("datasets")
    return {
        new: prepare_company(
            company_logs, smoke_run, folder / new, f"--config.tokenizer.new_services={new}"
        )
        for new in ("GENERIC", "RESERVED")
    }


def exported(run, data, out):
    run_stage("export", f"--workdir={run}", f"--data={data}", f"--out={out}")
    return out


def table(folder):
    parts = read_manifest(folder)["parts"]
    return pa.concat_tables(pq.read_table(folder / part["file"]) for part in parts)


def by_hand(run, data, services):
    """z_NSE of everybody in a dataset in order of their ids, the guides of these services replaced
    by the generic one."""
    dataset, config = open_dataset(data), json.loads((run / "config.json").read_text())
    config = from_json(PretrainConfig, config)
    make = lambda: clue.init_run(config, dataset.tokenizer.vocab_size)  # noqa: E731
    params = load_params(run / "checkpoints", make, -1).parts["params"]["encoder"]
    splits = [dataset.users(split) for split in ("train", "validation", "test")]
    users = concatenate(splits, dataset.services)
    tokens = users.tokens.copy()
    firsts = tokens[users.token_offsets[:-1]]
    guides = [dataset.tokenizer.guide(service) for service in services]
    tokens[users.token_offsets[:-1]] = np.where(np.isin(firsts, guides), GENERIC_GUIDE, firsts)
    z_NSE, _ = embed_users(params, config, dataclasses.replace(users, tokens=tokens))
    return z_NSE[np.argsort(users.user_ids)]


def found(folder, services):
    rows = table(folder).sort_by("user_id")
    return np.stack([matrix(rows, f"embedding_{s}")[0] for s in services], axis=1)


@pytest.mark.parametrize("new", ["GENERIC", "RESERVED"])
def test_services_never_seen_are_read_through_the_generic_guide(
    smoke_run, datasets, tmp_path, new, capsys
):
    out = exported(smoke_run, datasets[new], tmp_path / "users")
    assert "read through the generic guide" in capsys.readouterr().out
    assert read_manifest(out)["generic_guide"] == list(SERVICES)
    expected = by_hand(smoke_run, datasets[new], SERVICES)
    np.testing.assert_allclose(found(out, SERVICES), expected, atol=1e-6)
    if new == "RESERVED":  # as drawn, its guides would show
        assert abs(by_hand(smoke_run, datasets[new], ()) - expected).max() > 0.01


def test_a_service_the_tokenizer_knows_but_the_run_does_not_is_generic(
    smoke_run, smoke_data, tmp_path
):
    run = shutil.copytree(smoke_run, tmp_path / "run")
    guides = json.loads((run / "guides.json").read_text())
    del guides["news"]
    (run / "guides.json").write_text(json.dumps(guides))
    out = exported(run, smoke_data, tmp_path / "users")
    assert read_manifest(out)["generic_guide"] == ["news"]
    services = open_dataset(smoke_data).services
    expected = by_hand(run, smoke_data, ["news"])
    np.testing.assert_allclose(found(out, services), expected, atol=1e-6)
    news = services.index("news")
    assert abs(by_hand(run, smoke_data, ()) - expected)[:, news].max() > 0.01
    # A run from before guides were written down was trained on all services of its data.
    (run / "guides.json").unlink()
    assert read_run(run).read_as_generic(open_dataset(smoke_data)) == []


def test_another_tokenizer_is_refused_with_both(smoke_run, company_logs, tmp_path, capfd):
    data = prepare_company(company_logs, "", tmp_path / "data")
    out = tmp_path / "users"
    run_stage("export", f"--workdir={smoke_run}", f"--data={data}", f"--out={out}", code=4)
    trained = json.loads((smoke_run / "dataset.json").read_text())["tokenizer_sha256"]
    error = capfd.readouterr().err
    assert trained[:12] in error and open_dataset(data).tokenizer.identity[:12] in error
    assert f"--config.tokenizer.path={smoke_run}" in error and not out.exists()
