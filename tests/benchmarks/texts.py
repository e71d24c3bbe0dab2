"""Texts a second, from strings to vectors in a file, against sentence-transformers (row 11).

    python tests/benchmarks/texts.py --record

Distinct texts, so that nothing is gained by encoding what repeats once. Both sides have the same
tokens and random weights. Ours takes a text through the item encoder, and its vector as a history
of one through the service encoder and the projection. `same size`: a BERT of as many layers as both
levels have, and so about as many parameters; `item level`: of as many as the item encoder alone.
`cpu_ratio` compares seconds of processor time, for a machine that others use as well.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import numpy as np

from clue_jax.data.source import open_dataset
from clue_jax.data.tokenizer import load
from clue_jax.encoder import UserEncoder
from clue_jax.model import clue
from tests.benchmarks import harness, workloads
from tests.benchmarks.steps import config_of

PEER = Path(__file__).parent / "peers" / "sentence_transformers_encode.py"
REACH = 1.3
SERVICE = "shop"


def write_texts(folder: Path, count: int) -> None:
    """Writes texts.txt, a text a line, and tokenizer.json, of a synthetic catalogue."""
    dataset = open_dataset(workloads.dataset(folder, 2_000, (SERVICE,), 30.0, 2 * count, 0))
    texts = dataset.items().texts[:count].tolist()
    if len(set(texts)) < count:
        raise RuntimeError(f"{len(set(texts)):,} distinct texts, fewer than {count:,}")
    (folder / "texts.txt").write_text("\n".join(texts))
    dataset.tokenizer.save(folder / "tokenizer.json")


def side(options) -> dict:
    folder = Path(options.side)
    tokenizer = load(folder / "tokenizer.json")
    texts = (folder / "texts.txt").read_text().split("\n")
    config = config_of(options.width, options.layers, 0, longest=options.longest).encoder
    params = clue.init(config, tokenizer.vocab_size, jax.random.key(0))
    encoder = UserEncoder(config, params, tokenizer, (SERVICE,), "random")
    encoder.encode([{SERVICE: texts[:1]}])
    rate = harness.matmul_rate("float32")
    began, worked = time.perf_counter(), time.process_time()
    z_NE = encoder.encode([{SERVICE: [text]} for text in texts])
    np.save(folder / "ours.npy", z_NE)
    return {
        "texts_per_second": len(texts) / (time.perf_counter() - began),
        "cpu_seconds": time.process_time() - worked,
        "tokens": sum(1 + len(ids) for ids in tokenizer.encode(texts)),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "matmul_rate": rate,
    }


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4, help="of each level of ours")
    parser.add_argument("--longest", type=int, default=32, help="text in tokens")
    parser.add_argument("--side", help="folder: one process of our side")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder), options.texts)
        for case, levels in (("same size", 2), ("item level", 1)):
            compare(options, Path(folder), case, levels * options.layers)


def compare(options, folder: Path, case: str, peer_layers: int) -> None:
    shape = [f"--{name}={getattr(options, name)}" for name in ("width", "longest")]
    files = [str(folder / name) for name in ("texts.txt", "tokenizer.json", "peer.npy")]
    guide = f"--guide={load(folder / 'tokenizer.json').guide(SERVICE)}"
    peer = harness.peer_python("sentence-transformers")
    sides = {
        "ours": [sys.executable, __file__, f"--side={folder}", *shape],
        "peer": [peer, str(PEER), *files, *shape, f"--heads={options.width // 64}", guide],
    }
    sides["ours"].append(f"--layers={options.layers}")
    sides["peer"].append(f"--layers={peer_layers}")
    found = harness.interleaved(sides, options.rounds)
    tokens = {name: runs[0]["tokens"] for name, runs in found.items()}
    if tokens["ours"] != tokens["peer"]:
        raise RuntimeError(f"both sides should have the same tokens: {tokens}")
    rates, seconds = (
        {name: harness.summary([run[key] for run in found[name]])[0] for name in sides}
        for key in ("matmul_rate", "cpu_seconds")
    )
    harness.emit_medians(
        options,
        *([run["texts_per_second"] for run in found[name]] for name in sides),
        benchmark="texts",
        metric=f"texts/s from strings to vectors in a file, {case}, {options.texts} texts of"
        f" {tokens['ours'] / options.texts:.1f} tokens, width {options.width}, {options.layers} +"
        f" {options.layers} layers, float32",
        peer_name=f"sentence-transformers encode, BERT of {peer_layers} layers, batches of"
        f" {found['peer'][0]['batch']}",
        reach=REACH,
        parameters_ours=found["ours"][0]["parameters"],
        parameters_peer=found["peer"][0]["parameters"],
        cpu_ratio=seconds["peer"] / seconds["ours"],
        cpus=len(os.sched_getaffinity(0)),
        matmul_rate_ours=rates["ours"],
        matmul_rate_peer=rates["peer"],
    )


if __name__ == "__main__":
    main()
