"""Token slots that reach the Item Transformer for each real token of a distinct item (row 7).

    python tests/benchmarks/encoder_density.py --record

Counted, not timed. Beside ours: the padded tensor, de-duplication alone (every distinct item in a
row of its own, padded to the longest), and length buckets (rows of a multiple of 8).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from clue_jax.data.capacity import capacity_for
from clue_jax.data.packing import pack_views
from clue_jax.data.records import Users
from clue_jax.data.sampling import full_views
from clue_jax.data.source import open_dataset
from tests.benchmarks import harness, workloads
from tests.benchmarks.steps import config_of

REACH = 1.15
USERS = 1_024


def slots(users: Users) -> dict[str, float]:
    """Slots per real token of each way to lay the same views out."""
    config = config_of(256, 4, len(users)).encoder
    views = full_views(users, config.max_history)
    capacity = capacity_for(users, config, len(users), views.num_views)
    _, stats = pack_views(users, views, capacity, config)
    _, first = np.unique(users.item_ids[views.items], return_index=True)
    lengths = np.minimum(np.diff(users.token_offsets), config.max_item_tokens)[views.items[first]]
    longest_view = np.diff(views.offsets).max()
    rows = len(users) * views.num_views * longest_view
    return {
        "ours": stats["token_slots"] / stats["tokens"],
        "padded": rows * lengths.max() / stats["tokens"],
        "distinct": len(lengths) * lengths.max() / stats["tokens"],
        "buckets": float((-(-lengths // 8) * 8).sum()) / stats["tokens"],
        "tokens": stats["tokens"],
        "items": stats["items"],
        "behaviours": stats["behaviours"],
    }


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--data", nargs="*", default=[], help="prepared datasets to count as well")
    options = parser.parse_args()
    cases = {
        f"zipf logs of {n} services": workloads.zipf_users(
            USERS, services=("search", "shop", "news")[:n], mean_behaviours=30.0
        )
        for n in (2, 3)
    }
    for folder in options.data:
        dataset = open_dataset(folder)
        cases[dataset.manifest["name"]] = dataset.users("train").take(np.arange(USERS))
    for name, users in cases.items():
        found = slots(users)
        ours = found.pop("ours")
        harness.emit(
            options.record,
            benchmark="encoder_density",
            metric=f"token slots / real token, {USERS} users, {name}",
            ours=ours,
            peer=found["padded"],
            peer_name="padded [users, views, behaviours, tokens]",
            ratio=found["padded"] / ours,
            reach=REACH,
            **found,
        )


if __name__ == "__main__":
    main()
