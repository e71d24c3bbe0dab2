"""How fast users become a folder of embeddings, and whether its stages wait for each other.

    python tests/benchmarks/export.py --record

overlap (row 12): wall time of an export / the longest of reading, computing and writing, each done
alone, in one process and in turn. Reading takes users from memory and packs their batches; writing
makes tables, compresses them and waits for the disk. On CPUs computing takes the cores of the other
two, so beside the machine's own devices there is one that only waits, as an accelerator does.

users/s (row 11, first half): the table of items beside batches that encode their distinct items,
and beside encoding each text of each user anew, packed all the same. `--items` is the catalogue.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import numpy as np
from etils import epath

from clue_jax.composition import combine
from clue_jax.config import ExportConfig, MeshConfig
from clue_jax.data.ragged import offsets_of, ranges, rows_at
from clue_jax.data.records import Users
from clue_jax.embeddings.layout import part_file, user_shards
from clue_jax.embeddings.schema import user_table
from clue_jax.embeddings.writer import write_part
from clue_jax.exporting import pipeline
from clue_jax.exporting.item_vectors import DistinctItems, ItemVectors
from clue_jax.exporting.pipeline import Encoded
from clue_jax.inference import BatchEncoder, ItemEncoder, embedding_encoder
from clue_jax.model import clue
from clue_jax.parallel.mesh import make_mesh, replicated
from tests.benchmarks import harness, workloads
from tests.benchmarks.steps import config_of

REACH_OVERLAP, REACH_SPEED = 1.10, 20
SIDES = ("overlap", "overlap of waiting devices", "table", "batches", "anew")


def each_text_anew(users: Users) -> Users:
    """The same histories, in which no two behaviours are of one item."""
    owner_M = np.repeat(np.arange(len(users)), users.counts().sum(axis=1))
    items_M = users.item_offsets[owner_M] + users.behaviour_items
    tokens, lengths = rows_at(users.token_offsets, items_M)
    behaviours = users.counts().sum(axis=1)
    return dataclasses.replace(
        users,
        item_ids=np.arange(len(items_M), dtype=np.uint64),
        item_offsets=offsets_of(behaviours),
        tokens=users.tokens[tokens],
        token_offsets=offsets_of(lengths),
        behaviour_items=ranges(np.zeros_like(behaviours), behaviours).astype(np.int32),
    )


class Waiting:
    """In place of an encoder: a device that takes so long for a batch, and no core of the host."""

    def __init__(self, encoder: BatchEncoder, seconds: float):
        self.encoder, self.seconds, self.free = encoder, seconds, 0.0
        self.batch_users, self.config, self.pack = encoder.batch_users, encoder.config, encoder.pack

    def start(self, params: clue.Params, shares: Any) -> float:
        self.free = max(self.free, time.perf_counter()) + self.seconds
        return self.free

    def collect(self, finished: float, users: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(max(0.0, finished - time.perf_counter()))
        z_NSE = np.ones((users, 2, self.config.embedding_width), np.float32)
        z_NSE /= np.sqrt(z_NSE.shape[-1])
        return z_NSE, np.ones((users, 2), bool)


class Export:
    """What an export does between a dataset in memory and a folder."""

    def __init__(self, options: argparse.Namespace, users: Users):
        self.config = config_of(options.width, options.layers, options.batch).encoder
        self.users, self.batch = users, options.batch
        shards_N = user_shards(users.user_ids, options.parts)
        self.parts = [np.flatnonzero(shards_N == part) for part in range(options.parts)]
        self.mesh = make_mesh(MeshConfig())
        params = clue.init(self.config, workloads.VOCABULARY, jax.random.key(0))
        self.params = jax.device_put(params, replicated(self.mesh))

    def encoder(self, vectors: Any = None) -> BatchEncoder:
        return embedding_encoder(self.config, self.users, self.batch, self.mesh, vectors)

    def writer(self, folder: Path) -> Callable[[Encoded], None]:
        def write(part: Encoded) -> None:
            rows = self.parts[part.part]
            counts_NS = self.users.counts()[rows]
            table = user_table(
                user_ids=self.users.user_ids[rows],
                splits=np.full(len(rows), "train", object),
                services=self.users.services,
                embedding_NE=combine(part.z_NSE, part.present_NS),
                z_NSE=part.z_NSE,
                counts_NS=counts_NS,
                tokens_NS=counts_NS,
                truncated_N=np.zeros(len(rows), bool),
                first_N=None,
                last_N=None,
                event_N=None,
                model_version="m",
            )
            write_part(folder, part_file("m", part.part, len(self.parts)), table)

        return write

    def run(self, encoder: Any, folder: Path) -> float:
        """Seconds of the whole."""
        began = time.perf_counter()
        everything = (encoder, self.params, self.users, self.parts, range(len(self.parts)))
        pipeline.run(*everything, self.writer(folder), lambda count: None)
        return time.perf_counter() - began


def made(options: argparse.Namespace) -> Export:
    users = workloads.zipf_users(options.users, items_per_service=options.items)
    export = Export(options, each_text_anew(users) if options.side == "anew" else users)
    return export


def speed(options: argparse.Namespace) -> dict:
    """One process: users/s of one way, its compilation left out."""
    export = made(options)
    with tempfile.TemporaryDirectory() as folder:
        items, made_by, seconds = DistinctItems(export.users, export.config), [], []
        of_items = ItemEncoder(export.config, items.longest, export.mesh)
        table = options.side == "table"
        encoder = export.encoder(lambda ids: made_by[-1](ids)) if table else export.encoder()
        for turn in ("compiles", "timed"):
            began = time.perf_counter()
            if table:
                items = DistinctItems(export.users, export.config)
                made_by.append(ItemVectors(epath.Path(folder) / f"items-{turn}", items))
                made_by[-1].make(of_items, export.params, 0, 1)
            export.run(encoder, Path(folder) / turn)
            seconds.append(time.perf_counter() - began)
    return {"users_per_second": len(export.users) / seconds[-1], "distinct_items": len(items)}


def overlap(options: argparse.Namespace) -> dict:
    """One process: each stage alone, then all of them, in turn."""
    export = made(options)
    encoder: Any = export.encoder()
    nothing = export.params, export.parts, lambda count: None
    found: dict[str, list[float]] = {name: [] for name in ("read", "compute", "write", "wall")}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        found[name].append(time.perf_counter() - began)
        return result

    for turn in range(options.turns + 1):
        with tempfile.TemporaryDirectory() as folder:
            every = (encoder, export.users, export.parts, range(options.parts))
            batches = timed("read", lambda every=every: list(pipeline.packed_batches(*every)))
            if options.side == "overlap of waiting devices" and not turn:
                each = found["read"][0] / len(batches)
                encoder = Waiting(encoder, each)
            arguments = (encoder, nothing[0], batches, 2, nothing[2])
            parts = timed("compute", lambda a=arguments: list(pipeline.encoded_parts(*a)))
            write = export.writer(Path(folder) / "alone")
            timed("write", lambda w=write, p=parts: list(map(w, p)))
            found["wall"].append(export.run(encoder, Path(folder) / "whole"))
    later = {name: float(np.median(seconds[1:])) for name, seconds in found.items()}
    turns = zip(*(seconds[1:] for seconds in found.values()), strict=True)
    ratios = [wall / max(alone) for *alone, wall in turns]
    return later | {"ratio": float(np.median(ratios))}


def compare(options: argparse.Namespace) -> None:
    again = [sys.executable, __file__, f"--users={options.users}", f"--items={options.items}"]
    again += [f"--batch={options.batch}", f"--width={options.width}", f"--layers={options.layers}"]
    again += [f"--turns={options.turns}", f"--parts={options.parts}"]
    data = (
        f"{options.users} zipf users over {2 * options.items:,} items, width {options.width},"
        f" {options.parts} parts, {options.batch} users a batch"
    )
    wanted = [side for side in SIDES if side.startswith(tuple(options.only.split(",")))]
    found = harness.interleaved(
        {side: [*again, f"--side={side}"] for side in wanted}, options.rounds
    )
    for side in SIDES[:2]:
        runs = found.get(side, [])
        if runs:
            alone = {n: harness.summary([run[n] for run in runs])[0] for n in runs[0]}
            harness.emit(
                options.record,
                benchmark="export",
                metric=f"{side}: wall / longest of read, compute, write, {data}",
                ours=alone["wall"],
                peer=max(alone[n] for n in ("read", "compute", "write")),
                peer_name="the longest stage, alone",
                spread=harness.summary([run["ratio"] for run in runs])[1],
                reach=REACH_OVERLAP,
                rounds=options.rounds,
                calibration=harness.matmul_rate("float32"),
                **alone,
            )
    for peer in ("anew", "batches"):
        if "table" in found and peer in found:
            harness.emit_medians(
                options,
                *([run["users_per_second"] for run in found[side]] for side in ("table", peer)),
                benchmark="export",
                metric=f"users/s with a table of items, {data}",
                peer_name={
                    "anew": "each text of each user anew",
                    "batches": f"distinct items of a batch of {options.batch}",
                }[peer],
                reach=REACH_SPEED if peer == "anew" else 1,
                distinct_items=found["table"][0]["distinct_items"],
                calibration=harness.matmul_rate("float32"),
            )


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--users", type=int, default=4_096)
    parser.add_argument("--items", type=int, default=1_000, help="of each of two services")
    parser.add_argument("--batch", type=int, default=ExportConfig().batch_users)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="of the stages, in a process")
    parser.add_argument("--only", default="", help="sides that begin so, with commas")
    parser.add_argument("--side", choices=SIDES, help="one process")
    options = parser.parse_args()
    if options.side:
        measure = overlap if options.side.startswith("overlap") else speed
        print(json.dumps(measure(options)))
    else:
        compare(options)


if __name__ == "__main__":
    main()
