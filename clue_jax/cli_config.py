"""Config files and overrides of the command line, found, read and checked before flags parse them.

A config file is a person's own Python, run on purpose; it is never taken from a run, a dataset or
an export, whose configs are JSON.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import re
import traceback
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from clue_jax.config import from_json
from clue_jax.errors import ClueError, ConfigError
from clue_jax.files import read_json


def split_config(arguments: Sequence[str], default: str) -> tuple[str, list[str]]:
    """The last --config (`default` when there is none), and the other arguments in order."""
    config, others = default, []
    pending = iter(arguments)
    for argument in pending:
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            config = value if equals else next(pending, "")
        else:
            others.append(argument)
    return config, others


def find_config(path: str) -> tuple[Path, str | None]:
    """FILE and variant of `FILE.py[:variant]`: from the current folder, else an installed config.

    FILE may also be a config as a stage saved it, such as `runs/first/config.json`.

    Raises:
        ConfigError: it is in neither place, or neither Python nor JSON.
    """
    name, colon, variant = path.partition(":")
    package = Path(__file__).parent
    # In a checkout, configs/ lies beside the package; in a wheel, inside it.
    places = [Path(name), package / name, package.parent / name]
    for place in places:
        if place.is_file():
            if place.suffix not in (".py", ".json") or (colon and place.suffix == ".json"):
                raise ConfigError(
                    f"--config={path}: {name!r} is no Python file (.py[:variant]), nor a saved"
                    " config (.json)"
                )
            return place, variant if colon else None
    raise ConfigError(f"--config: no file {name!r} here or among the installed configs")


def read_config(path: str, kind: type[Any]) -> Any:
    """What `get_config` returns for `FILE.py[:variant]`, or FILE.json says; it is a `kind`.

    Raises:
        ConfigError: there is no such file or variant, or its code fails; names file and line.
    """
    file, variant = find_config(path)
    if file.suffix == ".json":
        return from_json(kind, read_json(epath.Path(file)), str(file))
    try:
        config = _run_file(file, variant)
    except ClueError:
        raise
    except Exception as error:  # whatever a person's file may raise
        raise ConfigError(f"--config: {_where_it_failed(file, error)}") from error
    if not isinstance(config, kind):
        raise ConfigError(
            f"--config={path} gives {type(config).__name__}, needed is {kind.__name__}"
        )
    return config


def _run_file(file: Path, variant: str | None) -> Any:
    spec = importlib.util.spec_from_file_location("config_file", file)
    assert spec is not None and spec.loader is not None  # find_config checked the suffix
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config() if variant is None else module.get_config(variant)


def _where_it_failed(file: Path, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file.absolute()]
    place = f"{file}:{lines[-1]}" if lines else str(file)
    return f"{place}: {type(error).__name__}: {error}"


def override_keys(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key and type of all that `--config.KEY=VALUE` can set, `sources[0].path` included."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        key, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from override_keys(value, f"{key}.")
        elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
            for position, item in enumerate(value):
                yield from override_keys(item, f"{key}[{position}].")
        else:
            yield key, hints[field.name]


def checked_overrides(config: Any, arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--config.services=a,b` written as the tuple that config_flags reads.

    Raises:
        ConfigError: an override of a key that `config` does not have.
    """
    kinds = dict(override_keys(config))
    checked = []
    pending = iter(arguments)
    for argument in pending:
        name, equals, value = argument.partition("=")
        match = re.fullmatch(r"--?(no)?config\.(.*)", name)
        if match and match[2] not in kinds:
            raise ConfigError(f"--config.{match[2]}: {_unknown_key(match[2], list(kinds))}")
        if match and not match[1] and _is_list_of_text(kinds[match[2]]):
            argument = f"{name}={_as_tuple(value if equals else next(pending, ''))}"
        checked.append(argument)
    return checked


def _is_list_of_text(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple and typing.get_args(hint)[0] is str


def _as_tuple(value: str) -> str:
    if value.startswith("("):
        return value
    return str(tuple(word.strip() for word in value.split(",") if word.strip()))


def _unknown_key(key: str, known: list[str]) -> str:
    inside = [k for k in known if k.startswith((f"{key}.", f"{key}["))]
    if inside:
        shown = ", ".join(inside[:4]) + (", ..." if len(inside) > 4 else "")
        return f"is a group of keys; set one of {shown}"
    # A right name in the wrong group is as likely as a misspelt one.
    moved = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
    close = moved or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"no such key; did you mean {close[0]}?" if close else "no such key; see --help"
