"""Builds the index of an export, and measures its recall against exact search."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax import files
from clue_jax.data.id_list import suppression
from clue_jax.embeddings.exact import column_of, rows_with
from clue_jax.embeddings.index import (
    EVERYBODY,
    GRAPH,
    IDS,
    RECORD,
    RECORD_VERSION,
    IndexSettings,
    Members,
    rows_sha256,
)
from clue_jax.embeddings.reader import BESIDE, open_export, verified_parts
from clue_jax.embeddings.replacement import replacement
from clue_jax.embeddings.writer import write_manifest

RECALL_AT = 10
RECALL_USERS = 256
_BLOCK = 8_192  # rows whose cosines with all sampled users are in memory


def build_index(
    path: epath.PathLike, settings: IndexSettings, suppress: str = ""
) -> dict[str, Any]:
    """Gives an export an index, in place of one of the same column that it may have.

    Killed at any instant, it leaves the export without the new index or with it.

    Args:
        path: the folder `export` wrote, of users.
        settings: of the index.
        suppress: file of ids of users who are left out of it, and so are never found by it.

    Returns:
        What its .index.json says.

    Raises:
        ConfigError: usearch is not installed, a setting cannot work with this export, or the list
            cannot be read.
        DataError: the export is damaged, or its folder holds a file that is no part of it.
        LockedError: another process writes this export.
        StorageError: the file system refused; the export is as it was.
    """
    described = open_export(path, "users")
    column_of(path, described, settings.service)
    settings.graph(described["embedding_width"])
    members = _members(suppress)
    with replacement(path) as new:
        tables = zip(new.manifest["parts"], verified_parts(new.root, new.manifest), strict=True)
        parts = [new.carry_part(entry, table) for entry, table in tables]
        record, made = write_index(new.folder, new.manifest, settings, members, rows_in=new.root)
        beside = new.manifest.get(BESIDE, {})
        for name in beside.keys() - made.keys():
            new.carry(name)
        write_manifest(new.folder, {**new.manifest, BESIDE: {**beside, **made}}, parts)
    return record


def write_index(
    folder: epath.Path,
    manifest: dict[str, Any],
    settings: IndexSettings,
    members: Members,
    rows_in: epath.Path,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Writes the three files of an index.

    Args:
        folder: for them.
        manifest: of the export whose rows these are.
        settings: of the index.
        members: whose vectors it is to hold.
        rows_in: folder with the parts.

    Returns:
        What its .index.json says; file name -> SHA-256, for the manifest.
    """
    column = column_of(rows_in, manifest, settings.service)
    graph, ids = settings.graph(manifest["embedding_width"]), []
    sample = _Sample(rows_sha256(manifest))
    for ids_N, z_NE in _rows(rows_in, manifest, column, members):
        keys_N = np.arange(len(graph), len(graph) + len(z_NE), dtype=np.uint64)
        graph.add(keys_N, z_NE, threads=settings.threads)
        sample.add(keys_N, z_NE)
        ids += ids_N.chunks
    record = {
        "schema_version": RECORD_VERSION,
        "model_version": manifest["model_version"],
        "rows_sha256": rows_sha256(manifest),
        "column": column,
        "embedding_width": manifest["embedding_width"],
        "rows": len(graph),
        "metric": "cosine",
        "settings": dataclasses.asdict(settings),
        "usearch": importlib.metadata.version("usearch"),
        "recall": {
            "at": RECALL_AT,
            "users": len(sample.keys_Q),
            "value": _recall(
                graph, sample, (z for _, z in _rows(rows_in, manifest, column, members))
            ),
        },
    }
    if members.suppressed:
        record["suppressed"] = members.suppressed
    files.write_bytes(folder / (column + GRAPH), bytes(graph.save(None)))
    files.write_bytes(folder / (column + IDS), _encoded(ids))
    files.write_json(folder / (column + RECORD), record)
    names = [column + end for end in (GRAPH, IDS, RECORD)]
    return record, {name: files.sha256_file(folder / name) for name in names}


def describe_index(record: dict[str, Any]) -> str:
    """One line about what was built."""
    recall, precision = record["recall"], record["settings"]["precision"]
    listed = "suppressed" in record
    value = "not measured" if recall["value"] is None else f"{recall['value']:.4f}"
    return (
        f"indexed {record['column']} of {record['rows']:,} users ({record['embedding_width']}"
        f" dimensions, {precision}); recall@{recall['at']} against exact search: {value}"
        f" ({recall['users']:,} users)"
        + (f"; those on a list of {record['suppressed']['ids']:,} ids left out" if listed else "")
    )


def _rows(
    folder: epath.Path, manifest: dict[str, Any], column: str, members: Members
) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    for table in verified_parts(folder, manifest):
        ids_N, z_NE = rows_with(table, column)
        stay_N = members.among(ids_N)
        yield ids_N.filter(pa.array(stay_N)), z_NE[stay_N]


def _members(suppress: str) -> Members:
    listed = suppression(suppress, "--suppress")
    if listed is None:
        return EVERYBODY
    return Members(listed.identity, left_out=pa.array(listed.ids, pa.string()))


def _encoded(ids: list[pa.Array]) -> bytes:
    table, sink = pa.table({"user_id": pa.chunked_array(ids, pa.string())}), io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


class _Sample:
    """Up to `RECALL_USERS` users, each as likely as any other; equal seeds draw the same."""

    def __init__(self, seed: str):
        self.keys_Q, self.z_QE = np.zeros(0, np.uint64), np.zeros((0, 0), np.float32)
        self._rng, self._rank_Q = np.random.default_rng(int(seed[:16], 16)), np.zeros(0)

    def add(self, keys_N: np.ndarray, z_NE: np.ndarray) -> None:
        rank = np.concatenate([self._rank_Q, self._rng.random(len(keys_N))])
        first = np.argsort(rank, kind="stable")[:RECALL_USERS]
        self.z_QE = np.concatenate([self.z_QE.reshape(-1, z_NE.shape[1]), z_NE])[first]
        self.keys_Q = np.concatenate([self.keys_Q, keys_N])[first]
        self._rank_Q = rank[first]


def _recall(graph: Any, sample: _Sample, vectors: Iterator[np.ndarray]) -> float | None:
    """Share of the neighbours found that are as near as the k-th nearest; None: there are none."""
    k, users = min(RECALL_AT, len(graph) - 1), len(sample.keys_Q)
    if k < 1:
        return None
    found = graph.search(sample.z_QE, k + 1, threads=1)
    real_QK = np.arange(k + 1) < np.reshape(found.counts, (-1, 1))
    key_QK = np.where(real_QK, np.reshape(found.keys, (users, -1)), len(graph)).astype(np.int64)
    found_QK, top_QK = np.full((users, k + 1), -np.inf), np.full((users, k), -np.inf)
    start = 0
    for z_NE in (block for z in vectors for block in np.split(z, range(_BLOCK, len(z), _BLOCK))):
        own_QN = sample.keys_Q[:, None].astype(np.int64) == start + np.arange(len(z_NE))
        # Nobody is a neighbour of their own.
        cosine_QN = np.where(own_QN, -np.inf, sample.z_QE @ z_NE.T)
        # The least of the k is in front.
        top_QK = np.partition(np.concatenate([top_QK, cosine_QN], axis=1), -k, axis=1)[:, -k:]
        row, place = np.nonzero((key_QK >= start) & (key_QK < start + len(z_NE)))
        found_QK[row, place] = cosine_QN[row, key_QK[row, place] - start]
        start += len(z_NE)
    return float((np.sort(found_QK, axis=1)[:, -k:] >= top_QK[:, :1]).mean())
