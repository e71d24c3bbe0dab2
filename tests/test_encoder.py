"""An encoder in a few lines of Python: the vectors of `export`, saved, shared and loaded."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from clue_jax import UserEncoder
from clue_jax.data.source import open_dataset
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.encoder_views import together
from clue_jax.errors import CheckpointError, ConfigError, DataError, StorageError
from tests.compilations import compilations
from tests.stages import ROOT, run_stage


@pytest.fixture(scope="module")
def encoder(smoke_run):
    return UserEncoder.from_pretrained(smoke_run)


@pytest.fixture(scope="module")
def saved(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "encoder"
    encoder.save(folder, program=True)
    return folder


@pytest.fixture(scope="module")
def dated(smoke_data):
    """The test users of the dataset as a person would give them: ids, texts, times."""
    dataset = open_dataset(smoke_data)
    items, users = dataset.items(), dataset.users("test")
    found, times = [], []
    for n in range(len(users)):
        own = users.item_ids[slice(*users.item_offsets[n : n + 2])]
        user, seconds = {}, {}
        for s, service in enumerate(users.services):
            row = n * len(users.services) + s
            span = slice(*users.behaviour_offsets[row : row + 2])
            texts = items.texts[items.lookup(own[users.behaviour_items[span]])]
            user[service] = texts.tolist()
            seconds[service] = users.behaviour_times[span].tolist()
        found.append(user)
        times.append(seconds)
    return users.user_ids, found, times


@pytest.fixture(scope="module")
def histories(dated):
    """Ids and texts of the test users."""
    return dated[:2]


def exported_test_users(smoke_run, smoke_data, out, *overrides):
    run_stage(
        "export",
        f"--workdir={smoke_run}",
        f"--data={smoke_data}",
        f"--out={out}",
        "--config.splits=test,",
        *overrides,
    )
    return read_embeddings(out)


def test_the_vectors_are_those_of_an_export(encoder, histories, smoke_run, smoke_data, tmp_path):
    exported = exported_test_users(smoke_run, smoke_data, tmp_path / "users")
    user_ids, users = histories
    place = {user_id: row for row, user_id in enumerate(exported.user_ids)}
    rows = [place[user_id] for user_id in user_ids]
    assert len(place) == len(user_ids)
    np.testing.assert_allclose(encoder.encode(users), exported.embedding_NE[rows], atol=1e-5)
    by_service = encoder.encode_services(users)
    for service, z_NE in exported.by_service.items():
        np.testing.assert_allclose(by_service[service], z_NE[rows], atol=1e-5)
    assert exported.manifest["model_version"] == encoder.model_version
    assert set(encoder.services) == set(exported.services)


def test_with_a_half_life_they_are_those_of_an_export_with_it(
    encoder, dated, smoke_run, smoke_data, tmp_path
):
    half_life = "--config.half_life_days=20"
    exported = exported_test_users(smoke_run, smoke_data, tmp_path / "users", half_life)
    user_ids, users, times = dated
    place = {user_id: row for row, user_id in enumerate(exported.user_ids)}
    rows = [place[user_id] for user_id in user_ids]
    recent = UserEncoder.from_pretrained(smoke_run, half_life_days=20)
    z_NE = recent.encode(users, times)
    np.testing.assert_allclose(z_NE, exported.embedding_NE[rows], atol=1e-5)
    assert abs(z_NE - encoder.encode(users)).max() > 0.01  # it makes a difference
    later = [{s: [t + 9e8 for t in at] for s, at in user.items()} for user in times]
    np.testing.assert_allclose(recent.encode(users, later), z_NE, atol=1e-6)
    with pytest.raises(ConfigError, match="half_life_days: 20, and no times"):
        recent.encode(users)
    with pytest.raises(ConfigError, match="without a half-life"):
        encoder.encode(users, times)
    with pytest.raises(ConfigError, match="half_life_days: -1"):
        UserEncoder.from_pretrained(smoke_run, half_life_days=-1)


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ({}, "user 1, service 'shop': 2 texts and 0 times"),
        ({"shop": [1.0]}, "user 1, service 'shop': 2 texts and 1 times"),
        ({"shop": [2, 1]}, "user 1, service 'shop': text 1 is older than the one before"),
        ({"shop": [1, float("nan")]}, "user 1, service 'shop': a time that is not finite"),
        ({"shop": ["monday", "today"]}, "times are seconds since 1970, not 'monday'"),
    ],
)
def test_times_that_do_not_go_with_the_texts_are_named(smoke_run, times, problem):
    recent = UserEncoder.from_pretrained(smoke_run, half_life_days=20)
    users = [{"shop": ["pen"]}, {"shop": ["pen", "ink"]}]
    with pytest.raises(DataError, match=problem):
        recent.encode(users, [{"shop": [1]}, times])
    with pytest.raises(DataError, match="2 users, and times of 1"):
        recent.encode(users, [times])


def test_batches_of_any_size_compile_nothing_anew(encoder, histories):
    _, users = histories
    whole = encoder.encode(users)
    with compilations() as ended:
        for size in (1, 3, 17):
            np.testing.assert_allclose(encoder.encode(users[:size]), whole[:size], atol=1e-5)
        encoder.encode([{"books": ["never seen"] * 500, "shop": ["a " * 900]}])
    assert not ended
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-5)


def test_only_the_newest_count_and_white_space_does_not(encoder):
    length = encoder.config.max_history
    texts = [f"pen {n}" for n in range(length + 5)]
    spaced = [f" pen\t {n} " for n in range(5, length + 5)]
    z_NE = encoder.encode([{"shop": texts}, {"shop": spaced}, {"shop": texts[:length]}])
    np.testing.assert_allclose(z_NE[0], z_NE[1], atol=1e-6)
    assert np.abs(z_NE[0] - z_NE[2]).max() > 1e-4


def test_users_who_lack_a_service(encoder):
    users = [{"shop": ["pen"], "search": []}, {"search": ["ink"]}, {}]
    found = encoder.encode_services(users)
    assert set(found) == {"shop", "search"}
    norms = {
        service: np.linalg.norm(z_NE, axis=1).round(4).tolist() for service, z_NE in found.items()
    }
    assert norms == {"shop": [1, 0, 0], "search": [0, 1, 0]}
    np.testing.assert_allclose(encoder.encode(users[:1])[0], found["shop"][0], atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.config.embedding_width)


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ({}, "user 1: no behaviour in any service"),
        ({"shop": []}, "user 1: no behaviour in any service"),
        ({"shop": "a pen"}, "user 1, service 'shop': one text, not a list"),
        ({"shop": ["pen", 3]}, "user 1, service 'shop': 3 is not a text"),
        ({"shop": [None]}, "user 1, service 'shop': None is not a text"),
        ({"shop": ["pen", "\ud83d"]}, "user 1, service 'shop': .* is not Unicode"),
    ],
)
def test_what_cannot_be_encoded_is_named(encoder, user, problem):
    with pytest.raises(DataError, match=problem):
        encoder.encode([{"shop": ["pen"]}, user])


def test_a_saved_encoder_gives_the_same_bits_without_the_run(encoder, saved, histories):
    users = histories[1][:5]
    assert {path.name for path in saved.iterdir()} == {
        "card.md",
        "config.json",
        "model.safetensors",
        "program.jax",
        "tokenizer.json",
    }
    script = (
        "import json, sys, numpy as np\n"
        "from clue_jax import UserEncoder\n"
        "encoder = UserEncoder.from_pretrained(sys.argv[1])\n"
        "print(json.dumps(encoder.encode(json.loads(sys.argv[2])).tolist()))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script, str(saved), json.dumps(users)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    loaded = UserEncoder.from_pretrained(saved)
    assert (loaded.encode(users) == encoder.encode(users)).all()
    assert (np.array(json.loads(output), np.float32) == encoder.encode(users)).all()
    assert (loaded.services, loaded.model_version) == (encoder.services, encoder.model_version)


def test_the_program_gives_the_same_numbers_without_this_package(encoder, saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    inputs = config["program"]
    N, T, L = (inputs[name] for name in ("histories", "behaviours", "tokens"))
    histories = [
        ("shop", ["a pen", "red ink", "a pen"]),
        ("books", ["a novel"]),
        ("shop", ["x"] * T),
    ]
    tokens_NTL, counts_N = np.zeros((N, T, L), np.int32), np.zeros(N, np.int32)
    for n, (service, texts) in enumerate(histories):
        counts_N[n] = len(texts)
        guide = config["guides"].get(service, config["guides"][""])
        for t, ids in enumerate(encoder.tokenizer.encode(texts)):
            row = [guide, *ids][:L]
            tokens_NTL[n, t, : len(row)] = row
    np.savez(tmp_path / "inputs.npz", tokens=tokens_NTL, counts=counts_N)
    script = (
        "import sys, jax, jax.export, numpy as np, safetensors.numpy\n"
        "folder, given = sys.argv[1], np.load(sys.argv[2])\n"
        "program = jax.export.deserialize(bytearray(open(folder + '/program.jax', 'rb').read()))\n"
        "weights = safetensors.numpy.load_file(folder + '/model.safetensors')\n"
        "np.save(sys.argv[3], program.call(weights, given['tokens'], given['counts']))\n"
        "assert 'clue_jax' not in sys.modules\n"
    )
    argv = [sys.executable, "-c", script, saved, tmp_path / "inputs.npz", tmp_path / "z.npy"]
    subprocess.run(list(map(str, argv)), cwd=tmp_path, check=True)
    z_NE = np.load(tmp_path / "z.npy")
    for n, (service, texts) in enumerate(histories):
        np.testing.assert_allclose(z_NE[n], encoder.encode([{service: texts}])[0], atol=1e-5)
    assert not z_NE[len(histories) :].any()


def test_other_readers_know_the_weights(saved):
    from safetensors.numpy import load_file

    arrays = load_file(saved / "model.safetensors")
    assert "embedding" in arrays and all(a.dtype == np.float32 for a in arrays.values())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_damage_is_found(saved, tmp_path, name, damage):
    folder = shutil.copytree(saved, tmp_path / "encoder")
    file = folder / name
    content = bytearray(file.read_bytes())
    if damage == "lose" and name != "model.safetensors":
        file.unlink()
    else:
        content[len(content) // 2] ^= 4
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        UserEncoder.from_pretrained(folder)


def test_what_is_no_encoder_is_refused(encoder, saved, tmp_path):
    with pytest.raises(CheckpointError, match="not a run directory of train"):
        UserEncoder.from_pretrained(tmp_path)
    with pytest.raises(StorageError, match="already there"):
        encoder.save(saved)


def test_import_alone_does_not_load_jax():
    script = "import sys, clue_jax; assert 'jax' not in sys.modules; clue_jax.UserEncoder"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="no attribute 'Encoder'"):
        __import__("clue_jax").Encoder  # noqa: B018


def test_short_histories_are_encoded_many_at_a_time(encoder, monkeypatch):
    """As many as there is room for: of the longest ones 64, of single texts 1,024."""
    most, calls = encoder.config.max_history, []
    whole = encoder._batches

    def counted(params, users):
        calls.append((len(users), len(users.behaviour_items)))
        return whole(params, users)

    monkeypatch.setattr(encoder, "_batches", counted)
    counted.batch_users = whole.batch_users
    single = [{"shop": [f"pen {n}"], "books": [f"tale {n}"]} for n in range(1_000)]
    z_NE = encoder.encode(single)
    assert calls == [(1_024, 1_024), (976, 976)]
    np.testing.assert_allclose(encoder.encode(single[990:]), z_NE[990:], atol=1e-5)
    calls.clear()
    long = [{"shop": [f"ink {n}" for n in range(most)]}] * 70 + single[:9]
    found = encoder.encode(long)
    assert calls == [(64, 64 * most), (70 - 64 + 2 * 9, 6 * most + 2 * 9)]
    np.testing.assert_allclose(found[70:], z_NE[:9], atol=1e-5)
    assert np.ptp(found[:70], axis=0).max() < 1e-5


def test_neither_histories_nor_their_behaviours_exceed_a_batch():
    parts = together(np.array([3, 3, 3, 9, 1, 1, 1, 1, 1]), 4, 9)
    assert [rows.tolist() for rows in parts] == [[0, 1, 2], [3], [4, 5, 6, 7], [8]]
