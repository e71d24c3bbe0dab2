"""Downstream tasks on the synthetic logs, whose best reachable scores are known.

    python -m clue_jax export --workdir=runs/first --data=data/prepared --out=runs/first/before \\
        --config.cutoff=2024-11-26 --config.half_life_days=30
    python -m clue_jax export --workdir=runs/first --data=data/prepared --out=runs/first/items \\
        --config.what=items
    python -m clue_jax evaluate --config=configs/evaluate/tasks.py --embeddings=runs/first/before \\
        --config.downstream.items=runs/first/items \\
        --config.downstream.labels=data/synthetic/labels --out=runs/first/tasks

The cutoff is `label_cutoff` of the logs' manifest: an export that may have seen the labels is
refused. Heads are fitted, chosen and tested on users whom the encoder was not trained on, in folds.
For tasks of your own copy this file; a task is a Parquet table with a user and a label a row, and
here the names of its columns.

Variants:
  smoke    few steps, for tests
  trained  also encoders trained on the labels, from the run at `downstream.tune_from` and from
           random parameters, a few minutes more for each task on 2 cores; and boosted trees and
           alternating least squares, which need the extra `probes`:

    python -m clue_jax evaluate --config=configs/evaluate/tasks.py:trained \\
        --embeddings=runs/first/before --config.downstream.tune_from=runs/first \\
        --out=runs/first/trained
"""

from clue_jax.config import (
    FEATURES,
    MORE_FEATURES,
    MORE_HEADS,
    DownstreamConfig,
    EvaluateConfig,
    TaskConfig,
    TaskKind,
)
from clue_jax.errors import ConfigError

VARIANTS = ("", "smoke", "trained")
TASKS = (
    TaskConfig("subscribes", TaskKind.BINARY, "subscribes", label="subscribes", best="best"),
    TaskConfig("favourite", TaskKind.MULTICLASS, "favourite", label="favourite", best="best"),
    TaskConfig("spend", TaskKind.REGRESSION, "spend", label="spend", best="best"),
    TaskConfig("segment", TaskKind.AUDIENCE, "segment", label="segment", best="best", at=(20, 50)),
    TaskConfig(
        "next_item",
        TaskKind.RETRIEVAL,
        "next_item",
        label="item_id",
        service="shop",
        best="best",
    ),
    TaskConfig("clicks", TaskKind.CLICKS, "impressions", label="click", truth="true_clicks"),
)


def get_config(variant: str = "") -> EvaluateConfig:
    if variant not in VARIANTS:
        raise ConfigError(
            f"configs/evaluate/tasks.py:{variant}: no such variant; use none, smoke or trained"
        )
    downstream = DownstreamConfig(labels="data/synthetic/labels", tasks=TASKS)
    downstream.items = "runs/first/items"
    downstream.features = FEATURES
    if variant == "smoke":
        downstream.steps, downstream.bootstrap, downstream.rank = 20, 50, 8
        downstream.sasrec_steps = 5
        downstream.heads, downstream.weight_decays = ("linear", "knn"), (1e-2,)
        downstream.neighbours = (5,)
    if variant == "trained":
        downstream.tune_from = "runs/first"
        downstream.features = FEATURES + MORE_FEATURES
        downstream.heads += MORE_HEADS
    return EvaluateConfig(suites=("downstream",), downstream=downstream)
