"""What a compiled program sends between devices, read from its optimised HLO."""

import math
import re

_COLLECTIVE = re.compile(
    r"= (?P<result>\S+|\(.*?\)) (?P<name>all-gather|all-reduce|reduce-scatter|collective-permute"
    r"|all-to-all)(?:-start)?\("
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_BYTES = {"pred": 1, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}


def collectives(text, devices):
    """(name, bytes) of each collective: of the whole array that is gathered, reduced or sent.

    Of a loop's body once, however often it runs.
    """
    found = []
    for match in _COLLECTIVE.finditer(text):
        size = sum(
            _BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n)
            for kind, shape in _ARRAY.findall(match["result"])
        )
        # The result of a reduce-scatter is one device's part.
        found.append((match["name"], size * (devices if match["name"] == "reduce-scatter" else 1)))
    return found
