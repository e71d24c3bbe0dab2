"""What a finished run is worth and what it took, by a protocol that is the same for all runs.

A longer history and fewer negatives make the matching itself easier. So every run is measured on
the same held-out users, with histories of one length and the same negatives, whatever it was
trained with; the figures with its own length and batch, as the paper reports them, stand beside.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from etils import epath
from scipy.special import logsumexp

from clue_jax.config import HeldOutConfig, PretrainConfig
from clue_jax.data.source import Dataset
from clue_jax.errors import DataError, NonFiniteError
from clue_jax.inference import embed_users
from clue_jax.model import clue
from clue_jax.model.sizes import parameter_count
from clue_jax.ranking import matching_ranks, mrr, recall_at
from clue_jax.scaling.results import PF_DAY
from clue_jax.training.checkpoint import NEWEST
from clue_jax.training.parameters import load_params
from clue_jax.training.trained import read_run
from clue_jax.training.validation import in_two_services

SCALES = np.geomspace(1.0, 300.0, 60)  # tried where the best temperature is asked for


def measured(workdir: epath.PathLike, dataset: Dataset, held_out: HeldOutConfig) -> dict[str, Any]:
    """Loss and retrieval on held-out users, compute and parameters of a finished run.

    Raises:
        DataError: too few held-out users have two services.
        CheckpointError: no run there, or none that is whole.
        NonFiniteError: its embeddings or its loss are not finite.
    """
    run = read_run(workdir)
    run.check_data(dataset)
    restored = load_params(
        run.workdir / "checkpoints", lambda: clue.init_run(run.config, run.vocab_size), NEWEST
    )
    params = restored.parts["params"]
    scale = math.exp(float(params["log_scale"]))
    table = dataset.users(held_out.split)
    users = table.take(in_two_services(table, held_out.min_behaviours, held_out.users))
    enough_NS = users.counts() >= held_out.min_behaviours
    encoder, config = params["encoder"], run.config
    reading = _reading(config, held_out.behaviours)
    fixed = Matching(embed_users(encoder, reading, users)[0], enough_NS, held_out)
    own = fixed
    if reading.encoder != config.encoder:
        own = Matching(embed_users(encoder, config, users)[0], enough_NS, held_out)
    own_negatives = min(config.train.batch_users, own.fewest) - 1
    loss, *others = fixed.losses([scale, *SCALES], held_out.negatives)
    return {
        "step": restored.step,
        "loss": loss,
        "loss_best_scale": min(others),
        "chance": math.log(held_out.negatives + 1),
        **fixed.retrieval(),
        "held_out_users": len(users),
        "loss_own": own.loss(scale, own_negatives),
        "negatives_own": own_negatives,
        "logit_scale": scale,
        "parameters": parameter_count(config.encoder, 0),
        "parameters_with_embedding": parameter_count(config.encoder, run.vocab_size),
        **_spent(run.workdir),
    }


class Matching:
    """Held-out users, through one service and through another.

    Args:
        z_NSE: unit vectors.
        enough_NS: whether a user counts in a service.
        held_out: the protocol.
    """

    def __init__(self, z_NSE: np.ndarray, enough_NS: np.ndarray, held_out: HeldOutConfig):
        rng = np.random.default_rng(held_out.seed)
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for first, second in combinations(range(enough_NS.shape[1]), 2):
            rows = np.flatnonzero(enough_NS[:, first] & enough_NS[:, second])
            rows = rng.permutation(rows)
            if len(rows) > held_out.negatives:
                self.pairs.append((z_NSE[rows, first], z_NSE[rows, second]))
        if not self.pairs:
            raise DataError(
                f"no two services share {held_out.negatives + 1} held-out users, as"
                f" config.held_out.negatives={held_out.negatives} needs"
            )
        self.fewest = min(len(z_NE) for z_NE, _ in self.pairs)

    def loss(self, scale: float, negatives: int) -> float:
        """Softmax loss in both directions among blocks of users, each with so many negatives.

        Raises:
            NonFiniteError: it is not finite.
        """
        return self.losses([scale], negatives)[0]

    def losses(self, scales: Sequence[float], negatives: int) -> list[float]:
        """`loss` for each of several scales."""
        found, size = [], negatives + 1
        for ours_NE, theirs_NE in self.pairs:
            blocks = len(ours_NE) // size
            ours_GBE, theirs_GBE = (
                z_NE[: blocks * size].reshape(blocks, size, -1).astype(np.float64)
                for z_NE in (ours_NE, theirs_NE)
            )
            cosines_GBB = np.einsum("gbe,gce->gbc", ours_GBE, theirs_GBE)
            found.append([_softmax_loss(scale * cosines_GBB) for scale in scales])
        losses = [float(loss) for loss in np.mean(found, axis=0)]
        if not np.isfinite(losses).all():
            raise NonFiniteError(f"the held-out loss is {losses[0]}: the run has diverged")
        return losses

    def retrieval(self) -> dict[str, float]:
        """Recall and MRR among all held-out users, mean over pairs and directions."""
        ranks = [
            matching_ranks(*views) for pair in self.pairs for views in (pair, (pair[1], pair[0]))
        ]
        of = {"recall_at_1": lambda r: recall_at(r, 1), "recall_at_10": lambda r: recall_at(r, 10)}
        return {
            name: float(np.mean([metric(r) for r in ranks]))
            for name, metric in (of | {"mrr": mrr}).items()
        }


def _reading(config: PretrainConfig, behaviours: int) -> PretrainConfig:
    """The run's config, for histories of another length."""
    encoder = dataclasses.replace(
        config.encoder,
        max_history=behaviours,
        row_behaviours=max(behaviours, config.encoder.row_behaviours),
    )
    return dataclasses.replace(config, encoder=encoder)


def _spent(workdir: epath.Path) -> dict[str, float]:
    """Compute in PF-days, as executed and as if every behaviour were read anew, and seconds."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    training = [row for row in rows if "split" not in row]
    return {
        "compute": sum(row["flops"] for row in training) / PF_DAY,
        "compute_dense": sum(row["dense_flops"] for row in training) / PF_DAY,
        "seconds": sum(row["step_seconds"] for row in training),
        "skipped": sum(row["skipped"] for row in training),
        "train_loss": training[-1]["loss"],
    }


def _softmax_loss(logits_GBB: np.ndarray) -> float:
    """Mean over both directions, the right one on the diagonal."""
    right_GB = np.einsum("gbb->gb", logits_GBB)
    return float(np.mean([(logsumexp(logits_GBB, axis) - right_GB).mean() for axis in (2, 1)]))
