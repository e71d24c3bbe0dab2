"""How evenly computed chunks lie on 8 devices: most / mean (row 15).

    python tests/benchmarks/balance.py --record

Counted, not timed: no device is needed but the host's share of packing. Beside ours: users dealt in
the order in which they were drawn.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np

from clue_jax.config import MeshConfig
from clue_jax.data import batches
from clue_jax.data.records import Users
from clue_jax.parallel.mesh import make_mesh
from tests.benchmarks import harness, workloads
from tests.benchmarks.steps import FINGERPRINT, config_of

REACH = 1.05
DEVICES, PER_DEVICE, STEPS = 8, 128, 8


def imbalance(users: Users, per_device: int) -> float:
    """Most / mean computed slots over the devices, summed over some steps."""
    config = config_of(256, 4, DEVICES * per_device, item_rows=16, history_rows=16)
    mesh = make_mesh(MeshConfig())
    source = batches.Source("users", FINGERPRINT, users)
    dealt = batches.TrainBatches([source], config, mesh)
    stats = [dealt.host_batch(step)[1] for step in range(STEPS)]
    return DEVICES * sum(s["busiest_slots"] for s in stats) / sum(s["block_slots"] for s in stats)


def in_order(loads: np.ndarray, devices: int) -> np.ndarray:
    """The deal without balance."""
    return np.arange(len(loads)).reshape(devices, -1)


def main() -> None:
    parser = harness.options(__doc__)
    options = parser.parse_args()
    for mean in (30.0, 100.0):
        users = workloads.zipf_users(2 * DEVICES * PER_DEVICE, mean_behaviours=mean)
        ours, balanced = imbalance(users, PER_DEVICE), batches.deal
        batches.deal = in_order
        peer = imbalance(users, PER_DEVICE)
        batches.deal = balanced
        harness.emit(
            options.record,
            benchmark="balance",
            metric=f"most / mean computed slots, {DEVICES} devices x {PER_DEVICE} zipf users of"
            f" {mean:.0f} behaviours a service, {STEPS} steps",
            ours=ours,
            peer=peer,
            peer_name="users in the order drawn",
            ratio=(peer - 1) / (ours - 1) if ours > 1 else None,
            reach=REACH,
        )


if __name__ == "__main__":
    main()
