"""Useful FLOPs of real tokens / (time x matmul rate of the same process) (row 9).

    python tests/benchmarks/mfu.py --record
    python tests/benchmarks/mfu.py --width=768 --layers=9 --users=1024 --dtype=bfloat16 --record

The whole train step: item and service Transformers, loss, AdamW. Recomputation and padding count as
time and not as work, so 0.75 x fill is the most that a step can reach that recomputes its forward.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

from clue_jax.config import Precision
from tests.benchmarks import harness, workloads
from tests.benchmarks.steps import bench, config_of


def side(width: int, layers: int, users: int, dtype: str, steps: int) -> dict:
    config = config_of(width, layers, users, precision=Precision(dtype))
    step = bench(config, workloads.zipf_users(users))
    before = harness.matmul_rate(dtype)
    seconds = step.seconds(steps)
    rate = max(before, harness.matmul_rate(dtype))
    stats = step.batch.stats
    return {
        "mfu": step.flops / seconds / rate,
        "seconds": seconds,
        "matmul_rate": rate,
        "flops": step.flops,
        "fill": stats["tokens"] / stats["token_slots"],
        "tokens": stats["tokens"],
    }


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4, help="of each level")
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=[p.value for p in Precision])
    parser.add_argument("--side", action="store_true", help="one process of it")
    options = parser.parse_args()
    shape = options.width, options.layers, options.users, options.dtype, options.steps
    if options.side:
        print(json.dumps(side(*shape)))
        return
    names = ("width", "layers", "users", "dtype", "steps")
    flags = [f"--{name}={value}" for name, value in zip(names, shape, strict=True)]
    found = harness.interleaved(
        {"ours": [sys.executable, __file__, "--side", *flags]}, options.rounds
    )
    mfu, spread = harness.summary([run["mfu"] for run in found["ours"]])
    rate, rate_spread = harness.summary([run["matmul_rate"] for run in found["ours"]])
    harness.emit(
        options.record,
        benchmark="mfu",
        metric=f"useful FLOPs / (time x matmul rate), width {options.width}, {options.layers} +"
        f" {options.layers} layers, {options.users} zipf users, {options.dtype}",
        ours=mfu,
        peer=1.0,
        peer_name="matmul rate of the same process",
        ratio=mfu,
        reach=0.50 if jax.default_backend() == "cpu" else 0.40,
        spread_ours=spread,
        rounds=options.rounds,
        matmul_rate=rate,
        spread_matmul_rate=rate_spread,
        **{name: found["ours"][0][name] for name in ("fill", "tokens", "flops")},
    )


if __name__ == "__main__":
    main()
