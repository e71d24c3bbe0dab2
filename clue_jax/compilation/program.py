"""The optimised HLO text of a compiled program: its instructions, and how often each runs.

The text is what `compiled.as_text()` gives. Its grammar is described at
https://openxla.org/xla/operation_semantics; only what the collectives need is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"\s+(?P<root>ROOT )?%?(?P<name>[\w.-]+) = ")
_OPCODE = re.compile(r"\s*([\w-]+)\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_REFERENCE = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation|branch_computations"
    r"|called_computations)=(\{[^}]*\}|%?[\w.-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_PARENTHESIS = re.compile(r"[()]")
Assumed = Callable[[str], int | None]
# These leave a value as it is, wherever they put it.
_MOVES = {"copy", "bitcast", "copy-start", "copy-done", "reshape"}


@dataclass(frozen=True)
class Array:
    """One array of one device."""

    dtype: str  # as HLO names it: f32, bf16, s32, pred
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        if self.dtype == "pred":
            return math.prod(self.shape)
        bits = re.match(r"[a-z]+(\d+)", self.dtype)  # f8e4m3fn has 8; a token has none
        return math.ceil(math.prod(self.shape) * int(bits[1]) / 8) if bits else 0

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    arrays: tuple[Array, ...]  # the result; a tuple's leaves, in order
    operands: tuple[str, ...]
    literal: str  # what stands between the parentheses: the value of a constant
    attributes: str  # what follows the operands
    is_root: bool

    @property
    def op_name(self) -> str:
        """Where in the source's call tree it comes from, as jax names it."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ""

    def called(self) -> list[tuple[str, str]]:
        """(role, computation) of each computation that this instruction runs."""
        # The -done of an asynchronous pair names again what its -start runs.
        if self.opcode.endswith(("-done", "-update")):
            return []
        return [
            (role, name.strip().lstrip("%"))
            for role, names in _CALLED.findall(self.attributes)
            for name in names.strip("{}").split(",")
            if name.strip()
        ]


class Computation(dict[str, Instruction]):
    """Name -> instruction, in the order of the text."""

    @cached_property
    def root(self) -> Instruction:
        return next(i for i in self.values() if i.is_root)

    def origin(self, name: str) -> Instruction | None:
        """What computes `name`, before it was copied about."""
        found = self.get(name)
        while found and found.opcode in _MOVES:
            found = self.get(found.operands[0])
        return found

    def constant(self, name: str) -> int | None:
        """The value of `name` where it is a scalar constant."""
        found = self.origin(name)
        if found and found.opcode == "constant" and re.fullmatch(r"-?\d+", found.literal):
            return int(found.literal)
        return None

    def tuple_index(self, name: str) -> int | None:
        """i where `name` is element i of the computation's only parameter."""
        found = self.origin(name)
        if not found or found.opcode != "get-tuple-element":
            return None
        source = self.get(found.operands[0])
        index = re.search(r"\bindex=(\d+)", found.attributes)
        return int(index[1]) if index and source and source.opcode == "parameter" else None


@dataclass(frozen=True)
class Program:
    computations: dict[str, Computation]
    entry: str
    devices: int  # of one slice, where the program spans several: they exchange by send and recv

    def times(self, assumed: Assumed = lambda loop: None) -> dict[str, int | None]:
        """How often each computation runs when the program runs once.

        None where that depends on data. A branch of a conditional counts as taken, so that sums
        are upper bounds. Computations that nothing runs are left out.

        Args:
            assumed: the trip count of a loop that the program does not state, from where in the
                source's call tree the loop comes; None: not known.
        """
        callers: dict[str, list[tuple[str, int | None]]] = {}
        for name, computation in self.computations.items():
            for instruction in computation.values():
                for role, callee in instruction.called():
                    callers.setdefault(callee, []).append(
                        (name, self._runs(role, instruction, computation, assumed))
                    )
        known: dict[str, int | None] = {self.entry: 1}

        def count(name: str) -> int | None:
            if name not in known:
                parts = [(count(caller), runs) for caller, runs in callers.get(name, [])]
                # 0 runs of the caller are 0 runs, however often each would be.
                products = [
                    0 if 0 in (outer, runs) else _product(outer, runs) for outer, runs in parts
                ]
                known[name] = _sum(products)
            return known[name]

        return {name: n for name in self.computations if (n := count(name)) != 0}

    def _runs(
        self, role: str, instruction: Instruction, inside: Computation, assumed: Assumed
    ) -> int | None:
        if role not in ("body", "condition"):
            return 1
        trips = self._trips(instruction, inside)
        trips = assumed(instruction.op_name) if trips is None else trips
        return trips if role == "body" or trips is None else trips + 1

    def _trips(self, loop: Instruction, inside: Computation) -> int | None:
        """Trip count of a while loop: as stated, or that of `for i in range(constant)`.

        The TPU compiler states none; then the condition must be i < constant, where i is an
        element of the loop's state that starts at 0 and grows by 1.
        """
        if stated := _TRIPS.search(loop.attributes):
            return int(stated[1])
        called = dict(loop.called())
        condition, body = self.computations[called["condition"]], self.computations[called["body"]]
        test = condition.root
        if test.opcode != "compare" or "direction=LT" not in test.attributes:
            return None
        index, bound = condition.tuple_index(test.operands[0]), condition.constant(test.operands[1])
        start = inside.get(loop.operands[0])
        if index is None or bound is None or not start or start.opcode != "tuple":
            return None
        counts = inside.constant(start.operands[index]) == 0 and _increments(body, index)
        return max(bound, 0) if counts else None


def read_program(text: str) -> Program:
    """Parses the text of a compiled program.

    Raises:
        ValueError: it has no entry computation, so is no such text.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", Computation()
    for line in text.splitlines():
        if line[:1].isspace():
            if instruction := _instruction(line):
                current[instruction.name] = instruction
        elif opened := _COMPUTATION.match(line):
            current = computations[opened["name"]] = Computation()
            entry = opened["name"] if opened["entry"] else entry
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    header = text.partition("\n")[0]
    counts = re.findall(r"\b(?:replica_count|num_partitions)=(\d+)", header)
    return Program(computations, entry, math.prod(map(int, counts)))


def arrays_in(text: str) -> Iterator[Array]:
    """The arrays of a shape such as `(f32[2]{0:T(128)}, (s32[], u32[3]))`."""
    for dtype, dimensions in _ARRAY.findall(text):
        # A bounded dynamic dimension is printed as <=n and occupies n.
        yield Array(dtype, tuple(int(n.lstrip("<=")) for n in dimensions.split(",") if n))


def _instruction(line: str) -> Instruction | None:
    head = _INSTRUCTION.match(line)
    if not head:
        return None
    start = head.end()
    # A tuple's shape has spaces and, in layouts, parentheses; an array's has no space.
    end = _closing(line, start) if line[start] == "(" else line.find(" ", start)
    opcode = _OPCODE.match(line, end)
    if not opcode:
        return None
    close = _closing(line, opcode.end() - 1)
    inner = line[opcode.end() : close - 1]
    return Instruction(
        head["name"],
        opcode[1],
        tuple(arrays_in(line[start:end])),
        tuple(_REFERENCE.findall(inner)),
        inner,
        line[close:],
        bool(head["root"]),
    )


def _closing(line: str, start: int) -> int:
    """Just after the parenthesis that closes the one at `start`."""
    depth = 0
    for found in _PARENTHESIS.finditer(line, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    return len(line)


def _increments(body: Computation, index: int) -> bool:
    """Whether the loop's body adds 1 to element `index` of its state."""
    root = body.root
    if root.opcode != "tuple":
        return False
    found = body.origin(root.operands[index])
    if not found or found.opcode != "add":
        return False
    sides = found.operands
    return any(
        body.tuple_index(this) == index and body.constant(other) == 1
        for this, other in (sides, sides[::-1])
    )


def _product(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a * b


def _sum(counts: list[int | None]) -> int | None:
    return None if None in counts else sum(n for n in counts if n is not None)
