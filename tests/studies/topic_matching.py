"""What a scaling study's held-out loss would be for a reader of the items' true topics.

    python tests/studies/topic_matching.py --logs=data/scaling/logs --data=data/scaling/prepared

The protocol is that of configs/scaling/cpu.py: the same people, behaviours and negatives, and the
best temperature. A history is the shares of its topics, to the power that is best for it, times
the rarity of each; nothing is learnt. One JSON line; seconds.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from clue_jax import cli_config
from clue_jax.composition import unit
from clue_jax.config import ScaleConfig
from clue_jax.data.source import open_dataset
from clue_jax.scaling.measure import SCALES, Matching
from clue_jax.training.validation import in_two_services
from tests.studies.topic_reader import true_topics

ROOT = Path(__file__).parents[2]
POWERS = (0.25, 0.5, 1.0)


def topic_counts(dataset, users, topic_of, behaviours):
    """Behaviours of each true topic among the newest of each service, [N, S, topics]."""
    services = len(users.services)
    counts = np.zeros((len(users), services, max(topic_of.values()) + 1))
    items, offsets = dataset.items(), users.behaviour_offsets
    for user in range(len(users)):
        own = users.item_ids[users.item_offsets[user] : users.item_offsets[user + 1]]
        topics = np.array([topic_of[i] for i in items.source_ids[items.lookup(own)]])
        for service in range(services):
            first, last = offsets[user * services + service : user * services + service + 2]
            read = users.behaviour_items[first:last][-behaviours:]
            np.add.at(counts[user, service], topics[read], 1.0)
    return counts


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("logs", "data"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args(arguments)
    plan = cli_config.read_config(str(ROOT / "configs/scaling/cpu.py"), ScaleConfig)
    held_out, dataset = plan.held_out, open_dataset(given.data)
    table = dataset.users(held_out.split)
    users = table.take(in_two_services(table, held_out.min_behaviours, held_out.users))
    topic_of = true_topics(given.logs)
    counts_NSK = topic_counts(dataset, users, topic_of, held_out.behaviours)
    rarity_K = -np.log((counts_NSK.sum(axis=(0, 1)) + 1.0) / counts_NSK.sum())
    enough_NS = users.counts() >= held_out.min_behaviours
    found = {}
    for power in POWERS:
        z_NSK = unit(counts_NSK**power * rarity_K)
        matching = Matching(z_NSK.astype(np.float32), enough_NS, held_out)
        loss = min(matching.losses(SCALES, held_out.negatives))
        found[loss] = {"power": power, "loss": loss, **matching.retrieval()}
    print(json.dumps(found[min(found)] | {"users": len(users)}))


if __name__ == "__main__":
    main()
