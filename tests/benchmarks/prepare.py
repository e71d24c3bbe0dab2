"""Logs to histories against a pandas groupby, and texts to ids against encode_batch (row 13).

    python tests/benchmarks/prepare.py --record

Ours reads, checks, identifies and spills every behaviour, and leaves the grouped histories on disk,
within `--memory_mb`, once with each number of `--processes`, their start included; pandas holds all
of it and checks nothing. Peaks and CPU seconds a million events of all processes are in the lines.
The ids of both encoders are compared, not only their speed.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax.config import PrepareConfig, SourceConfig, TokenizerConfig
from clue_jax.data import grouping, tokenizer
from clue_jax.data.workers import Workers
from tests.benchmarks import harness, synthetic_log

PEER = Path(__file__).parent / "peers" / "pandas_groupby.py"
REACH = 4.0
SERVICES = ("search", "shop", "news")


def config_of(logs: str, memory_mb: int) -> PrepareConfig:
    source = SourceConfig(
        path="*.parquet", service_column="service", item_id="item_id", text="{title}"
    )
    # The texts that a tokenizer is trained on are no part of grouping.
    unused = TokenizerConfig(max_training_texts=1)
    return PrepareConfig(source=logs, sources=(source,), tokenizer=unused, memory_mb=memory_mb)


def group_side(options: argparse.Namespace) -> dict:
    config, (processes,) = config_of(options.logs, options.memory_mb), options.processes
    with tempfile.TemporaryDirectory() as folder:
        started, busy = time.perf_counter(), sum(os.times()[:4])
        with Workers(processes) as workers:
            grouped = grouping.group_logs(
                config, Path(folder), epath.Path(folder) / "rejects", None, workers
            )
        seconds, busy = time.perf_counter() - started, sum(os.times()[:4]) - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if processes > 1:  # as if all had the largest one's at once
        peak += processes * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    behaviours = grouped.reading.behaviours
    return {
        "per_second": behaviours / seconds,
        "peak_mb": peak / 1024,
        "cpu_seconds_a_million": busy / behaviours * 1e6,
    }


def texts_of(count: int) -> pa.Array:
    """Distinct titles, as the catalogue has them."""
    items = np.arange(count)
    return synthetic_log.titles(items, synthetic_log.words(4_096)).cast(pa.large_string())


def encode_side(options: argparse.Namespace) -> dict:
    texts = texts_of(options.texts)
    trained = tokenizer.train(texts.slice(0, 20_000).to_pylist(), SERVICES, 4_096)
    strings = texts.to_pylist()
    size = sum(len(text.encode()) for text in strings)
    started = time.perf_counter()
    if options.side == "words":
        flat, offsets = trained.encode_flat(texts)
    else:
        bpe = trained._bpe
        ids = []
        for start in range(0, len(strings), 10_000):
            batch = bpe.encode_batch(strings[start : start + 10_000], add_special_tokens=False)
            ids += [np.array(one.ids, np.int32) for one in batch]
    seconds = time.perf_counter() - started
    if options.side != "words":
        flat, lengths = np.concatenate(ids), np.array([len(one) for one in ids])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
    digest = hashlib.sha256(flat.tobytes() + offsets.astype(np.int64).tobytes()).hexdigest()
    return {"per_second": size / seconds / 1e6, "ids": digest}


def compare_grouping(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = [f"--rows={options.rows}", f"--users={options.rows // 50}"]
        made += [f"--items={options.rows // 50}", f"--out={folder}"]
        synthetic_log.write(synthetic_log.arguments().parse_args(made))
        ours = [sys.executable, __file__, "--side=group", f"--logs={folder}"]
        ours.append(f"--memory_mb={options.memory_mb}")
        sides = {str(n): [*ours, f"--processes={n}"] for n in options.processes}
        sides["peer"] = [harness.peer_python("pandas"), str(PEER), folder]
        printed = harness.interleaved(sides, options.rounds)
    for count in options.processes:
        two = {"ours": printed[str(count)], "peer": printed["peer"]}
        metric = f"events/s, {options.rows:,} behaviours, {count} process" + "es" * (count > 1)
        emit(options, two, metric, "pandas groupby")


def compare_encoding(options: argparse.Namespace) -> None:
    flags = [sys.executable, __file__, f"--texts={options.texts}"]
    sides = {"ours": [*flags, "--side=words"], "peer": [*flags, "--side=encode_batch"]}
    printed = harness.interleaved(sides, options.rounds)
    digests = {one["ids"] for side in printed.values() for one in side}
    if len(digests) != 1:
        raise RuntimeError("the two encoders gave different ids")
    metric = f"MB/s of {options.texts:,} distinct titles to identical ids"
    emit(options, printed, metric, "tokenizers encode_batch")


def emit(options: argparse.Namespace, printed: dict, metric: str, peer_name: str) -> None:
    more = {}
    for name, side in printed.items():
        if "peak_mb" in side[0]:
            more[f"{name}_peak_mb"] = round(max(one["peak_mb"] for one in side))
            busy = statistics.median(one["cpu_seconds_a_million"] for one in side)
            more[f"{name}_cpu_seconds_a_million"] = round(busy, 3)
    harness.emit_medians(
        options,
        *([one["per_second"] for one in printed[name]] for name in ("ours", "peer")),
        benchmark="prepare",
        metric=metric,
        peer_name=peer_name,
        reach=REACH,
        matmul_rate=harness.matmul_rate("float32"),
        **more,
    )


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--memory_mb", type=int, default=2_048)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--side", choices=("group", "words", "encode_batch"))
    parser.add_argument("--logs", default="")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(group_side(options) if options.side == "group" else encode_side(options)))
        return
    compare_encoding(options)
    compare_grouping(options)


if __name__ == "__main__":
    main()
