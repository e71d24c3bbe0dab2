"""`compile`: the real train step through the real TPU compiler, on a machine without a TPU."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clue_jax import files
from clue_jax.compilation.report import Report, lines, report_of
from clue_jax.compilation.topology import describe_topology
from clue_jax.compilation.workload import UserProfile, Workload, assume, profile_of
from clue_jax.config import PretrainConfig, validate_pretrain
from clue_jax.console import say
from clue_jax.data.mixture import open_datasets
from clue_jax.errors import ConfigError
from clue_jax.losses.contrastive import Sharding, mean_pair_loss
from clue_jax.parallel.chips import Chip
from clue_jax.parallel.mesh import INNER_FIRST, make_mesh
from clue_jax.training.step import make_step

# "Used 20.1G of 15.75G hbm", or "temporaries (29.07G) exceeds available HBM (15.75G)".
_USED = re.compile(r"(?:Used |\()([\d.]+)([KMGT]?)\)? (?:of|exceeds)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class TooLarge(Exception):
    """A program does not fit a device."""

    def __init__(self, needed: int):
        self.needed = needed  # bytes


def compile_ahead(
    config: PretrainConfig,
    topology: str,
    slices: str,
    only: str,
    data: Sequence[str],
    out: str,
    **profile: str,
) -> None:
    """Compiles the step, or the loss alone, and says what it takes of each device.

    Args:
        config: of the run; its mesh is over all devices of the topology.
        topology: such as `v5e:16x16`.
        slices: number of such slices.
        only: `step` or `loss`.
        data: prepared datasets whose users to assume; none: those of `profile`.
        out: file for the figures as JSON; empty: none.
        profile: of users, see `UserProfile`.

    Raises:
        ConfigError: something does not divide, does not exist, or does not fit; names what would.
        DataError: the dataset is damaged.
    """
    validate_pretrain(config)
    if only not in _PROGRAMS:
        raise ConfigError(f"--only={only}: one of {', '.join(_PROGRAMS)}")
    numbers = {name: _number(name, value) for name, value in profile.items()}
    devices, chip = describe_topology(topology, _number("slices", slices))
    mesh = make_mesh(config.mesh, list(devices))
    if data:
        users = profile_of(tuple(open_datasets(data, config).values()), config)
    else:
        users = UserProfile(**numbers)

    def attempt(batch_users: int) -> Report:
        at = replace(config, train=replace(config.train, batch_users=batch_users))
        return _attempt(assume(at, mesh, users), only, chip, topology, int(slices))

    wanted = config.train.batch_users
    try:
        report = attempt(wanted)
    except TooLarge as error:
        raise ConfigError(_does_not_fit(wanted, error, chip, attempt, mesh.size)) from error
    for line in lines(report):
        say(line)
    if out:
        files.write_json(epath.Path(out), report.to_json())


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(f"--{name}={value}: a number is needed")
    return int(value)


def _attempt(work: Workload, only: str, chip: Chip, topology: str, slices: int) -> Report:
    """Compiles; raises TooLarge."""
    began = time.perf_counter()
    try:
        compiled = _PROGRAMS[only](work)
    except jax.errors.JaxRuntimeError as error:
        raise TooLarge(_needed(error)) from error
    report = report_of(work, only, compiled, chip, topology, slices, time.perf_counter() - began)
    if chip.usable_hbm_bytes and report.memory["total"] > chip.usable_hbm_bytes:
        raise TooLarge(report.memory["total"])
    return report


def _needed(error: Exception) -> int:
    """Bytes that the compiler says a program uses, 0 if not; its other errors are raised again."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    used = _USED.search(str(error))
    return int(float(used[1]) * _UNITS[used[2]]) if used else 0


def _step(work: Workload) -> jax.stages.Compiled:
    step = make_step(work.config, work.pairs, work.mesh, work.capacity.items)
    return step.lower(work.state(), work.batch()).compile()


def _loss(work: Workload) -> jax.stages.Compiled:
    """Value and gradients of the loss of one pair of views, given the vectors."""
    config, mesh = work.config.loss, work.mesh
    sharding = Sharding(INNER_FIRST, config.tile, config.transport, config.precision)
    loss = mean_pair_loss(mesh, sharding, config.form)
    shape = work.config.train.batch_users, work.config.encoder.embedding_width
    dealt, whole = NamedSharding(mesh, P(INNER_FIRST)), NamedSharding(mesh, P())
    vectors = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=dealt)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))
    return gradients.lower(vectors, vectors, scalar, scalar).compile()


_PROGRAMS: dict[str, Callable[[Workload], jax.stages.Compiled]] = {"step": _step, "loss": _loss}


def _does_not_fit(
    wanted: int, error: TooLarge, chip: Chip, attempt: Callable[[int], Report], devices: int
) -> str:
    says = (
        f"config.train.batch_users: {wanted} users need"
        f" {_gib(error.needed) if error.needed else 'more'} of each {chip.name} device, which has"
        f" {_gib(chip.usable_hbm_bytes or 0)}"
    )
    largest = _largest(wanted, attempt, devices)
    if largest:
        return f"{says}; the largest batch that fits: {largest}"
    return (
        f"{says}, and one user a device does not fit either: deal parameters over more devices,"
        " --config.mesh.fsdp or --config.mesh.tensor"
    )


def _largest(wanted: int, attempt: Callable[[int], Report], devices: int) -> int:
    """The largest batch that fits, 0 if none does, to an eighth: a try takes a minute or more."""

    def fits(users: int) -> bool:
        say(f"{wanted} users do not fit; trying {users * devices}")
        try:
            attempt(users * devices)
        except TooLarge:
            return False
        return True

    above = wanted // devices
    below = above // 2
    while below and not fits(below):
        above, below = below, below // 2
    while above - below > max(1, below // 8):
        middle = (above + below) // 2
        above, below = (above, middle) if fits(middle) else (middle, below)
    return below * devices


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
