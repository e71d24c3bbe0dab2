"""The parameters of a run alone, as those who read a finished run need them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from clue_jax.errors import CheckpointError, ClueError
from clue_jax.leases import lease
from clue_jax.parallel.agreement import first_alone
from clue_jax.training.checkpoint import Checkpoints, Restored

Tree = Any


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
        if checkpoints.refused:
            _quarantine_unless_in_use(checkpoints)
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"{directory}: no checkpoint has been committed yet; train first")
    return restored


def model_versions(directory: epath.PathLike) -> list[str]:
    """Versions of the checkpoints that are there, oldest first, without reading any parameter.

    Args:
        directory: of the checkpoints; none there, none in it.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    if not epath.Path(directory).exists():
        return []
    checkpoints = Checkpoints(directory)
    try:
        return [checkpoints.version(step) for step in checkpoints.steps()]
    finally:
        checkpoints.close()


def _quarantine_unless_in_use(checkpoints: Checkpoints) -> None:
    """A reader may have no right to write here; a trainer at work moves them when it restarts."""
    with contextlib.suppress(ClueError), contextlib.ExitStack() as held:
        first_alone(lambda: held.enter_context(lease(checkpoints.directory.parent / "lock")))
        checkpoints.quarantine()
