"""Approximate nearest neighbours of an export: an HNSW graph (Malkov & Yashunin, TPAMI 2020).

An index of column C is three files beside the parts, named in the export's manifest with their
SHA-256, so that whatever copies, verifies, replaces or erases the export has the index as well:

    C.usearch      the graph with a copy of the vectors; its keys are positions in C.ids.arrow
    C.ids.arrow    user ids (Arrow IPC)
    C.index.json   of which rows and model, how it was built, and its recall against exact search
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax import files
from clue_jax.embeddings.exact import Match, column_of, nearest_first
from clue_jax.embeddings.reader import BESIDE, MANIFEST, open_export
from clue_jax.embeddings.verify import beside_bytes
from clue_jax.errors import ConfigError, DataError

GRAPH, IDS, RECORD = ".usearch", ".ids.arrow", ".index.json"
RECORD_VERSION = 1
PRECISIONS = ("f32", "bf16", "i8")


@dataclass(frozen=True)
class IndexSettings:
    """How an index is built; the defaults of the graph are usearch's own."""

    service: str = ""  # whose vectors; empty: those of all services combined
    precision: str = "f32"  # of the copies of the vectors: f32, bf16 or i8
    connectivity: int = 16  # links of a node in a layer of the graph; more: better and larger
    expansion_add: int = 128  # candidates while a node is linked; more: better and slower to build
    expansion_search: int = 64  # candidates of a search; more: better and slower to search
    threads: int = 1  # with one, equal exports give equal bytes on processors of one kind

    def graph(self, width: int) -> Any:
        """An empty graph of vectors of that width.

        Raises:
            ConfigError: usearch is not installed, or a setting cannot work.
        """
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision={self.precision}: give one of {', '.join(PRECISIONS)}")
        if self.connectivity < 2:
            raise ConfigError(f"--connectivity={self.connectivity}: give at least 2")
        return _usearch()(
            ndim=width,
            metric="ip",  # of unit vectors: the cosine
            dtype=self.precision,
            connectivity=self.connectivity,
            expansion_add=self.expansion_add,
            expansion_search=self.expansion_search,
        )


@dataclass(frozen=True)
class Members:
    """Whose vectors an index holds: those of everybody, or of some.

    Attributes:
        suppressed: what tells the suppression list apart; None: there was none.
        left_out: ids on that list, where it is at hand.
        only: ids of those who were in an index before, where it is built again.
    """

    suppressed: dict[str, Any] | None = None
    left_out: pa.Array | None = None
    only: pa.Array | None = None

    def among(self, ids: pa.ChunkedArray) -> np.ndarray:
        """[N] whether each of the users is one of them."""
        stay_N = np.ones(len(ids), bool)
        if self.left_out is not None:
            stay_N &= ~np.asarray(pc.is_in(ids, self.left_out))
        if self.only is not None:
            stay_N &= np.asarray(pc.is_in(ids, self.only))
        return stay_N


EVERYBODY = Members()


@dataclass(frozen=True)
class UserIndex:
    """An index in memory.

    Attributes:
        ids: [N] user ids; positions are the keys of the graph.
        graph: of usearch.
        record: contents of its .index.json.
        payload: where the graph lies; usearch reads it there, but does not keep it.
    """

    ids: pa.ChunkedArray
    graph: Any
    record: dict[str, Any]
    payload: bytes

    def __len__(self) -> int:
        return len(self.ids)

    def vectors(self, ids: Collection[str]) -> np.ndarray:
        """[M, E] of those of the users that are in the index, in its order."""
        return self._stored(self._keys(ids))

    def nearest(self, query_E: np.ndarray, k: int, left_out: Collection[str]) -> list[Match]:
        """Up to k users of great cosine with a unit vector; the graph may miss some.

        Cosines are exact ones, of the vectors as the index stores them.
        """
        excluded = self._keys(left_out)
        count = min(k + len(excluded), len(self))
        found = self._search(query_E, count, exact=False)
        if len(found) < count:  # a graph may fall into pieces that no link joins
            found = self._search(query_E, count, exact=True)
        keys = found[~np.isin(found, excluded)]
        cosine_N = self._stored(keys).astype(np.float64) @ query_E
        matches = [
            (self.ids[int(key)].as_py(), float(cosine))
            for key, cosine in zip(keys, cosine_N, strict=True)
        ]
        return nearest_first(matches)[:k]

    def _search(self, query_E: np.ndarray, count: int, exact: bool) -> np.ndarray:
        if not count:
            return np.zeros(0, np.uint64)
        return self.graph.search(query_E.astype(np.float32), count, threads=1, exact=exact).keys

    def _keys(self, ids: Collection[str]) -> np.ndarray:
        wanted = pa.array(list(ids), pa.string())
        return np.flatnonzero(np.asarray(pc.is_in(self.ids, wanted))).astype(np.uint64)

    def _stored(self, keys: np.ndarray) -> np.ndarray:
        if not len(keys):
            return np.zeros((0, self.record["embedding_width"]), np.float32)
        z_NE = np.stack(self.graph.get(keys, np.float32))
        if self.record["settings"]["precision"] == "f32":
            return z_NE
        return z_NE / np.linalg.norm(z_NE, axis=1, keepdims=True)


def open_index(path: epath.PathLike, service: str = "") -> UserIndex:
    """The index of an export, into memory.

    Args:
        path: the folder `export` wrote.
        service: whose vectors; empty: those of all services combined.

    Raises:
        ConfigError: usearch is not installed, or the export has no such service.
        DataError: no such index, one that is damaged, or one of another export or model; names the
            file.
    """
    root, manifest, usearch = epath.Path(path), open_export(path, "users"), _usearch()
    column = column_of(path, manifest, service)
    _refuse_absent(root, manifest, column)
    record = _record(root, manifest, column)
    ids = _ids(root, manifest, column)
    # The graph stays in these bytes, and they are those that were compared.
    payload = beside_bytes(root, manifest, column + GRAPH)
    graph = usearch.restore(payload, view=True)
    graph.expansion_search = record["settings"]["expansion_search"]
    return UserIndex(ids, graph, record, payload)


def index_columns(manifest: dict[str, Any]) -> list[str]:
    """Columns of an export that have an index."""
    names = sorted(name for name in manifest.get(BESIDE, {}) if name.endswith(RECORD))
    return [name.removesuffix(RECORD) for name in names]


def how_built(
    root: epath.Path, manifest: dict[str, Any], column: str
) -> tuple[IndexSettings, Members]:
    """How the index of a column was built, and of whom.

    Raises:
        ConfigError: usearch is not installed, so that it cannot be built again.
        DataError: it is damaged, or of another export or model; names the file.
    """
    _usearch()
    record = _record(root, manifest, column)
    members, suppressed = EVERYBODY, record.get("suppressed")
    if suppressed:  # the list is not kept: it names people
        members = Members(suppressed, only=_ids(root, manifest, column).combine_chunks())
    return IndexSettings(**record["settings"]), members


def _ids(root: epath.Path, manifest: dict[str, Any], column: str) -> pa.ChunkedArray:
    stored = beside_bytes(root, manifest, column + IDS)
    return pa.ipc.open_file(pa.BufferReader(stored)).read_all().column("user_id")


def rows_sha256(manifest: dict[str, Any]) -> str:
    """Identity of all rows of an export: the seal of the manifest would also be of its indexes."""
    parts = [part["sha256"] for part in manifest["parts"]]
    return files.sha256_text(files.canonical_json([manifest["model_version"], parts]))


def _usearch() -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise ConfigError("an index needs usearch: pip install '.[index]'") from error
    return Index


def _refuse_absent(root: epath.Path, manifest: dict[str, Any], column: str) -> None:
    if column in index_columns(manifest):
        return
    for end in (RECORD, IDS, GRAPH):
        if (root / (column + end)).exists():
            raise DataError(
                f"{root / (column + end)}: not named in {MANIFEST}, so it is of another export;"
                " remove it, and run clue-jax embeddings index"
            )
    flag = f" --service={column.removeprefix('embedding_')}" if column != "embedding" else ""
    raise DataError(
        f"{root}: has no index of {column}; make one with clue-jax embeddings index {root}{flag}"
    )


def _record(root: epath.Path, manifest: dict[str, Any], column: str) -> dict[str, Any]:
    file = root / (column + RECORD)
    record = json.loads(beside_bytes(root, manifest, file.name))
    if record["schema_version"] > RECORD_VERSION:
        raise DataError(
            f"{file}: schema version {record['schema_version']}, but this program knows"
            f" {RECORD_VERSION}; update clue_jax"
        )
    if record["model_version"] != manifest["model_version"]:
        raise DataError(
            f"{file}: an index of model {record['model_version']}, but the export is of"
            f" {manifest['model_version']}; run clue-jax embeddings index again"
        )
    if record["rows_sha256"] != rows_sha256(manifest):
        raise DataError(f"{file}: of other rows; run clue-jax embeddings index again")
    return record
