"""Checkpoints of pytrees through Orbax: asynchronous, rotated, best kept, verified when read.

`params` and `optimizer` are stored apart, so that export reads one without knowing the other.
Beside them lies a fingerprint of every leaf's bits, which does not depend on how leaves are
sharded; it is compared after a restore, because a flipped bit may otherwise come back silently.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from orbax.checkpoint import v1 as ocp

from clue_jax.console import say
from clue_jax.errors import CheckpointError, NonFiniteError, StorageError

Tree = Any
NEWEST, BEST = -1, -2

# Orbax raises what goes wrong, after each of its threads has logged it with its whole stack.
logging.getLogger("absl").addFilter(
    lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname
)


class Restored(NamedTuple):
    step: int
    parts: dict[str, Tree]  # as asked for: "params", "optimizer"
    fingerprint: str  # of "params"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: created on the first save.
        keep: newest ones to keep.
        keep_best: best ones to keep by `metric`, higher is better.
        metric: key of the metrics given to `save`.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep: int = 1,
        keep_best: int = 0,
        metric: str = "recall_at_10",
    ):
        self.directory = epath.Path(directory)
        self.metric = metric
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[metric],
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        self._orbax = ocp.training.Checkpointer(
            self.directory.resolve(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        )

    def steps(self) -> list[int]:
        """Committed steps, oldest first."""
        return [c.step for c in self._orbax.checkpoints]

    def best_step(self) -> int | None:
        """The step with the highest metric, if any has one."""
        scored = [c for c in self._orbax.checkpoints if c.metrics and self.metric in c.metrics]
        return max(scored, key=lambda c: c.metrics[self.metric]).step if scored else None

    def save(self, step: int, parts: dict[str, Tree], metrics: dict[str, float] | None) -> None:
        """Starts writing a checkpoint; the caller may change its arrays as soon as this returns.

        Raises:
            NonFiniteError: a leaf is not finite; names it, and nothing is written.
            StorageError: this save, or the one before it, could not be written.
        """
        _refuse_nonfinite(self.directory, step, parts)
        info = {"step": step, "fingerprints": {k: fingerprint(v) for k, v in parts.items()}}
        try:
            self._orbax.save_checkpointables_async(
                step, {**parts, "info": info}, metrics=metrics, overwrite=True
            )
        except (OSError, ValueError) as error:
            raise StorageError(_unwritable(self.directory, error)) from error

    def check(self) -> None:
        """Tells at once, without waiting, of a save in the background that has failed.

        Raises:
            StorageError: it could not be written.
        """
        if not self._orbax.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when everything that was saved is on disk.

        Raises:
            StorageError: it could not be written.
        """
        try:
            self._orbax.wait()
        except (OSError, ValueError) as error:
            raise StorageError(_unwritable(self.directory, error)) from error

    def close(self) -> None:
        self._orbax.close()

    def restore(self, abstract: dict[str, Tree], step: int = NEWEST) -> Restored | None:
        """Reads the newest good checkpoint, the best one, or a given one; None when there is none.

        Args:
            abstract: `ShapeDtypeStruct` trees with shardings, by part.
            step: NEWEST, BEST or a step.

        Raises:
            CheckpointError: there are checkpoints, but none that is asked for is whole.
        """
        steps = self.steps()[::-1]
        if not steps:
            return None
        if step == BEST:
            step = self.best_step() or steps[0]
        wanted = steps if step == NEWEST else [step]
        problems = []
        for candidate in wanted:
            try:
                return self._restore(candidate, abstract)
            except CheckpointError as error:
                say(f"{error}")
                problems.append(str(error))
        raise CheckpointError(
            f"{self.directory}: no usable checkpoint among steps {wanted} (there are {steps}):"
            f" {'; '.join(problems)}"
        )

    def _restore(self, step: int, abstract: dict[str, Tree]) -> Restored:
        where = self.directory / str(step)
        try:
            loaded = self._orbax.load_checkpointables(step, {**abstract, "info": None})
        except Exception as error:  # Orbax raises many kinds for a damaged or different tree
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise CheckpointError(f"{where}: cannot be read: {reason}") from error
        info = loaded.pop("info")
        if info["step"] != step:
            raise CheckpointError(f"{where}: holds step {info['step']}; it was renamed or copied")
        for part, tree in loaded.items():
            found, saved = fingerprint(tree), info["fingerprints"][part]
            changed = [path for path in saved if found.get(path) != saved[path]]
            if changed or set(found) != set(saved):
                raise CheckpointError(
                    f"{where}: damaged or of another model: {part}{changed[0] if changed else ''}"
                    " does not have the bits that were saved"
                )
        return Restored(step, loaded, summary(info["fingerprints"]["params"]))


def fingerprint(tree: Tree) -> dict[str, str]:
    """A 64-bit sum of every leaf's bits, weighted by position: equal on any topology."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    words = jax.device_get(_fingerprints([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): f"{int(high):08x}{int(low):08x}"
        for (path, _), (high, low) in zip(leaves, words, strict=True)
    }


def summary(fingerprints: dict[str, str]) -> str:
    """One word for all leaves, independent of their order."""
    total = 0
    for path, word in sorted(fingerprints.items()):
        for byte in path.encode() + bytes.fromhex(word):
            total = ((total ^ byte) * 0x100000001B3) % (1 << 64)  # FNV-1a
    return f"{total:016x}"


def _refuse_nonfinite(directory: epath.Path, step: int, parts: dict[str, Tree]) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(parts)
    finite = jax.device_get(_all_finite([leaf for _, leaf in leaves]))
    for (path, _), good in zip(leaves, finite, strict=True):
        if not good:
            raise NonFiniteError(
                f"{directory / str(step)}: not written, since {jax.tree_util.keystr(path)} is not"
                " finite; continue from an earlier checkpoint with a lower"
                " config.optim.learning_rate"
            )


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]


@jax.jit
def _fingerprints(leaves: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [(_weighted(leaf, 0x9E3779B1), _weighted(leaf, 0x85EBCA77)) for leaf in leaves]


def _weighted(leaf: jax.Array, factor: int) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
    flat = bits.reshape(-1)
    place = jax.lax.iota(jnp.uint32, flat.size) * jnp.uint32(factor) + jnp.uint32(1)
    # Wrapping sums commute, so any sharding and any order give the same word.
    return jnp.sum((flat ^ (flat >> 15)) * jnp.uint32(factor) * (place | 1), dtype=jnp.uint32)


_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def _unwritable(directory: epath.Path, error: Exception) -> str:
    return (
        f"{directory}: a checkpoint could not be written ({error}); earlier ones are intact; make"
        " room and run the same command again"
    )


def load_params(
    directory: epath.PathLike,
    make: Callable[[], Tree],
    step: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Restored:
    """Reads only the parameters, all of them onto the same devices.

    Args:
        directory: of the checkpoints.
        make: () -> params, traced for shapes only.
        step: NEWEST, BEST or a step.
        sharding: of every parameter; None: this process's first device.

    Raises:
        CheckpointError: there is none, or none that is whole.
    """
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), jax.eval_shape(make)
    )
    return restore_params(directory, abstract, step)


def restore_params(directory: epath.PathLike, abstract: Tree, step: int) -> Restored:
    """Reads only the parameters, as `ShapeDtypeStruct`s with shardings say; see `load_params`."""
    directory = epath.Path(directory)
    if not directory.exists():
        raise CheckpointError(f"{directory}: no such directory; train first, or check its name")
    checkpoints = Checkpoints(directory)
    try:
        restored = checkpoints.restore({"params": abstract}, step)
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"{directory}: no checkpoint has been committed yet; train first")
    return restored
