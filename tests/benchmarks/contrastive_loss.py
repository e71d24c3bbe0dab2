"""The contrastive loss against open_clip's ClipLoss in torch: memory, time, roofline (rows 1 to 3).

    python tests/benchmarks/contrastive_loss.py --users=8192 --record

Forward and backward of one device. Memory: temporaries and gradients of the compiled function here,
growth of the largest resident set there. Roofline: four products of the similarities' size, over
time and matmul rate of the same process.
"""

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import numpy as np

from clue_jax.config import Precision
from clue_jax.losses.contrastive import Sharding, mean_pair_loss
from tests.benchmarks import harness

PEER = Path(__file__).parent / "peers" / "torch_clip_loss.py"
SCALE = 14.3


def vectors(users: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = (rng.normal(size=(users, width)).astype(np.float32) for _ in range(2))
    return [z / np.linalg.norm(z, axis=1, keepdims=True) for z in drawn]


def side(users: int, width: int, tile: int, dtype: str, steps: int) -> dict:
    sharding = Sharding("data", tile, precision=Precision(dtype))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    loss = mean_pair_loss(mesh, sharding)
    arguments = *vectors(users, width), np.float32(SCALE), np.float32(0.0)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(*arguments).compile()
    arguments = jax.device_put(arguments, compiled.input_shardings[0])
    rate = harness.matmul_rate(dtype)
    seconds = []
    for _ in range(1 + steps):
        began = time.perf_counter()
        value, _ = jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - began)
    memory = compiled.memory_analysis()
    median = statistics.median(seconds[1:])
    return {
        "seconds": median,
        "loss": float(value),
        "bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes,
        "roofline": 4 * 2.0 * users**2 * width / median / rate,
        "matmul_rate": rate,
    }


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--users", type=int, default=8_192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--tile", type=int, default=1_024)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=[p.value for p in Precision])
    parser.add_argument("--side", action="store_true", help="one process of our side")
    options = parser.parse_args()
    if options.side:
        shape = options.users, options.width, options.tile, options.dtype, options.steps
        print(json.dumps(side(*shape)))
        return
    shared = [f"--{name}={getattr(options, name)}" for name in ("users", "width", "steps", "dtype")]
    found = harness.interleaved(
        {
            "ours": [sys.executable, __file__, "--side", f"--tile={options.tile}", *shared],
            "peer": [harness.peer_python(), str(PEER), *shared],
        },
        options.rounds,
    )
    what = f"{options.users} users, width {options.width}, {options.dtype}"
    small = options.users < 16_384
    for key, metric, reach in (
        ("bytes", "bytes beside the inputs", 1 / 6 if small else 1 / 15),
        (
            "seconds",
            "seconds forward and backward",
            1 / 1.5 if options.dtype == "float32" else 1 / 1.1,
        ),
    ):
        harness.emit_medians(
            options,
            *([run[key] for run in found[name]] for name in ("ours", "peer")),
            benchmark="contrastive_loss",
            metric=f"{metric}, {what}",
            peer_name="open_clip's ClipLoss, torch",
            reach=reach,
            loss_ours=found["ours"][0]["loss"],
            loss_peer=found["peer"][0]["loss"],
        )
    roofline, spread = harness.summary([run["roofline"] for run in found["ours"]])
    harness.emit(
        options.record,
        benchmark="contrastive_loss",
        metric=f"4 products / (time x matmul rate), {what}",
        ours=roofline,
        peer=1.0,
        peer_name="matmul rate of the same process",
        ratio=roofline,
        reach=0.7,
        spread_ours=spread,
        rounds=options.rounds,
        matmul_rate=harness.summary([run["matmul_rate"] for run in found["ours"]])[0],
    )


if __name__ == "__main__":
    main()
