"""Configs as plain JSON values and back."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any, TypeVar

from clue_jax.errors import ConfigError

C = TypeVar("C")


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values; enums by value, tuples as lists."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        return value

    return plain(config)


def from_json(kind: type[C], values: dict[str, Any], where: str = "config") -> C:
    """Rebuilds a config of type `kind` from `to_json`'s values; absent keys take their default.

    Raises:
        ConfigError: an unknown key or a value of the wrong type, with its path.

    Examples:
        >>> from clue_jax.config import ExportConfig
        >>> from_json(ExportConfig, {"newest": 4, "precision": "int8"}).precision
        <StoredPrecision.INT8: 'int8'>
        >>> from_json(ExportConfig, {"newset": 4})
        Traceback (most recent call last):
        clue_jax.errors.ConfigError: config.newset: no such key; known here: what, cutoff, ...
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]}: no such key; known here: {', '.join(hints)}")
    return kind(**{k: _typed(hints[k], v, f"{where}.{k}") for k, v in values.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected an object, found {value!r}")
        return from_json(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        (item, *_) = typing.get_args(hint)
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        return tuple(_typed(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError as error:
            choices = ", ".join(str(member.value) for member in hint)
            raise ConfigError(f"{where}: {value!r} is not one of {choices}") from error
    if isinstance(hint, types.UnionType):
        (inner,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
        if value is None:
            return None
        try:
            return _typed(inner, value, where)
        except ConfigError as error:
            raise ConfigError(
                f"{where}: expected {inner.__name__} or none, found {value!r}"
            ) from error
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value
