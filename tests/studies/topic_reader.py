"""How far could anybody get who reads the synthetic histories? The true topics of what users did.

    python tests/studies/topic_reader.py --logs=data/synthetic --embeddings=runs/first/before \\
        --revision=$(git rev-parse --short HEAD) --date=TODAY

best.json knows the interests of the labels' month, which no history shows. This gives the heads of
`evaluate` what the export could see, as shares of the items' true topics, over the whole history or
with weights that halve every 60 days. One JSON line a task and kind of features; minutes on a core.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow.parquet as pq

from clue_jax import cli_config
from clue_jax.config import EvaluateConfig, TaskKind
from clue_jax.embeddings.reader import read_embeddings
from clue_jax.evaluation import downstream, task_results
from clue_jax.evaluation.heads import Features
from clue_jax.evaluation.predictions import choose, predict

ROOT = Path(__file__).parents[2]
HALF_LIVES = (0.0, 60.0)  # days; 0: the whole history alike
DAY_SECONDS = 86_400


def read_config(logs):
    """The tasks of configs/evaluate/tasks.py that need no items."""
    config = cli_config.read_config(str(ROOT / "configs/evaluate/tasks.py"), EvaluateConfig)
    found = config.downstream
    found.labels, found.items, found.features = str(Path(logs) / "labels"), "", ("clue",)
    found.heads = ("linear", "knn")
    kinds = (TaskKind.RETRIEVAL, TaskKind.CLICKS)
    found.tasks = tuple(task for task in found.tasks if task.kind not in kinds)
    return config


def true_topics(logs):
    """Item id of the logs -> its true topic."""
    latent = pq.read_table(Path(logs) / "latents" / "items.parquet").to_pydict()
    return dict(zip(latent["item_id"], latent["topic"], strict=True))


def topic_shares(people, topic_of, half_life):
    """Shares of true topics in what the export could see of each held-out user, [N, topics]."""
    users, items = people.seen, people.dataset.items()
    lengths = np.diff(users.behaviour_offsets[:: len(users.services)])
    owner = np.repeat(np.arange(len(users)), lengths)
    own = users.item_offsets[owner] + users.behaviour_items
    source_ids = items.source_ids[items.lookup(users.item_ids[own])]
    topic = np.array([topic_of[source_id] for source_id in source_ids])
    last = np.zeros(len(users), np.int64)
    np.maximum.at(last, owner, users.behaviour_times)
    age = (last[owner] - users.behaviour_times) / DAY_SECONDS
    shares = np.zeros((len(users), max(topic_of.values()) + 1))
    np.add.at(shares, (owner, topic), np.exp2(-age / half_life) if half_life else 1.0)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def rows(config, logs, embeddings):
    """A row a task and kind of features: values of all metrics."""
    tasks = downstream.read_tasks(config, read_embeddings(embeddings))
    topic_of = true_topics(logs)
    for half_life in HALF_LIVES:
        features = Features(topic_shares(tasks.people, topic_of, half_life))
        for inputs in tasks.inputs:
            found = predict(inputs, features, config.downstream, config.seed)
            every = np.arange(len(inputs.labels))
            scored = task_results.score(inputs, choose(inputs, found).values, every, every)
            values = scored.statistic(np.ones((1, len(every))))[0].tolist()
            yield {
                "task": inputs.task.name,
                "half_life_days": half_life,
                "n": len(every),
                **dict(zip(scored.metrics, values, strict=True)),
            }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("logs", "embeddings", "revision", "date"):
        parser.add_argument(f"--{name}", required=name in ("logs", "embeddings"), default="")
    given = parser.parse_args(arguments)
    for row in rows(read_config(given.logs), given.logs, given.embeddings):
        print(json.dumps(row | {"revision": given.revision, "date": given.date}), flush=True)


if __name__ == "__main__":
    main()
