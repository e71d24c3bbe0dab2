"""Small exports for tests, made with the writer."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from clue_jax.config import StoredPrecision
from clue_jax.embeddings.layout import part_file
from clue_jax.embeddings.schema import item_table, user_table
from clue_jax.embeddings.writer import write_manifest, write_part


def unit(array):
    array = np.asarray(array, np.float32)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def random_users(count, services=("art", "office"), width=8, seed=0, **columns):
    """Arguments of `user_table` for random users, some of whom lack a service."""
    rng = np.random.default_rng(seed)
    counts_NS = rng.integers(0, 9, (count, len(services)))
    counts_NS[counts_NS.sum(axis=1) == 0, 0] = 1
    return {
        "user_ids": np.array([f"user-{n}" for n in range(count)], object),
        "splits": np.where(rng.random(count) < 0.3, "train", "test").astype(object),
        "services": services,
        "embedding_NE": unit(rng.normal(size=(count, width))),
        "z_NSE": unit(rng.normal(size=(count, len(services), width))),
        "counts_NS": counts_NS,
        "tokens_NS": 3 * counts_NS,
        "truncated_N": rng.random(count) < 0.2,
        "first_N": rng.integers(0, 10**9, count),
        "last_N": rng.integers(10**9, 2 * 10**9, count),
        "event_N": None,
        "model_version": "model-1",
        **columns,
    }


def write_export(folder, users, parts=3, npy=False, **manifest):
    """Writes users to `folder` in that many parts; gives the manifest."""
    cuts = np.linspace(0, len(users["user_ids"]), parts + 1).astype(int)
    entries = []
    for p, (first, last) in enumerate(itertools.pairwise(cuts)):
        rows = {k: v[first:last] if isinstance(v, np.ndarray) else v for k, v in users.items()}
        file = part_file(users["model_version"], p, parts)
        entries.append(write_part(folder, file, user_table(**rows), "export-1", npy=npy))
    described = {
        "what": "users",
        "model_version": users["model_version"],
        "train_seed": 0,
        "config": {},
        "dataset": {"path": "", "fingerprint": "f" * 64, "services": list(users["services"])},
        "embedding_width": users["embedding_NE"].shape[1],
        "normalised": True,
        "precision": users.get("precision", StoredPrecision.FLOAT32).value,
        "export_id": "export-1",
        "cutoff": "",
        "hold_out_last": 0,
        "splits": sorted(set(users["splits"])),
        **manifest,
    }
    return write_manifest(folder, described, entries)


def write_items_export(folder):
    """Writes five items to `folder` in one part."""
    users = random_users(5)
    table = item_table(
        item_ids=np.arange(5, dtype=np.uint64),
        source_ids=users["user_ids"],
        services=np.array(["art"] * 5, object),
        embedding_JE=users["embedding_NE"],
        model_version="model-1",
    )
    part = write_part(folder, part_file("model-1", 0, 1), table)
    described = {"what": "items", "model_version": "model-1", "embedding_width": 8}
    return write_manifest(folder, {**described, "dataset": {"services": ["art"]}}, [part])


def contents(folder):
    """The bytes of all files of an export, but for the time when it was made."""
    folder = Path(folder)
    found = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    manifest = json.loads(found["manifest.json"])
    assert manifest.pop("created_at") and manifest.pop("manifest_sha256")
    return found | {"manifest.json": manifest}


def killed_at_each_operation(export, folder, *ids):
    """Copies of an export whose change (killed_change.py) was killed, the last one excepted."""
    root, script = Path(__file__).parents[2], Path(__file__).parent / "killed_change.py"
    subprocess.run(
        [sys.executable, str(script), str(export), str(folder), *[",".join(ids)] * bool(ids)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    return [folder / str(number) / "export" for number in range(1, len(os.listdir(folder)) + 1)]


def bytes_under(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
