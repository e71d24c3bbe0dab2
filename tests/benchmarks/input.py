"""Loading: users/s from disk to packed batches, and how long the step waits for them (row 10).

    python tests/benchmarks/input.py --record

`--data` names a prepared dataset, by default that of `clue-jax quickstart`.

Ours opens a cache on disk, checks its blocks, draws views and packs them, in one thread. The peers
read the same shards record by record, and pad or merely decode. `stall` is 1 - (seconds a step with
the very batches of the run made in advance) / (seconds a step with batches made while it runs).
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

from clue_jax.config import DataConfig, PretrainConfig
from clue_jax.data.batches import Source, TrainBatches
from clue_jax.data.source import open_dataset
from clue_jax.parallel.mesh import single_device_mesh
from clue_jax.training.state import init_state
from clue_jax.training.step import make_step
from configs.pretrain import get_config
from tests.benchmarks import harness

PEER = Path(__file__).parent / "peers" / "record_loaders.py"
PEERS = {  # name -> flags, and the ratio to reach
    "grain, record by record, padded": (["--loader=grain"], 20),
    "grain, record by record, decoded alone": (["--loader=grain", "--decoded"], 20),
    "one process of a plain loop, padded": (["--loader=loop"], 2),
}


def config_of(options: argparse.Namespace, cache: str) -> PretrainConfig:
    config = get_config("quickstart")
    config.data = DataConfig(in_memory_mb=0, cache=cache)
    if options.users:
        config.train.batch_users = options.users
    return config


def load(options: argparse.Namespace) -> dict:
    """One process: builds the cache, opens it again and makes batches."""
    with tempfile.TemporaryDirectory() as cache:
        config, dataset = config_of(options, cache), open_dataset(options.data)
        began = time.perf_counter()
        users = len(dataset.table("train", config.data))
        built = time.perf_counter() - began
        table = open_dataset(options.data).table("train", config.data)
        batches = TrainBatches(
            [Source("users", dataset.fingerprint, table)], config, single_device_mesh()
        )
        wall, cpu = time.perf_counter(), time.process_time()
        for step in range(options.batches):
            batches.host_batch(step)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    drawn = options.batches * config.train.batch_users
    return {
        "users_per_second": drawn / wall,
        "users_per_cpu_second": drawn / cpu,
        "built_per_second": users / built,
    }


def step_seconds(options: argparse.Namespace) -> dict:
    """One process: seconds of a step, as the loop runs it, with batches of the given kind."""
    with tempfile.TemporaryDirectory() as cache:
        config, dataset = config_of(options, cache), open_dataset(options.data)
        table, mesh = dataset.table("train", config.data), single_device_mesh()
        batches = TrainBatches([Source("users", dataset.fingerprint, table)], config, mesh)
        step = make_step(config, batches.pairs, mesh, batches.capacity.items)
        state = init_state(config, dataset.tokenizer.vocab_size)
        compiled = step.lower(state, batches.global_batch(0).packed).compile()
        waits, began, pending = [], 0.0, None
        made = [(batches.global_batch(k), 0.0) for k in range(options.steps)]
        source = iter(made) if options.side == "made" else batches.prefetch(0, options.steps)
        with contextlib.closing(source) if options.side == "real" else contextlib.nullcontext():
            for batch, waited in source:
                if batch.step == options.warmup:
                    began, waits = time.perf_counter(), []
                waits.append(waited)
                state, metrics = compiled(state, batch.packed)
                if pending:
                    jax.device_get(pending)  # one step late, as the loop reads them
                pending = metrics
            jax.block_until_ready(pending)
        seconds = time.perf_counter() - began
    counted = options.steps - options.warmup
    return {"seconds": seconds / counted, "wait": sum(waits) / seconds}


def compare(options: argparse.Namespace) -> None:
    again = [sys.executable, __file__, f"--data={options.data}", f"--users={options.users}"]
    again += [f"--batches={options.batches}", f"--steps={options.steps}"]
    config, python = config_of(options, ""), harness.peer_python("grain")
    shape = [f"--users={config.train.batch_users}", f"--batches={options.batches}"]
    shape += [f"--history={config.encoder.max_history}"]
    shape += [f"--longest={config.encoder.max_item_tokens}"]
    sides = {"ours": [*again, "--side=load"]}
    sides |= {n: [python, str(PEER), options.data, *shape, *f] for n, (f, _) in PEERS.items()}
    found = harness.interleaved(sides, options.rounds)
    built, _ = harness.summary([run["built_per_second"] for run in found["ours"]])
    data = f"{Path(options.data).name}, {config.train.batch_users} users a batch"
    for name, (_, reach) in PEERS.items():
        # Of a shared machine the wall clock tells what others were doing.
        for unit in ("second", "cpu_second"):
            harness.emit_medians(
                options,
                *([run[f"users_per_{unit}"] for run in found[side]] for side in ("ours", name)),
                benchmark="input",
                metric=f"users per {unit.replace('_', ' ')} from disk to packed batches, {data}",
                peer_name=name,
                reach=reach,
                built_per_second=built,
            )
    compare_steps(options, again, data)


def compare_steps(options: argparse.Namespace, again: list[str], data: str) -> None:
    sides = {side: [*again, f"--side={side}"] for side in ("real", "made")}
    steps = harness.interleaved(sides, options.rounds)
    real, made = (harness.summary([r["seconds"] for r in steps[side]]) for side in sides)
    harness.emit(
        options.record,
        benchmark="input",
        metric=f"stall: 1 - step with batches made in advance / step, {data}",
        ours=1 - made[0] / real[0],
        peer=0.0,
        peer_name="batches made in advance",
        ratio=real[0] / made[0],
        reach=0.02,
        seconds=real[0],
        spread_ours=real[1],
        spread_peer=made[1],
        data_wait=harness.summary([run["wait"] for run in steps["real"]])[0],
        rounds=options.rounds,
    )


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--data", default="runs/quickstart/data", help="prepared dataset")
    parser.add_argument("--users", type=int, default=0, help="of a batch; 0: of the preset")
    parser.add_argument("--batches", type=int, default=24, help="that a loader makes")
    parser.add_argument("--steps", type=int, default=24, help="that are timed, and warm-up")
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--side", choices=["load", "real", "made"], help="one process of ours")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(load(options) if options.side == "load" else step_seconds(options)))
    else:
        compare(options)


if __name__ == "__main__":
    main()
