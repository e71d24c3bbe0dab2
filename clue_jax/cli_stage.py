"""What a stage of the front door is: its flags, its config, and the one function it calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flag:
    """A flag of a stage; without a default it must be given, unless it is optional."""

    name: str
    help: str
    default: str = ""
    optional: bool = False
    many: bool = False  # given once for each of several values
    kind: type[Any] = str  # an int is at least 1; a bool is false unless given


@dataclass(frozen=True)
class Stage:
    """One command: what it takes and the one function it calls with it, by keyword.

    The name of an action of a group is two words, such as `embeddings verify`.
    """

    name: str
    summary: str
    call: Callable[..., None]
    flags: tuple[Flag, ...] = ()
    config: type[Any] | None = None
    default_config: str = ""  # used when --config is absent; empty: --config must be given
    positional: tuple[str, ...] = ()  # names of the arguments that are no flags
    example: str = ""
