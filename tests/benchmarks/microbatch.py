"""What chunks cost in time, and save in memory (row 6).

    python tests/benchmarks/microbatch.py --record

Time: the step in chunks against the plain step, which computes all rows at once and keeps their
products with weights (faster here than to keep every activation). Theory for recomputing the
forward once: 4/3. Memory: temporaries of the step when 1, 2,
4 and 8 times as many chunks of the same size are computed.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

from clue_jax.model import clue
from clue_jax.model.chunked import Chunks, Transfer
from tests.benchmarks import harness, workloads
from tests.benchmarks.steps import bench, config_of

ROWS = 32  # of 64 tokens in a chunk; items are 16 tokens long, four to a row


def at_once(compute, shared, lookup_XD, chunks: Chunks, rows: int, transfer: Transfer) -> jax.Array:
    """The only chunk in use, plainly differentiated: its activations wait for the way back."""
    shared, lookup_XD = transfer.gather((shared, lookup_XD))
    index, fixed = jax.tree.map(lambda a: a[0], (chunks.index, chunks.fixed))
    return compute(shared, lookup_XD[index], fixed)[:rows]


def side(name: str, users: int, width: int) -> dict:
    count = workloads.uniform_users(users, histories=8, tokens=16)
    rows = ROWS
    if name == "plain":
        clue.table_of_chunks = at_once
        rows = users * 2 * 8 * 16 // 64
    config = config_of(
        width,
        4,
        users,
        item_rows=rows,
        history_rows=rows // 4,
    )
    step = bench(config, count)
    in_use = int(step.batch.packed.num_item_chunks[0])
    assert (in_use == 1) == (name == "plain"), in_use
    return {"seconds": step.seconds(3), "temporary_bytes": step.temporary_bytes}


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--side", choices=("ours", "plain"), help="one process of it")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(options.side, options.users, options.width)))
        return
    flags = [f"--users={options.users}", f"--width={options.width}"]
    sides = {n: [sys.executable, __file__, f"--side={n}", *flags] for n in ("ours", "plain")}
    found = harness.interleaved(sides, options.rounds)
    shape = f"{options.users} users, width {options.width}, 4 + 4 layers"
    bytes_ours, bytes_plain = (found[n][0]["temporary_bytes"] for n in ("ours", "plain"))
    harness.emit_medians(
        options,
        *([run["seconds"] for run in found[name]] for name in ("ours", "plain")),
        benchmark="microbatch",
        metric=f"seconds of a step in chunks / all at once, {shape}",
        peer_name="all rows at once, products with weights kept",
        reach=1.36,
        bytes_ours=bytes_ours,
        bytes_peer=bytes_plain,
    )
    memory(options)


def memory(options) -> None:
    """Temporaries as the batch, and with it the number of chunks, grows."""
    sizes = {}
    for times in (1, 2, 4, 8):
        users = options.users * times
        config = config_of(options.width, 4, users, item_rows=ROWS, history_rows=ROWS // 4)
        step = bench(config, workloads.uniform_users(users, histories=8, tokens=16))
        sizes[users] = step.temporary_bytes
    first, last = sizes[options.users], sizes[8 * options.users]
    harness.emit(
        options.record,
        benchmark="microbatch",
        metric=f"temporary bytes, {8 * options.users} users / {options.users}, same chunks",
        ours=last,
        peer=first,
        peer_name=f"{options.users} users",
        ratio=last / first,
        reach=1.05,
        bytes_by_users=sizes,
    )


if __name__ == "__main__":
    main()
