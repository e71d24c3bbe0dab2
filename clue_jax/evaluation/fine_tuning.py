"""The whole encoder trained end to end on a task's labels: `fine_tuned` and `text_transformer`.

    fine_tuned        from the parameters of the run that made the export, with a linear head that
                      starts as the best one on frozen vectors: a head that knows nothing would
                      first spoil what was pretrained (Kumar et al. 2022, "Fine-Tuning can Distort
                      Pretrained Features and Underperform Out-of-Distribution")
    text_transformer  the same architecture from random parameters and an empty head, trained for
                      the task alone: a sequence of behaviours as texts, a Transformer, the task
                      (as BST, arXiv 1905.06874, with texts in place of ids)

The vector of a user is that of the export: the mean over services, of length one, with the weights
that its half-life gives. Histories are those that the export could see. Folds are those of heads:
of a fold the encoder learns from the fitted users, and learning rate and step are those of the
least loss on the validation users, whom it never learns from; the start counts as step 0.

RETRIEVAL is for `fine_tuned` alone: the vectors of the items are those of their export and stay as
they are. From random parameters there are no such vectors, and a few hundred labels cannot teach
them; what is trained from scratch there is SASRec.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clue_jax.config import DownstreamConfig, PretrainConfig, from_json
from clue_jax.console import say
from clue_jax.data.ragged import offsets_of, rows_at
from clue_jax.evaluation.folds import Fold
from clue_jax.evaluation.head_training import SCALES, Params, Spec, row_losses
from clue_jax.evaluation.heads import Features, Fitted, Problem, arrays_of, fit
from clue_jax.evaluation.maker import encoder_that_made
from clue_jax.evaluation.people import People
from clue_jax.evaluation.targets import TaskInputs
from clue_jax.evaluation.tuned_encoder import ADAM, Step, TunedEncoder
from clue_jax.model import clue

FINE_TUNED, TEXT_TRANSFORMER = "fine_tuned", "text_transformer"
EVERY, PATIENCE = 10, 2  # steps between looks at the validation loss; looks in vain
TRIAL = 2  # looks, after which one learning rate is left
MOST_CHOOSING = 1_024  # validation rows of a fold that are looked at


class Tuner:
    """Trains encoders for tasks; see the top of this file.

    Args:
        people: whose visible behaviours are read.

    Raises:
        CheckpointError: no run at `downstream.tune_from`, or not the export's checkpoint there.
        DataError: the encoder there is another one than the export's.
    """

    def __init__(self, people: People):
        self._people, self._config = people, people.config.downstream
        manifest = people.export.manifest
        pretrain = from_json(PretrainConfig, manifest["config"], "the export's config")
        half_life = float(manifest.get("half_life_days") or 0.0)
        given = people.seen, self._config.tune_users, half_life
        self._encoder = TunedEncoder(pretrain.encoder, *given)
        self._starts: dict[str, clue.Params] = {}
        if FINE_TUNED in self._config.features:
            path = self._config.tune_from
            made = encoder_that_made(people.export, path, "downstream.tune_from")
            self._starts[FINE_TUNED] = made.params
        if TEXT_TRANSFORMER in self._config.features:
            key = jax.random.key(people.config.seed)
            vocab_size = people.dataset.tokenizer.vocab_size
            self._starts[TEXT_TRANSFORMER] = clue.init(pretrain.encoder, vocab_size, key)

    def __call__(self, name: str, inputs: TaskInputs) -> Fitted | None:
        """The encoder of each fold with its head; None: the model is not for that kind of task."""
        catalogue = inputs.catalogue
        if catalogue is not None and name == TEXT_TRANSFORMER:
            return None
        say(f"training {name}")
        return tune(
            self._encoder,
            self._starts[name],
            inputs.problem,
            self._config,
            self._people.config.seed,
            warm=name == FINE_TUNED,
            items_CE=None if catalogue is None else catalogue.embedding_CE,
        )


# ------------------------------------------------------------------------------------ training


def tune(
    encoder: TunedEncoder,
    params: clue.Params,
    problem: Problem,
    config: DownstreamConfig,
    seed: int,
    *,
    warm: bool,
    items_CE: np.ndarray | None = None,
) -> Fitted:
    """Trains encoder and head on each fold.

    Args:
        encoder: of the N users that owners of rows are places among.
        params: that the encoder starts from.
        problem: what to fit.
        config: steps and learning rates.
        seed: of batches and of the head on frozen vectors.
        warm: the head starts as that on frozen vectors, not as one that knows nothing.
        items_CE: vectors of the catalogue of RETRIEVAL.

    Returns:
        Of each fold the head, and as features what its encoder makes of the users whom it neither
        learnt from nor leaves out.
    """
    frozen = Features(_vectors(encoder, params, np.unique(problem.owner_n)), items_CE)
    start = fit("linear", problem, frozen, config, seed)
    arrays = arrays_of(problem, frozen)
    losses, heads, features = [], [], []
    for number, fold in enumerate(problem.folds):
        head = start.params[number]
        fixed = {name: head[name] for name in SCALES}
        learnt = {name: jnp.asarray(head[name]) for name in head if name not in SCALES}
        if not warm:
            learnt = jax.tree.map(jnp.zeros_like, learnt)
        one = _Fold(encoder, problem, fold, start.specs[number], fixed, arrays)
        loss, trained = one.train({"encoder": params, "head": learnt}, config, [seed, number])
        users = np.unique(problem.owner_n[np.concatenate([fold.choose, fold.predict])])
        losses.append(loss)
        heads.append(fixed | jax.tree.map(np.asarray, trained["head"]))
        features.append(Features(_vectors(encoder, trained["encoder"], users), items_CE))
    return Fitted(tuple(losses), start.specs, tuple(heads), problem, tuple(features))


def _vectors(encoder: TunedEncoder, params: clue.Params, places: np.ndarray) -> np.ndarray:
    """[N, E], zero but for some of the users; memory nobody writes to is never taken."""
    x_NE = np.zeros((len(encoder.users), encoder.config.embedding_width), np.float32)
    x_NE[places] = encoder.vectors(params, places)
    return x_NE


class _Run:
    """One learning rate, which is warmed up and decays with a cosine."""

    def __init__(self, start: Params, rate: float, steps: int):
        warm = max(1, steps // 10)
        self._schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warm, steps + 1)
        self._state, self._number, self.trained = ADAM.init(start), 0, start
        self.best, self.since = (np.inf, start), 0

    def update(self, step: Step, given: tuple[Any, ...]) -> None:
        """Learns from a batch."""
        self._number += 1
        rate = float(self._schedule(self._number))
        self.trained, self._state = step(self.trained, self._state, rate, *given)

    def look(self, loss: float) -> None:
        """Takes note of the validation loss."""
        better = loss < self.best[0]
        self.best = (loss, self.trained) if better else self.best
        self.since = 0 if better else self.since + 1


class _Fold:
    """What one fold is trained on and chosen by."""

    def __init__(
        self,
        encoder: TunedEncoder,
        problem: Problem,
        fold: Fold,
        spec: Spec,
        fixed: Params,
        arrays: Params,
    ):
        self.encoder, self.spec, self.fixed, self.arrays = encoder, spec, fixed, arrays
        self.batches = Batches(problem, fold.fit, encoder.batch_users)
        rows = fold.choose[:MOST_CHOOSING]
        self.choosing, self.seat = np.unique(problem.owner_n[rows], return_inverse=True)
        self.columns = {name: values[rows] for name, values in problem.columns.items()}

    def train(
        self, start: Params, config: DownstreamConfig, seed: list[int]
    ) -> tuple[float, Params]:
        """The least validation loss over all learning rates and steps, and what has it.

        All rates learn from the same batches, and after `TRIAL` looks only the best one goes on.
        """
        first = self._loss(start), start
        runs = [_Run(start, rate, config.tune_steps) for rate in config.tune_learning_rates]
        batches = self.batches.draw(np.random.default_rng(seed))
        for number in range(1, config.tune_steps + 1):
            users, rows = next(batches)
            given = self.fixed, self.encoder.packed(users), rows, self.arrays
            for run in runs:
                run.update(self.encoder.step(self.spec), given)
            if number % EVERY == 0 or number == config.tune_steps:
                for run in runs:
                    run.look(self._loss(run.trained))
                if number >= TRIAL * EVERY:
                    runs = [min(runs, key=lambda run: run.best[0])]
                if all(run.since >= PATIENCE for run in runs):
                    break
        return min(first, *(run.best for run in runs), key=lambda found: found[0])

    def _loss(self, trained: Params) -> float:
        """Mean loss of the validation rows."""
        x_UE = self.encoder.vectors(trained["encoder"], self.choosing)
        head = trained["head"] | self.fixed
        return float(_mean_loss(self.spec, head, x_UE[self.seat], self.columns, self.arrays))


@partial(jax.jit, static_argnums=0)
def _mean_loss(
    spec: Spec, head: Params, x_RE: jax.Array, rows: Params, arrays: Params
) -> jax.Array:
    return row_losses(spec, head, x_RE, rows, arrays).mean()


class Batches:
    """Batches of users with all of their rows, in buffers of one size.

    Args:
        problem: whose rows.
        rows: those that are learnt from.
        users: of a batch, at most.
    """

    def __init__(self, problem: Problem, rows: np.ndarray, users: int):
        owner = problem.owner_n[rows]
        self._users, counts = np.unique(owner, return_counts=True)
        self._rows = rows[np.argsort(owner, kind="stable")]
        self._offsets = offsets_of(counts)
        self._columns = problem.columns
        self.size = min(users, len(self._users))
        self._most = int(np.sort(counts)[-self.size :].sum())

    def draw(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Params]]:
        """Without end, pass by pass: places of `size` users, none twice; columns of their rows."""
        while True:
            order = rng.permutation(len(self._users))
            # Those that a whole batch lacks take part in another pass.
            for some in order[: len(order) // self.size * self.size].reshape(-1, self.size):
                where, counts = rows_at(self._offsets, some)
                rows = {name: values[self._rows[where]] for name, values in self._columns.items()}
                rows["seat"] = np.repeat(np.arange(self.size, dtype=np.int32), counts)
                rows["weight"] = np.ones(len(where), np.float32)
                spare = 0, self._most - len(where)
                yield self._users[some], {name: np.pad(v, spare) for name, v in rows.items()}
