"""Every exchange between devices in a compiled program, with its size and how often it runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from clue_jax.compilation.program import (
    Array,
    Assumed,
    Computation,
    Instruction,
    Program,
    read_program,
)

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
# How the TPU compiler marks the exchanges between slices, which it makes sends and receives.
_BETWEEN_SLICES = {
    "ALL_GATHER": "all-gather",
    "ALL_REDUCE": "all-reduce",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
    "ONE_TO_ONE": "collective-permute",
}
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_TARGET = re.compile(r'_xla_megascale_target="?(\{\{.*?\}\}|\{[^}]*\})')
_RENDEZVOUS = re.compile(r'_xla_host_transfer_rendezvous="([^"]*)"')
_CHAIN = re.compile(r'chain_id="([^"]*)"')
_EXPLICIT = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[(?P<axes>[^\]]*)\]"
    r"(?:, device_ids=\((?P<ids>[^{]*)\))? \{(?P<used>[^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")

Groups = list[list[int]]


@dataclass(frozen=True)
class Collective:
    """One collective operation, as one device takes part in it."""

    name: str  # of the instruction, to find it in the text
    kind: str  # one of KINDS
    arrays: tuple[Array, ...]  # results; several where the compiler combined operations
    group_size: int  # devices that exchange with each other; of a permutation, all that take part
    crosses_slices: bool | None  # None: not known, since the devices per slice are not
    times: int | None  # runs per run of the program; None: inside a loop whose length is data
    payload_bytes: int  # of the whole array that is gathered, reduced or sent
    op_name: str  # where in the source's call tree it comes from, as jax names it

    @property
    def bytes_per_run(self) -> int:
        """What one device sends in one run, by the ring algorithm, which is the least possible.

        Chan et al., "Collective communication: theory, practice, and experience" (2007), section 4.
        """
        around = (self.group_size - 1) / self.group_size if self.group_size else 0.0
        factor = {"all-reduce": 2 * around, "collective-permute": 1.0, "collective-broadcast": 1.0}
        return round(factor.get(self.kind, around) * self.payload_bytes)


def collectives(
    text: str, devices_per_slice: int | None = None, assumed: Assumed = lambda loop: None
) -> list[Collective]:
    """The collectives of an optimised HLO text, in its order.

    Args:
        devices_per_slice: with it `crosses_slices` is known also where ids of devices tell it:
            devices count slice by slice in the mesh that the program was compiled for.
        assumed: see `Program.times`.

    Raises:
        ValueError: the text is not that of a compiled program, or states groups in an unknown way.
    """
    program = read_program(text)
    times = program.times(assumed)
    found = [
        (computation, instruction)
        for name, computation in program.computations.items()
        if name in times
        for instruction in computation.values()
        if _kind(instruction)
    ]
    count = {id(c): times[name] for name, c in program.computations.items() if name in times}
    return [
        _collective(program, computation, instruction, count[id(computation)], devices_per_slice)
        for computation, instruction in _once(found)
    ]


def _kind(instruction: Instruction) -> str | None:
    if instruction.opcode == "send":
        # Other sends to the host are callbacks and the like.
        transfer = _TRANSFER.search(instruction.attributes)
        return _BETWEEN_SLICES.get(transfer[1], "collective-permute") if transfer else None
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def _once(found: list[tuple[Computation, Instruction]]) -> list[tuple[Computation, Instruction]]:
    """Without the repetitions of a collective that the TPU compiler fuses with other work.

    It writes such a one in the computation that starts it, again in each that advances it, and in
    the one that ends it, all with one chain_id.
    """

    def chain(instruction: Instruction) -> str | None:
        match = _CHAIN.search(instruction.attributes)
        return match[1] if match else None

    def starts(computation: Computation) -> bool:
        return any('"AsyncCollectiveStart"' in i.attributes for i in computation.values())

    started = {chain(i) for computation, i in found if starts(computation)} - {None}
    return [(c, i) for c, i in found if chain(i) not in started or starts(c)]


def _collective(
    program: Program,
    computation: Computation,
    instruction: Instruction,
    times: int | None,
    devices_per_slice: int | None,
) -> Collective:
    kind = _kind(instruction)
    assert kind  # only those with a kind are passed
    scatters = kind == "all-reduce" and _keeps_a_slice(computation, instruction)
    kind = "reduce-scatter" if scatters else kind
    operands = _operands(computation, instruction)
    crosses: bool | None = True
    if instruction.opcode == "send":
        group_size = _slices(instruction)
    else:
        groups = _groups(instruction, program.devices)
        if kind == "collective-permute":
            group_size = len({device for pair in groups for device in pair})
        else:
            group_size = max(map(len, groups))
        crosses = _crosses(groups, devices_per_slice)
    payload = sum(array.bytes for array in operands)
    return Collective(
        name=instruction.name,
        kind=kind,
        arrays=computation.root.arrays if scatters else _results(computation, instruction),
        group_size=group_size,
        crosses_slices=crosses,
        times=times,
        payload_bytes=payload * (group_size if kind == "all-gather" else 1),
        op_name=instruction.op_name,
    )


def _keeps_a_slice(computation: Computation, instruction: Instruction) -> bool:
    """Whether an all-reduce is the TPU compiler's way to write a reduce-scatter.

    It is when it is fused with the dynamic-slice that keeps one device's part. Where the slice is
    another computation's, the whole is reduced to every device first.
    """
    root = computation.root
    return root.opcode == "dynamic-slice" and computation.origin(root.operands[0]) == instruction


def _operands(computation: Computation, instruction: Instruction) -> list[Array]:
    # Not the results: the TPU compiler fuses conversions to narrower types into them. Of a ragged
    # all-to-all and of a send only the first operand is data.
    names = instruction.operands
    if instruction.opcode.startswith(("send", "ragged")):
        names = names[:1]
    missing = [name for name in names if name not in computation]
    if missing or not names:
        raise ValueError(f"{instruction.name}: no instruction {missing} beside it")
    return [array for name in names for array in computation[name].arrays]


def _results(computation: Computation, instruction: Instruction) -> tuple[Array, ...]:
    """What a device holds afterwards: of an asynchronous pair, the result of its second half."""
    if instruction.opcode == "send":
        key = _RENDEZVOUS.search(instruction.attributes)
        for other in computation.values():
            twin = _RENDEZVOUS.search(other.attributes)
            if other.opcode == "recv" and key and twin and key[1] == twin[1]:
                return other.arrays[:1]
    if instruction.opcode.endswith("-start"):
        done = instruction.opcode.removesuffix("-start") + "-done"
        for other in computation.values():
            if other.opcode == done and other.operands[:1] == (instruction.name,):
                return other.arrays
    return instruction.arrays


def _slices(instruction: Instruction) -> int:
    """How many take part in an exchange between slices.

    Of `{1,2}x{0:255}`, each device and its like in the other slice; of explicit ids, all of them.
    """
    target = _TARGET.search(instruction.attributes)
    if not target:
        raise ValueError(f"{instruction.name}: an exchange between slices without its target")
    if not target[1].startswith("{{"):
        return len(re.findall(r"\d+", target[1]))
    if "->" in target[1]:
        return len(set(re.findall(r"\d+", target[1])))
    return max(len(group.split(",")) for group in target[1].strip("{}").split("},{"))


def _groups(instruction: Instruction, devices: int) -> Groups:
    attributes = instruction.attributes
    if pairs := _PAIRS.search(attributes):
        return _lists(pairs[1])
    if explicit := _EXPLICIT.search(attributes):
        # None named means one group of all.
        return _lists(explicit[1]) or [list(range(devices))]
    if iota := _IOTA.search(attributes):
        shape, counted, order = ([int(n) for n in part.split(",") if n] for part in iota.groups(""))
        ids = np.arange(math.prod(counted)).reshape(counted)
        return (ids.transpose(order) if order else ids).reshape(shape).tolist()
    if mesh := _MESH.search(attributes):
        return _groups_of_mesh(instruction, mesh)
    raise ValueError(f"{instruction.name}: its groups of devices are written in an unknown way")


def _groups_of_mesh(instruction: Instruction, mesh: re.Match[str]) -> Groups:
    """Groups along axes of a mesh: `mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}`."""
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh["axes"])}
    used = re.findall(r"'(\w+)'", mesh["used"])
    if ":" in mesh["used"] or not set(used) <= set(sizes):
        raise ValueError(f"{instruction.name}: groups along a part of an axis are not read")
    ids = np.arange(math.prod(sizes.values()))
    if order := re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", mesh["ids"] or ""):
        counted, turned = ([int(n) for n in part.split(",") if n] for part in order.groups(""))
        ids = ids.reshape(counted)
        ids = ids.transpose(turned) if turned else ids
    elif mesh["ids"]:
        ids = np.array([int(n) for n in mesh["ids"].split(",")])
    kept = [axis for axis in sizes if axis not in used]
    places = [list(sizes).index(axis) for axis in (*kept, *used)]
    size = math.prod(sizes[axis] for axis in used)
    return ids.reshape(list(sizes.values())).transpose(places).reshape(-1, size).tolist()


def _lists(text: str) -> Groups:
    return [[int(n) for n in part.split(",")] for part in re.findall(r"\{([\d,]+)\}", text)]


def _crosses(groups: Groups, devices_per_slice: int | None) -> bool | None:
    if devices_per_slice is None:
        return None
    return any(len({device // devices_per_slice for device in group}) > 1 for group in groups)
