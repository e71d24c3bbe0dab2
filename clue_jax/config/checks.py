"""How a config is refused: by the key a person typed."""

from __future__ import annotations

from clue_jax.errors import ConfigError


def require(condition: bool, key: str, problem: str) -> None:
    """Raises ConfigError naming `key` unless `condition` holds."""
    if not condition:
        raise ConfigError(f"config.{key}: {problem}")
