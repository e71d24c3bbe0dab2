"""Loading: users/s from disk to packed batches, and how long the step waits for them (row 10).

    python tests/benchmarks/input.py --record

`--data` names a prepared dataset, by default that of `clue-jax quickstart`.

Ours opens a cache on disk, checks its blocks, draws views and packs them, in one thread. The peers
read the same shards record by record, and pad or merely decode. `stall` is 1 - (seconds a step with
the very batches of the run made in advance) / (seconds a step with batches made while it runs), the
median over pairs of short segments of steps, taken in turn in one process.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

from clue_jax.config import DataConfig, PretrainConfig
from clue_jax.data.batches import Batch, Source, TrainBatches
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


class Steps:
    """The compiled step of a run and its state, stepped as the loop does."""

    def __init__(self, options: argparse.Namespace, cache: str):
        config, dataset = config_of(options, cache), open_dataset(options.data)
        source = Source("users", dataset.fingerprint, dataset.table("train", config.data))
        self.batches = TrainBatches([source], config, single_device_mesh())
        max_items = self.batches.capacity.items
        step = make_step(config, self.batches.pairs, self.batches.mesh, max_items)
        self.state = init_state(config, dataset.tokenizer.vocab_size)
        self.compiled = step.lower(self.state, self.batches.global_batch(0).packed).compile()

    def measure(self, source: Iterator[tuple[Batch, float]], warmup: int, steps: int) -> dict:
        """Seconds, seconds of CPU and of waiting, of a step."""
        began, cpu, waits, pending = 0.0, 0.0, 0.0, None
        for number, (batch, waited) in enumerate(islice(source, warmup + steps)):
            if number == warmup:
                jax.block_until_ready(pending)
                began, cpu, waits = time.perf_counter(), time.process_time(), 0.0
            waits += waited
            self.state, metrics = self.compiled(self.state, batch.packed)
            if pending:
                jax.device_get(pending)  # one step late, as the loop reads them
            pending = metrics
        jax.block_until_ready(pending)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        return {"seconds": wall / steps, "cpu": cpu / steps, "wait": waits / wall}


def paired_steps(options: argparse.Namespace) -> dict:
    """One process: short segments of the same steps, in turn with batches made while they run and
    with the very batches made in advance. What else the machine does meets both alike.
    """
    warmup, steps, sides = options.warmup, options.steps, {"real": [], "made": []}
    with tempfile.TemporaryDirectory() as cache:
        run = Steps(options, cache)
        ahead = 2  # batches beyond the last keep the producer at work, as in a run
        for pair in range(options.pairs + 1):
            first = pair * (warmup + steps)
            last = first + warmup + steps
            made = [(run.batches.global_batch(k), 0.0) for k in range(first, last)]
            for side in ("real", "made") if pair % 2 else ("made", "real"):
                if side == "made":
                    sides[side].append(run.measure(iter(made), warmup, steps))
                    continue
                with contextlib.closing(run.batches.prefetch(first, last + ahead)) as source:
                    sides[side].append(run.measure(source, warmup, steps))
    return {side: found[1:] for side, found in sides.items()}  # the first pair warms up


def compare(options: argparse.Namespace) -> None:
    again = [sys.executable, __file__, f"--data={options.data}", f"--users={options.users}"]
    again += [f"--batches={options.batches}", f"--steps={options.steps}"]
    again += [f"--pairs={options.pairs}"]
    data_name = (
        f"{Path(options.data).name}, {config_of(options, '').train.batch_users} users a batch"
    )
    if options.only != "rates":
        compare_steps(options, again, data_name)
    if options.only != "stall":
        compare_rates(options, again, data_name)


def compare_rates(options: argparse.Namespace, again: list[str], data: str) -> None:
    config, python = config_of(options, ""), harness.peer_python("grain")
    shape = [f"--users={config.train.batch_users}", f"--batches={options.batches}"]
    shape += [f"--history={config.encoder.max_history}"]
    shape += [f"--longest={config.encoder.max_item_tokens}"]
    sides = {"ours": [*again, "--side=load"]}
    sides |= {n: [python, str(PEER), options.data, *shape, *f] for n, (f, _) in PEERS.items()}
    found = harness.interleaved(sides, options.rounds)
    built, _ = harness.summary([run["built_per_second"] for run in found["ours"]])
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


def compare_steps(options: argparse.Namespace, again: list[str], data: str) -> None:
    (found,) = harness.interleaved({"steps": [*again, "--side=steps"]}, 1)["steps"]
    of = {
        (side, key): [run[key] for run in found[side]]
        for side in ("real", "made")
        for key in ("seconds", "cpu", "wait")
    }
    for unit, key in (("", "seconds"), (" in seconds of CPU", "cpu")):
        stalls = [
            1 - made / real for real, made in zip(of["real", key], of["made", key], strict=True)
        ]
        # The median lies between these order statistics 95 times of 100 (sign test).
        low, high = harness.median_bounds(stalls)
        real = harness.summary(of["real", key])
        made = harness.summary(of["made", key])
        harness.emit(
            options.record,
            benchmark="input",
            metric=f"stall: 1 - step with batches made in advance / step{unit}, {data}",
            ours=statistics.median(stalls),
            low=low,
            high=high,
            peer=0.0,
            peer_name="the same batches made in advance, segments in turn in one process",
            ratio=real[0] / made[0],
            reach=0.02,
            seconds=real[0],
            spread_ours=real[1],
            spread_peer=made[1],
            data_wait=statistics.median(of["real", "wait"]),
            pairs=options.pairs,
            steps=options.steps,
        )


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--data", default="runs/quickstart/data", help="prepared dataset")
    parser.add_argument("--users", type=int, default=0, help="of a batch; 0: of the preset")
    parser.add_argument("--batches", type=int, default=24, help="that a loader makes")
    parser.add_argument("--pairs", type=int, default=40, help="of segments of steps")
    parser.add_argument("--steps", type=int, default=4, help="of a segment, after its warm-up")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--only", choices=["rates", "stall"], help="one of the two comparisons")
    parser.add_argument("--side", choices=["load", "steps"], help="one process of ours")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(load(options) if options.side == "load" else paired_steps(options)))
    else:
        compare(options)


if __name__ == "__main__":
    main()
