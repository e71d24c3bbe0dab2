"""Exports: every user once, what may not be seen left out, the same bytes after a kill."""

import hashlib
import json
import shutil
import signal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clue_jax import files, publishing
from clue_jax.composition import combine
from clue_jax.config import (
    EncoderConfig,
    ExportConfig,
    ExportWhat,
    ItemTableUse,
    PretrainConfig,
    StoredPrecision,
    from_json,
)
from clue_jax.data.recency import service_weights
from clue_jax.data.records import concatenate, visible
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.embeddings.moments import moments_of
from clue_jax.embeddings.reader import read_embeddings, read_manifest
from clue_jax.embeddings.vectors import matrix
from clue_jax.embeddings.verify import verify
from clue_jax.errors import CheckpointError, ConfigError, DataError, StorageError
from clue_jax.export import export
from clue_jax.exporting.folder import ExportFolder
from clue_jax.exporting.rows import volume
from clue_jax.inference import embed_users, embedding_encoder
from clue_jax.model import clue
from clue_jax.parallel.mesh import single_device_mesh
from clue_jax.training.parameters import load_params
from tests.embeddings.exports import contents
from tests.stages import finish, run_stage, start, wait_until

CUTOFF = "2024-07-01"
CUTOFF_SECONDS = 1_719_792_000
APRIL = 1_711_929_600


@pytest.fixture(scope="module")
def users(smoke_data):
    dataset = open_dataset(smoke_data)
    splits = [dataset.users(split) for split in ("train", "validation", "test")]
    return concatenate(splits, dataset.services)


@pytest.fixture(scope="module")
def params(smoke_run, smoke_data):
    config = pretrained(smoke_run)
    vocab_size = open_dataset(smoke_data).tokenizer.vocab_size
    make = lambda: clue.init_run(config, vocab_size)  # noqa: E731
    return load_params(smoke_run / "checkpoints", make, -1).parts["params"]["encoder"]


def pretrained(run):
    return from_json(PretrainConfig, json.loads((run / "config.json").read_text()))


@pytest.fixture(scope="module")
def whole(smoke_run, smoke_data, tmp_path_factory):
    """An export of everybody with nothing left out."""
    out = tmp_path_factory.mktemp("export") / "users"
    export(ExportConfig(num_shards=4), str(smoke_run), str(smoke_data), str(out))
    return out


def exported(smoke_run, smoke_data, out, **settings):
    export(ExportConfig(**settings), str(smoke_run), str(smoke_data), str(out))
    return out


def table(folder):
    return pa.concat_tables(
        # Of a path pyarrow would also read what its folder says.
        pq.read_table(pa.OSFile(str(folder / part["file"])))
        for part in read_manifest(folder)["parts"]
    )


def rows_of(folder, ids, key="user_id"):
    """The rows of an export in the order of the ids, each of which is there once."""
    rows = table(folder)
    found = rows[key].to_pylist()
    place = {value: row for row, value in enumerate(found)}
    assert len(place) == len(found) == len(ids)
    return rows.take([place[value] for value in ids])


def test_every_user_is_there_once_with_its_embeddings(whole, users, params, smoke_run):
    rows = rows_of(whole, users.user_ids.tolist())
    z_NSE, present_NS = embed_users(params, pretrained(smoke_run), users)
    for s, service in enumerate(users.services):
        found, present = matrix(rows, f"embedding_{service}")
        assert (present == present_NS[:, s]).all() and not present.all()
        np.testing.assert_allclose(found, z_NSE[:, s], atol=1e-6)
        assert rows[f"num_behaviours_{service}"].to_pylist() == users.counts()[:, s].tolist()
    combined, _ = matrix(rows, "embedding")
    total = z_NSE.sum(axis=1)
    np.testing.assert_allclose(
        combined, total / np.linalg.norm(total, axis=1, keepdims=True), atol=1e-6
    )


def test_splits_and_times_are_those_of_the_data(whole, users, smoke_data):
    rows, dataset = rows_of(whole, users.user_ids.tolist()), open_dataset(smoke_data)
    sizes = {split: len(dataset.users(split)) for split in ("train", "validation", "test")}
    assert rows["split"].to_pylist() == [s for s, size in sizes.items() for _ in range(size)]
    cuts = users.behaviour_offsets[:: len(users.services)]
    per_user = np.split(users.behaviour_times, cuts[1:-1])
    seconds = {
        name: [int(t.timestamp()) for t in rows[name].to_pylist()]
        for name in ("first_event_at", "last_event_at", "event_timestamp")
    }
    assert seconds["first_event_at"] == [int(times.min()) for times in per_user]
    assert seconds["last_event_at"] == [int(times.max()) for times in per_user]
    assert seconds["event_timestamp"] == seconds["last_event_at"]


def test_the_manifest_says_what_made_it(whole, smoke_run, smoke_data):
    manifest = read_manifest(whole)
    dataset = open_dataset(smoke_data)
    assert manifest["checkpoint"]["step"] == 20
    assert manifest["dataset"]["fingerprint"] == dataset.fingerprint
    assert manifest["tokenizer_sha256"] == dataset.tokenizer.identity
    assert (manifest["cutoff"], manifest["hold_out_last"]) == ("", 0)
    assert manifest["config"] == json.loads((smoke_run / "config.json").read_text())
    assert set(table(whole)["model_version"].to_pylist()) == {manifest["model_version"]}


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"cutoff": CUTOFF}, {"cutoff": CUTOFF_SECONDS}),
        ({"hold_out_last": 2}, {"hold_out_last": 2}),
        ({"cutoff": CUTOFF, "hold_out_last": 1}, {"cutoff": CUTOFF_SECONDS, "hold_out_last": 1}),
        ({"start": "2024-04-01", "cutoff": CUTOFF}, {"start": APRIL, "cutoff": CUTOFF_SECONDS}),
        ({"newest": 2, "hold_out_last": 1}, {"newest": 2, "hold_out_last": 1}),
    ],
    ids=["cutoff", "hold out", "both", "window", "newest"],
)
def test_what_may_not_be_seen_is_left_out(
    smoke_run, smoke_data, tmp_path, whole, users, params, settings, seen
):
    out = exported(smoke_run, smoke_data, tmp_path / "o", **settings)
    before, manifest = visible(users, **seen), read_manifest(out)
    kept = np.flatnonzero(before.counts().sum(axis=1))
    rows = rows_of(out, users.user_ids[kept].tolist())
    assert manifest["users_left_out"] == len(users) - len(kept)
    assert {key: manifest[key] for key in settings} == settings
    expected, _ = embed_users(params, pretrained(smoke_run), before.take(kept))
    everything, _ = embed_users(params, pretrained(smoke_run), users.take(kept))
    found, _ = matrix(rows, "embedding_search")
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-6)
    assert abs(found - everything[:, 0]).max() > 0.01  # had they been seen, it would show
    if "cutoff" in settings:
        assert {int(t.timestamp()) for t in rows["event_timestamp"].to_pylist()} == {CUTOFF_SECONDS}
        last = [int(t.timestamp()) for t in rows["last_event_at"].to_pylist()]
        assert max(last) < CUTOFF_SECONDS


@pytest.mark.parametrize("item_table", [ItemTableUse.ON, ItemTableUse.OFF])
def test_recent_behaviours_weigh_more(smoke_run, smoke_data, tmp_path, users, params, item_table):
    settings = {"half_life_days": 20.0, "item_table": item_table}
    out = exported(smoke_run, smoke_data, tmp_path / "o", **settings)
    mesh = single_device_mesh()
    encoder = pretrained(smoke_run).encoder
    z_NSE, _ = embedding_encoder(encoder, users, len(users), mesh, None, 20.0)(params, users)
    rows = rows_of(out, users.user_ids.tolist())
    for position, service in enumerate(users.services):
        found, _ = matrix(rows, f"embedding_{service}")
        np.testing.assert_allclose(found, z_NSE[:, position], atol=1e-6)
    found, _ = matrix(rows, "embedding")
    np.testing.assert_allclose(found, combine(z_NSE, service_weights(users, 20.0)), atol=1e-6)
    plain, _ = embed_users(params, pretrained(smoke_run), users)
    assert abs(plain - z_NSE).max() > 0.01
    manifest = read_manifest(out)
    assert manifest["half_life_days"] == 20.0 and "halves every 20 days" in manifest["pooling"]


def test_an_item_is_a_history_of_itself(smoke_run, smoke_data, tmp_path, users, params):
    out = exported(smoke_run, smoke_data, tmp_path / "o", what=ExportWhat.ITEMS)
    items = open_dataset(smoke_data).items()
    rows = rows_of(out, items.item_ids.view(np.int64).tolist(), "item_id")
    assert rows["source_id"].to_pylist() == items.source_ids.tolist()
    assert rows["service"].to_pylist() == items.services.tolist()
    counts = users.counts()
    n, s = np.argwhere(counts > 0)[5]
    z_NSE, _ = embed_users(params, pretrained(smoke_run), _first_only(users.take([n]), s))
    entry = users.behaviour_offsets[n * counts.shape[1] + s]
    item = users.item_ids[users.item_offsets[n] + users.behaviour_items[entry]]
    found, _ = matrix(rows, "embedding")
    np.testing.assert_allclose(found[items.lookup([item])[0]], z_NSE[0, s], atol=1e-6)


def _first_only(user, service):
    """A user with the first behaviour of one service alone."""
    import dataclasses

    start = user.behaviour_offsets[service]
    lengths = np.zeros(len(user.services), int)
    lengths[service] = 1
    return dataclasses.replace(
        user,
        behaviour_items=user.behaviour_items[start : start + 1],
        behaviour_times=user.behaviour_times[start : start + 1],
        behaviour_offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )


# ------------------------------------------------------------------------------------- the format


def test_users_lie_where_the_documentation_says(whole, users):
    """Computed as a consumer would, from the words of the manifest."""
    manifest = read_manifest(whole)
    assert manifest["sharding"].startswith("leading 64 bits of SHA-256 of user_id in UTF-8")
    parts = [[] for _ in range(4)]
    for user_id in users.user_ids.tolist():
        word = hashlib.sha256(user_id.encode()).hexdigest()[:16]
        parts[int(word, 16) % 4].append(user_id)
    for number, part in enumerate(manifest["parts"]):
        version = manifest["model_version"]
        assert part["file"] == f"model_version={version}/part-{number:05d}-of-00004.parquet"
        with (whole / part["file"]).open("rb") as stream:
            found = pq.read_table(stream)["user_id"].to_pylist()
        assert found == sorted(parts[number]) and found
    assert sorted(path.name for path in whole.iterdir()) == [
        "_SUCCESS",
        "card.md",
        "manifest.json",
        f"model_version={version}",
    ]
    assert verify(whole)


def test_counts_of_tokens_and_what_was_cut(whole, users, smoke_run):
    rows, encoder = rows_of(whole, users.user_ids.tolist()), pretrained(smoke_run).encoder
    lengths = np.diff(users.token_offsets)
    truncated = []
    for n in range(len(users)):
        cut = False
        for s, service in enumerate(users.services):
            first, last = users.behaviour_offsets[n * len(users.services) + s :][:2]
            items = users.item_offsets[n] + users.behaviour_items[first:last]
            assert rows[f"num_tokens_{service}"][n].as_py() == lengths[items].sum()
            cut |= last - first > encoder.max_history
            cut |= bool((lengths[items] > encoder.max_item_tokens).any())
        truncated.append(cut)
    assert rows["truncated"].to_pylist() == truncated


@pytest.mark.parametrize("cap", ["history", "tokens"])
def test_users_are_truncated_by_either_cap(users, cap):
    lengths = np.diff(users.token_offsets)
    ends = users.item_offsets
    longest = [lengths[ends[n] : ends[n + 1]].max() for n in range(len(users))]
    history = 3 if cap == "history" else 100
    tokens = int(np.median(longest)) if cap == "tokens" else 100
    _, truncated = volume(users, EncoderConfig(max_history=history, max_item_tokens=tokens))
    over = (users.counts() > history).any(axis=1) | (np.array(longest) > tokens)
    assert truncated.tolist() == over.tolist() and 0 < over.sum() < len(users)


def test_the_card_and_the_statistics_are_of_these_embeddings(whole, users):
    manifest, z_NE = read_manifest(whole), read_embeddings(whole).embedding_NE
    for name in ("mean", "std", "min", "max"):
        values = getattr(np, name)(z_NE.astype(np.float64), axis=0)
        np.testing.assert_allclose(manifest["statistics"][name], values, atol=1e-7)
    card = (whole / "card.md").read_text()
    for fact in (
        f"{len(users)} users of {z_NE.shape[1]} dimensions",
        manifest["model_version"],
        manifest["dataset"]["fingerprint"][:12],
        "search, shop",
        "personal data",
        "nothing was held back",
    ):
        assert fact in card, fact
    assert manifest["beside"].keys() == {"card.md"} and manifest["created_at"] not in card


@pytest.mark.parametrize("precision", [StoredPrecision.FLOAT16, StoredPrecision.INT8])
def test_fewer_bytes_and_dimensions(smoke_run, smoke_data, tmp_path, whole, precision):
    settings = {"precision": precision, "dimensions": 5, "npy": True, "num_shards": 4}
    out = exported(smoke_run, smoke_data, tmp_path / "o", **settings)
    ours, theirs = read_embeddings(out), read_embeddings(whole)
    assert verify(out) and ours.user_ids.tolist() == theirs.user_ids.tolist()
    total_NE = 0
    for service in theirs.services:
        first_NE = theirs.by_service[service][:, :5]
        length_N1 = np.linalg.norm(first_NE, axis=1, keepdims=True)
        first_NE = first_NE / np.where(length_N1, length_N1, 1)
        np.testing.assert_allclose(ours.by_service[service], first_NE, atol=0.01)
        total_NE = total_NE + first_NE
    total_NE /= np.linalg.norm(total_NE, axis=1, keepdims=True)
    np.testing.assert_allclose(ours.embedding_NE, total_NE, atol=0.01)
    arrays = [np.load(path) for path in sorted((out / "npy/embeddings").iterdir())]
    assert np.array_equal(np.concatenate(arrays), ours.embedding_NE)
    width = theirs.embedding_NE.shape[1]
    assert [ours.manifest[key] for key in ("embedding_width", "trained_width")] == [5, width]
    with pytest.raises(ConfigError, match="config.dimensions: 999, but"):
        exported(smoke_run, smoke_data, tmp_path / "p", dimensions=999)


# ------------------------------------------------------------------------------------- resuming


@pytest.fixture
def interrupted(whole, tmp_path):
    """What a killed export leaves: parts without a manifest, under the unfinished name."""
    partial = tmp_path / "users.partial"
    shutil.copytree(whole, partial)
    manifest = read_manifest(whole)
    for name in ("manifest.json", "_SUCCESS", "card.md"):
        (partial / name).unlink()
    files.write_json(partial / "plan.json", manifest)
    folder = ExportFolder(partial, manifest, 4)
    for part in manifest["parts"]:
        z_NE = matrix(pq.read_table(pa.OSFile(str(whole / part["file"]))), "embedding")[0]
        folder.mark({**part, "moments": moments_of(z_NE).as_json()})
    return partial


def parts_of(folder):
    return sorted(folder.glob("model_version=*/part-*"))


def contents_of(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resumed(smoke_run, smoke_data, partial, **settings):
    out = partial.parent / "users"
    return exported(smoke_run, smoke_data, out, **{"num_shards": 4, **settings})


def test_whole_parts_are_kept_and_the_rest_made(smoke_run, smoke_data, interrupted, whole, capsys):
    parts_of(interrupted)[2].unlink()
    (interrupted / ".part.tmp").write_text("half a file of a killed run")
    out = resumed(smoke_run, smoke_data, interrupted)
    assert contents(out) == contents(whole)
    assert "3 of 4 parts were there already" in capsys.readouterr().out


def test_what_is_done_is_not_done_again(smoke_run, smoke_data, interrupted, whole, monkeypatch):
    monkeypatch.setattr("clue_jax.export.embedding_encoder", None)
    monkeypatch.setattr(pq, "read_table", None)
    out = resumed(smoke_run, smoke_data, interrupted)
    assert contents(out) == contents(whole)


def test_killed_just_before_the_last_rename(smoke_run, smoke_data, tmp_path, whole, monkeypatch):
    shutil.copytree(whole, tmp_path / "users.partial")
    (tmp_path / "users.partial/done").mkdir()
    monkeypatch.setattr("clue_jax.export.embedding_encoder", None)
    out = resumed(smoke_run, smoke_data, tmp_path / "users.partial")
    assert contents(out) == contents(whole)


def test_success_is_never_there_without_the_manifest(
    smoke_run, smoke_data, interrupted, whole, monkeypatch
):
    (interrupted / "_SUCCESS").touch()
    written = []

    def write(path, payload, real=files.write_bytes):
        assert (interrupted / "manifest.json").exists() or not (interrupted / "_SUCCESS").exists()
        written.append(path.name)
        real(path, payload)

    monkeypatch.setattr(files, "write_bytes", write)
    resumed(smoke_run, smoke_data, interrupted)
    assert written[-3:] == ["card.md", "manifest.json", "_SUCCESS"]


def test_a_damaged_part_is_made_again(smoke_run, smoke_data, interrupted, whole, capsys):
    part = parts_of(interrupted)[1]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))
    out = resumed(smoke_run, smoke_data, interrupted)
    assert contents(out) == contents(whole)
    assert "3 of 4 parts were there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"hold_out_last": 1}, "hold_out_last: 0 there, 1 here"),
        ({"num_shards": 3}, "num_shards: 4 there, 3 here"),
        ({"step": 15}, "model_version: .*-20 there, .*-15 here"),
    ],
)
def test_two_exports_are_never_mixed(
    smoke_run, smoke_data, interrupted, whole, capsys, settings, problem
):
    before = contents_of(interrupted)
    with pytest.raises(StorageError, match=f"the beginning of another export .*{problem}"):
        resumed(smoke_run, smoke_data, interrupted, **settings)
    assert contents_of(interrupted) == before
    out = resumed(smoke_run, smoke_data, interrupted, overwrite=True, **settings)
    assert "were there already" not in capsys.readouterr().out
    assert verify(out) and contents(out) != contents(whole)


def test_data_of_another_fingerprint_do_not_go_on(smoke_run, smoke_data, interrupted):
    plan = json.loads((interrupted / "plan.json").read_text())
    plan["dataset"]["fingerprint"], plan["export_id"] = "f" * 64, "0" * 64
    (interrupted / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(StorageError, match=r"another export \(dataset.fingerprint: f+... there, "):
        resumed(smoke_run, smoke_data, interrupted)


def test_what_lies_in_the_way_is_kept_and_named(smoke_run, smoke_data, interrupted, whole):
    (interrupted / "mine.txt").write_text("precious")
    with pytest.raises(StorageError, match=r"users.partial/mine.txt: not of this export"):
        resumed(smoke_run, smoke_data, interrupted)
    (interrupted / "plan.json").unlink()
    with pytest.raises(StorageError, match="users.partial: has done/.* move it away"):
        resumed(smoke_run, smoke_data, interrupted, overwrite=True)
    assert (interrupted / "mine.txt").read_text() == "precious"


def test_a_killed_export_continues_to_the_same_bytes(smoke_run, smoke_data, tmp_path, whole):
    command = [f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={tmp_path / 'users'}"]
    process = start("export", *command, "--config.num_shards=150")
    wait_until(lambda: len(list(tmp_path.glob("users.partial/*/part-*.parquet"))) >= 2, process)
    process.kill()
    finish(process, code=-signal.SIGKILL)
    assert not (tmp_path / "users").exists()
    output = finish(start("export", *command, "--config.num_shards=150"))
    assert "of 150 parts were there already" in output
    once = tmp_path / "once"
    finish(start("export", *command[:2], f"--out={once}", "--config.num_shards=150"))
    assert contents(tmp_path / "users") == contents(once)


def test_devices_do_not_change_the_embeddings(smoke_run, smoke_data, tmp_path, whole):
    out = tmp_path / "one"
    finish(start("export", f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={out}"))
    ids = table(whole)["user_id"].to_pylist()
    alone, dealt = (matrix(rows_of(folder, ids), "embedding")[0] for folder in (out, whole))
    np.testing.assert_allclose(alone, dealt, atol=1e-6)


@pytest.mark.parametrize("item_table", [ItemTableUse.ON, ItemTableUse.OFF])
@pytest.mark.parametrize("batch_users", [7, 10_000])
def test_batches_do_not_change_the_embeddings(
    smoke_run, smoke_data, tmp_path, whole, batch_users, item_table
):
    settings = {"batch_users": batch_users, "item_table": item_table}
    out = exported(smoke_run, smoke_data, tmp_path / "o", **settings)
    ids = table(whole)["user_id"].to_pylist()
    ours, theirs = (matrix(rows_of(folder, ids), "embedding")[0] for folder in (out, whole))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_one_user_and_seven_empty_parts(smoke_run, smoke_data, tmp_path, whole, monkeypatch):
    changed_users(monkeypatch, lambda users: users.take([5]))
    out = exported(smoke_run, smoke_data, tmp_path / "o", splits=("train",))
    assert verify(out) and len(read_manifest(out)["parts"]) == 8
    (user_id,) = table(out)["user_id"].to_pylist()
    everybody = table(whole)
    row = everybody["user_id"].to_pylist().index(user_id)
    expected = matrix(everybody, "embedding")[0][row]
    np.testing.assert_allclose(matrix(table(out), "embedding")[0][0], expected, atol=1e-5)


def changed_users(monkeypatch, change):
    """Lets every dataset give other users of its training split."""
    real = Dataset.users

    def users(dataset, split):
        found = real(dataset, split)
        return change(found) if split == "train" else found

    monkeypatch.setattr(Dataset, "users", users)


# -------------------------------------------------------------------------------------- refusals


def test_checkpoints_are_chosen_by_step(smoke_run, smoke_data, tmp_path):
    steps = {}
    for name, step in (("newest", -1), ("best", -2), ("given", 15)):
        out = exported(smoke_run, smoke_data, tmp_path / name, step=step, splits=("test",))
        steps[name] = read_manifest(out)["checkpoint"]["step"]
    assert steps["newest"] == 20 and steps["given"] == 15 and steps["best"] in (5, 10, 15, 20)
    with pytest.raises(CheckpointError, match=r"among steps \[7\]"):
        exported(smoke_run, smoke_data, tmp_path / "none", step=7)


@pytest.mark.parametrize(
    ("overrides", "code", "problem"),
    [
        (["--config.cutoff=soon"], 2, "config.cutoff: 'soon' is not a date"),
        (["--config.hold_out_last=-1"], 2, "config.hold_out_last: -1 is negative"),
        (["--config.splits=holdout"], 2, "has no 'holdout'; it has test, train"),
        (["--config.half_life_days=nan"], 2, "config.half_life_days: nan must be finite"),
        (
            ["--config.what=items", "--config.half_life_days=9"],
            2,
            "half_life_days: for users",
        ),
        (["--config.newest=-1"], 2, "config.newest: -1 is negative"),
        (
            ["--config.start=2024-07-02", "--config.cutoff=2024-07-01"],
            2,
            "config.start: 2024-07-02",
        ),
        (["--config.what=items", "--config.cutoff=2024-07-01"], 2, "items have no behaviours"),
        (["--config.cutoff=1999-01-01"], 3, "has a behaviour that may be seen"),
    ],
)
def test_settings_that_cannot_work(
    smoke_run, smoke_data, tmp_path, capfd, overrides, code, problem
):
    arguments = [f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={tmp_path / 'o'}"]
    run_stage("export", *arguments, *overrides, code=code)
    assert problem in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_cutoff_needs_dates(smoke_run, smoke_data, tmp_path, monkeypatch):
    monkeypatch.setattr(Dataset, "has_times", False)
    with pytest.raises(ConfigError, match="config.cutoff: .* has no dates"):
        exported(smoke_run, smoke_data, tmp_path / "o", cutoff=CUTOFF)
    with pytest.raises(ConfigError, match="config.start: .* has no dates.* use newest"):
        exported(smoke_run, smoke_data, tmp_path / "o", start=CUTOFF)
    out = exported(smoke_run, smoke_data, tmp_path / "o", splits=("test",))
    assert table(out)["last_event_at"].null_count == len(table(out))


def test_what_is_no_export_is_kept_whatever_is_asked_for(smoke_run, smoke_data, tmp_path, capfd):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").write_text("precious")
    arguments = [f"--workdir={smoke_run}", f"--data={smoke_data}", f"--out={tmp_path / 'o'}"]
    for more in ([], ["--config.overwrite=true"]):
        run_stage("export", *arguments, *more, code=5)
        assert "already there and no export, it has mine" in capfd.readouterr().err
    assert (tmp_path / "o" / "mine").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(StorageError, match="a file, no folder"):
        exported(smoke_run, smoke_data, file, overwrite=True)


def test_an_export_is_overwritten_when_asked_and_whole_at_every_instant(
    smoke_run, smoke_data, tmp_path, whole, monkeypatch
):
    out = shutil.copytree(whole, tmp_path / "users")
    with pytest.raises(StorageError, match="already there and never overwritten silently"):
        exported(smoke_run, smoke_data, out, num_shards=3)

    def publish(partial, final, real=publishing.publish):
        assert contents(final) == contents(whole) and verify(partial)
        real(partial, final)

    monkeypatch.setattr(publishing, "publish", publish)
    exported(smoke_run, smoke_data, out, num_shards=3, overwrite=True)
    assert len(read_manifest(out)["parts"]) == 3 and verify(out)
    assert [path.name for path in tmp_path.iterdir()] == ["users"]


def test_a_user_who_is_there_twice_is_named(smoke_run, smoke_data, tmp_path, monkeypatch):
    test = open_dataset(smoke_data).users("test")
    changed_users(monkeypatch, lambda users: concatenate([users, test.take([3])], users.services))
    problem = f"user '{test.user_ids[3]}' is there 2 times, in train, test; a user may have one"
    with pytest.raises(DataError, match=problem):
        exported(smoke_run, smoke_data, tmp_path / "o")
    exported(smoke_run, smoke_data, tmp_path / "o", splits=("test",))


def test_a_user_who_never_did_anything_is_named(smoke_run, smoke_data, tmp_path, monkeypatch):
    users = open_dataset(smoke_data).users("train")
    empty = visible(users.take([7]), cutoff=0)
    assert not empty.counts().any()
    changed_users(monkeypatch, lambda users: concatenate([users, empty], users.services))
    monkeypatch.setattr("clue_jax.exporting.rows.pc.value_counts", no_repeats)
    with pytest.raises(DataError, match=f"user '{users.user_ids[7]}' of train has no behaviour"):
        exported(smoke_run, smoke_data, tmp_path / "o")
    assert list(tmp_path.iterdir()) == []


def no_repeats(ids, real=pc.value_counts):
    return real(ids.unique())


@pytest.mark.parametrize("name", ["25.orbax-checkpoint-tmp", "25"])
def test_a_checkpoint_that_is_still_being_written(smoke_run, smoke_data, tmp_path, name):
    """Under its temporary name, or where storage knows no renames, half there under its own."""
    run = shutil.copytree(smoke_run, tmp_path / "run")
    half = run / "checkpoints" / name
    shutil.copytree(run / "checkpoints/20/params", half / "params")
    with pytest.raises(CheckpointError, match=r"among steps \[25\]"):
        exported(run, smoke_data, tmp_path / "o", step=25)
    assert not (tmp_path / "o").exists()
    out = exported(run, smoke_data, tmp_path / "o", splits=("test",))
    assert read_manifest(out)["checkpoint"]["step"] == 20


def test_data_of_another_tokenizer_are_refused(smoke_run, smoke_data, tmp_path, monkeypatch):
    described = json.loads((smoke_run / "dataset.json").read_text())
    run = shutil.copytree(smoke_run, tmp_path / "run")
    described["tokenizer_sha256"] = "0" * 64
    (run / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="trained with 000000000000 of .*; prepare"):
        exported(run, smoke_data, tmp_path / "o")


def test_no_run_and_no_data_are_named(smoke_run, smoke_data, tmp_path):
    with pytest.raises(CheckpointError, match="none/config.json: no such file"):
        exported(tmp_path / "none", smoke_data, tmp_path / "o")
    with pytest.raises(DataError, match=r"none/manifest.json: no such file"):
        exported(smoke_run, tmp_path / "none", tmp_path / "o")
