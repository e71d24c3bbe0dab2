"""Train step against PyTorch: HF BertModel, nn.TransformerEncoder, ClipLoss, AdamW (row 8).

    python tests/benchmarks/train_step.py --record

`same batches`: every text distinct and equally long, so padding and packing are the same work and
the arithmetic alone is compared. `our batches`: logs whose items repeat and are uneven; the peer
encodes the padded tensor, as one does without packing.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from clue_jax.config import Precision
from clue_jax.data.records import Users
from clue_jax.data.sampling import full_views
from tests.benchmarks import harness, workloads
from tests.benchmarks.steps import bench, config_of

PEER = Path(__file__).parent / "peers" / "torch_clue.py"
REACH = {"same batches": 1.0, "our batches": 3.0}


def users_of(case: str, count: int) -> Users:
    """At 64 users the peer takes 10 GB; a batch of a real run would not fit it."""
    if case == "same batches":
        return workloads.uniform_users(count, histories=8, tokens=16)
    return workloads.zipf_users(count)


def side(case: str, options) -> dict:
    users = users_of(case, options.users)
    step = bench(configure(options), users)
    rate = harness.matmul_rate(options.dtype)
    seconds = step.seconds(options.steps, warmup=2)
    stats = step.batch.stats
    return {
        "users_per_second": options.users / seconds,
        "matmul_rate": rate,
        "slots": stats["token_slots"],
        "tokens": stats["tokens"],
    }


def configure(options):
    return config_of(
        options.width, options.layers, options.users, precision=Precision(options.dtype)
    )


def compare(case: str, options, folder: str) -> None:
    users, config = users_of(case, options.users), configure(options)
    batch = f"{folder}/{case.replace(' ', '_')}.npz"
    workloads.padded_npz(
        users, full_views(users, config.encoder.max_history), config.encoder, batch
    )
    flags = [f"--{n}={getattr(options, n)}" for n in ("width", "dtype", "steps")]
    ours = [sys.executable, __file__, "--case", case, f"--layers={options.layers}"]
    ours += [f"--users={options.users}", *flags]
    theirs = [
        harness.peer_python(),
        str(PEER),
        batch,
        *flags,
        "--warmup=2",
        f"--device={options.device}",
    ]
    theirs += [f"--heads={options.width // 64}", f"--mlp_width={4 * options.width}"]
    theirs += [f"--embedding_width={options.width}", f"--vocab={workloads.VOCABULARY}"]
    theirs += [f"--item_layers={options.layers}", f"--service_layers={options.layers}"]
    theirs += ["--compile"] * options.compile
    found = harness.interleaved({"ours": ours, "peer": theirs}, options.rounds)
    rates = [harness.summary([run["matmul_rate"] for run in found[n]])[0] for n in ("ours", "peer")]
    harness.emit_medians(
        options,
        *([run["users_per_second"] for run in found[name]] for name in ("ours", "peer")),
        benchmark="train_step",
        metric=f"users/s, {case}, {options.users} users, width {options.width}, {options.layers} +"
        f" {options.layers} layers, {options.dtype}",
        peer_name=f"torch, padded{', compiled' if options.compile else ''}",
        reach=REACH[case],
        matmul_rate_ours=rates[0],
        matmul_rate_peer=rates[1],
        slots_ours=found["ours"][0]["slots"],
        slots_peer=found["peer"][0]["slots"],
    )


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4, help="of each level")
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=[p.value for p in Precision])
    parser.add_argument("--device", default="cpu", help="of the peer: cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the peer")
    parser.add_argument("--case", choices=list(REACH), help="one process of our side")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(side(options.case, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for case in REACH:
            compare(case, options, folder)


if __name__ == "__main__":
    main()
