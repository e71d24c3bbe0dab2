"""The text of `--help`, for all stages and for one, walked from flags and config dataclasses."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import shlex
import textwrap
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from clue_jax.cli_stage import Stage
from clue_jax.config import EvaluateConfig, ExportConfig, PretrainConfig

WIDTH = 100
# Configs that another stage's has inside it are explained by the stage they are of.
ELSEWHERE = {PretrainConfig: "train", ExportConfig: "export", EvaluateConfig: "evaluate"}
EXIT_CODES = (
    "0 done, 1 unexpected, 2 usage or config, 3 bad input data, 4 checkpoint unusable, 5 storage,"
    " 6 non-finite or diverged, 7 hang or lost peer, 8 locked by another process, 75 preempted and"
    " saved (run the same command again), 130 interrupted"
)
_NOTE = re.compile(r"    # (.+)")
_FIELD = re.compile(r"    (\w+)(?::| =)[^#]*?(?:  # (.+))?")


def overview(program: str, stages: Iterable[Stage], group: str = "") -> str:
    """Help for the whole command: its stages and exit codes; or for a group of actions alone."""
    stages = list(stages)
    groups = dict.fromkeys(s.name.split()[0] for s in stages if " " in s.name)
    word = f"{group} ACTION" if group else "STAGE"
    lines = [f"usage: {program} {word} [--flag=value ...]", ""]
    if not group:
        lines += [
            "Behaviour logs -> prepare -> train -> export -> embeddings on disk -> evaluate",
            "",
        ]
        lines += [f"  {s.name:<12}{s.summary}" for s in stages if " " not in s.name] + [""]
    for name in [group] if group else groups:
        lines += [f"  {s.name:<23}{s.summary}" for s in stages if s.name.startswith(f"{name} ")]
    lines += ["", *_wrapped(f"exit codes: {EXIT_CODES}", "  ")]
    lines += ["", f"{program} {word} --help shows what it takes."]
    return "\n".join(lines)


def stage_help(program: str, stage: Stage, config: Any | None) -> str:
    """Help for one stage: usage, flags, config keys with type and value, an example."""
    lines = [*_wrapped(f"usage: {usage(program, stage)}", " " * 7), "", stage.summary]
    if stage.flags:
        lines += ["", "flags"]
    for flag in stage.flags:
        default = f" (default {flag.default})" if flag.default else ""
        lines.append(f"  --{flag.name:<14}{flag.help}{default}")
    if config is not None:
        default = f"; default {stage.default_config}" if stage.default_config else ""
        lines += ["", f"config keys: --config.KEY=VALUE beside --config=FILE.py[:variant]{default}"]
        lines += _key_lines(config)
    return "\n".join([*lines, "", "example", *_command(f"{program} {stage.example}")])


def usage(program: str, stage: Stage) -> str:
    """A line with everything that a stage takes, in brackets what may be left out."""
    words = [program, stage.name]
    if stage.config:
        word = "--config=FILE.py[:variant]"
        words.append(f"[{word}]" if stage.default_config else word)
    for flag in stage.flags:
        word = f"--{flag.name}" if flag.kind is bool else f"--{flag.name}=..."
        spared = flag.default or flag.optional or flag.kind is bool
        words.append(f"[{word}]" if spared else word)
        words += [f"[{word} ...]"] * flag.many
    return " ".join([*words, *(name.upper() for name in stage.positional)])


def config_keys(config: Any, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Key, type, value and comment of every leaf of a config dataclass, in order.

    What the config of another stage has inside it is said there.
    """
    hints = typing.get_type_hints(type(config))
    notes = comments(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if type(value) in ELSEWHERE:
            stage = ELSEWHERE[type(value)]
            yield f"{prefix}{field.name}.KEY", "", "", f"each key of `{stage}`; see its --help"
        elif dataclasses.is_dataclass(value):
            yield from config_keys(value, f"{prefix}{field.name}.")
        else:
            kind = _type_name(hints[field.name])
            yield f"{prefix}{field.name}", kind, value, notes.get(field.name, "")


def _key_lines(config: Any) -> list[str]:
    rows = [(key, kind, shown(value), note) for key, kind, value, note in config_keys(config)]
    widths = [min(max(len(row[i]) for row in rows), limit) for i, limit in enumerate((34, 24, 16))]
    lines = []
    for row in rows:
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        column = 2 + sum(widths) + 2 * len(widths)  # where notes begin
        lines += _wrapped(f"  {cells}  {row[3]}".rstrip(), " " * column)
    return lines


def _type_name(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "|".join(member.name.lower() for member in hint)
    if typing.get_origin(hint) is tuple:
        return f"{_type_name(typing.get_args(hint)[0])}, ..."
    return getattr(hint, "__name__", str(hint))


def shown(value: Any) -> str:
    """A value of a config as `--config.KEY=` takes it; of a list of dataclasses their number."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and any(dataclasses.is_dataclass(v) for v in value):
        return f"({len(value)} in the file)"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "()"
    return "''" if value == "" else str(value)


def comments(kind: type) -> dict[str, str]:
    """What a dataclass or enumeration says of each field or member, which it says there alone.

    It is the comment behind it, which goes on below where it ends with a colon, or the lines above
    a field that has none behind it.
    """
    try:
        lines = textwrap.dedent(inspect.getsource(kind)).splitlines()
    except (OSError, TypeError):
        return {}
    found: dict[str, str] = {}
    name, above = "", ""
    for line in lines:
        if note := _NOTE.fullmatch(line):
            if not above and found.get(name, "").endswith(":"):
                found[name] += f" {note[1]}"
            else:
                above = f"{above} {note[1]}".lstrip()
        elif field := _FIELD.fullmatch(line):
            name, behind = field[1], field[2]
            if behind or above:
                found[name] = behind or above
            above = ""
        else:
            name, above = "", ""
    return found


def _command(line: str) -> list[str]:
    """A command in lines that a shell joins again."""
    width = WIDTH - 4
    lines, current = [], ""
    for word in shlex.split(line):
        if current and len(current) + 1 + len(word) > width:
            lines.append(f"  {current} \\")
            current = f"  {word}"
        else:
            current = f"{current} {word}" if current else word
    return [*lines, f"  {current}"]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
