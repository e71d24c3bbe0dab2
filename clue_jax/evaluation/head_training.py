"""How a head is trained: Adam with early stopping, for many folds and settings side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from clue_jax.config import TaskKind

LEARNING_RATE = {"linear": 2e-2, "mlp": 3e-3}
EVERY = 10  # steps between two looks at the validation loss
# Factors in a logit of products of users and items, and of the log of how often a user had an item;
# a head learns a share of each.
SHARPEST, MOST_LOYAL = 20.0, 10.0
PATIENCE = 6  # looks without a better loss before a head is done

SCALES = ("mean_F", "spread_F", "shift", "scale")  # of features and targets: never trained

Params = dict[str, Any]  # arrays, on the host or on the device


@dataclass(frozen=True)
class Spec:
    """The static part of a head."""

    kind: TaskKind
    outputs: int
    positions: int
    width: int  # of the hidden layer; 0: linear
    steps: int

    @property
    def rate(self) -> float:
        return LEARNING_RATE["mlp" if self.width else "linear"]


@partial(jax.jit, static_argnums=(0, 5))
def train_heads(
    spec: Spec,
    users_UF: jax.Array,
    rows_n: dict[str, jax.Array],
    arrays: dict[str, jax.Array],
    jobs: dict[str, jax.Array],
    together: int,
) -> tuple[jax.Array, Params]:
    """Trains a head for each of J jobs.

    Args:
        spec: the static part of all of them.
        users_UF: features of users.
        rows_n: columns of the rows: owner, target, action, position.
        arrays: `items_CG`, `prior_C`, `own_UH` and `own_log_UH` of a catalogue.
        jobs: columns of the jobs: batches, validation rows, scales, weight decay, key.
        together: jobs that are trained side by side.

    Returns:
        The least validation loss [J], and the parameters that had it, [J, ...] each.
    """

    def one(job: dict[str, jax.Array]) -> tuple[jax.Array, Params]:
        return _train(spec, users_UF, rows_n, arrays, job)

    return jax.lax.map(one, jobs, batch_size=together)


def _train(
    spec: Spec,
    users_UF: jax.Array,
    rows_n: dict[str, jax.Array],
    arrays: dict[str, jax.Array],
    job: dict[str, jax.Array],
) -> tuple[jax.Array, Params]:
    """One head from its start to its last step; gives the best one on the way and its loss."""
    fixed = {name: job[name] for name in SCALES}
    params = _start(spec, users_UF.shape[1], arrays, jax.random.wrap_key_data(job["key"]))
    adam = optax.adam(optax.cosine_decay_schedule(spec.rate, spec.steps))

    def loss(params: Params, rows_B: jax.Array) -> jax.Array:
        rows = {name: values[rows_B] for name, values in rows_n.items()}
        x_BF = users_UF[rows["owner"]]
        return row_losses(spec, params | fixed, x_BF, rows, arrays)

    def objective(params: Params, rows_B: jax.Array) -> jax.Array:
        squares = sum((values**2).sum() for name, values in params.items() if name.startswith("w"))
        return loss(params, rows_B).mean() + 0.5 * job["decay"] * squares

    def step(carry: Any, rows_B: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = adam.update(jax.grad(objective)(params, rows_B), state)
        return (optax.apply_updates(params, updates), state), None

    def look(carry: Any) -> Any:
        params, state, best, least, since, looks = carry
        (params, state), _ = jax.lax.scan(step, (params, state), job["rows_TB"][looks])
        weight_V = job["weight_V"]
        now = (loss(params, job["choose_V"]) * weight_V).sum() / weight_V.sum()
        better = now < least
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best)
        since = jnp.where(better, 0, since + 1)
        return params, state, best, jnp.where(better, now, least), since, looks + 1

    def goes_on(carry: Any) -> jax.Array:
        *_, since, looks = carry
        return (looks < len(job["rows_TB"])) & (since < PATIENCE)

    start = (params, adam.init(params), params, jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0))
    _, _, best, least, *_ = jax.lax.while_loop(goes_on, look, start)
    return least, best | fixed


def _start(spec: Spec, features: int, arrays: dict[str, jax.Array], key: jax.Array) -> Params:
    """Parameters that predict nothing but what is most common: the last layer is zero."""
    last = arrays["items_CG"].shape[1] if spec.kind is TaskKind.RETRIEVAL else spec.outputs
    params = {
        "w_out": jnp.zeros((spec.width or features, last)),
        "bias": jnp.zeros(last),
        "position": jnp.zeros(spec.positions),
        "popularity": jnp.ones(()),
        "repeat": jnp.zeros(()),
        "similarity": jnp.full((), 0.25),
    }
    if spec.width:
        scale = jnp.sqrt(2.0 / features)
        params["w_in"] = scale * jax.random.normal(key, (features, spec.width))
        params["bias_in"] = jnp.zeros(spec.width)
    return params


@partial(jax.jit, static_argnums=0)
def apply_head(
    spec: Spec, params: Params, x_BF: jax.Array, arrays: dict[str, jax.Array], owner_B: jax.Array
) -> jax.Array:
    """Outputs [B, K] of features that are not standardised yet."""
    raw_BF = x_BF
    x_BF = (x_BF - params["mean_F"][None, :]) / params["spread_F"][None, :]
    if spec.width:
        x_BF = jax.nn.relu(x_BF @ params["w_in"] + params["bias_in"][None, :])
    out_BK = x_BF @ params["w_out"] + params["bias"][None, :]
    if spec.kind is TaskKind.RETRIEVAL:
        out_BK = out_BK + SHARPEST * params["similarity"] * raw_BF
        out_BK = out_BK @ arrays["items_CG"].T
        out_BK = out_BK + params["popularity"] * arrays["prior_C"][None, :]
        had_BH = MOST_LOYAL * params["repeat"] * arrays["own_log_UH"][owner_B]
        row_B1 = jnp.arange(len(owner_B))[:, None]
        out_BK = out_BK.at[row_B1, arrays["own_UH"][owner_B]].add(had_BH, mode="drop")
    return out_BK


def row_losses(
    spec: Spec,
    params: Params,
    x_BF: jax.Array,
    rows: dict[str, jax.Array],
    arrays: dict[str, jax.Array],
) -> jax.Array:
    """Loss of each row, [B]."""
    out_BK = apply_head(spec, params, x_BF, arrays, rows["owner"])
    target_B = rows["target"]
    if spec.kind is TaskKind.REGRESSION:
        return (out_BK[:, 0] - (target_B - params["shift"]) / params["scale"]) ** 2
    if spec.kind in (TaskKind.MULTICLASS, TaskKind.RETRIEVAL):
        return optax.softmax_cross_entropy_with_integer_labels(out_BK, target_B)
    logit_B = out_BK[:, 0]
    if spec.kind is TaskKind.CLICKS:
        logit_B = jnp.take_along_axis(out_BK, rows["action"][:, None], axis=1)[:, 0]
        logit_B = logit_B + params["position"][rows["position"]]
    return optax.sigmoid_binary_cross_entropy(logit_B, target_B.astype(jnp.float32))
