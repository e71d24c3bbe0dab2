"""Keyed pseudonyms instead of user ids, so that a dataset can be handed on without them."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field

import numpy as np
from etils import epath

from clue_jax.config import PseudonymConfig
from clue_jax.errors import ConfigError

MIN_KEY_BYTES = 16  # a shorter key can be found by trying


@dataclass(frozen=True)
class Pseudonyms:
    """HMAC-SHA-256 (RFC 2104) of the user id under a secret key, in hex.

    The same person has the same pseudonym in every dataset made with the same key, and without the
    key nobody can try ids one by one. The key is neither stored nor shown; `key_id` tells which one
    it was.
    """

    key: bytes = field(repr=False)

    @classmethod
    def from_config(cls, config: PseudonymConfig) -> Pseudonyms | None:
        """Reads the key (white space around it is no part of it); None where none is asked for.

        Raises:
            ConfigError: the file or variable is not there, or the key is too short; never shows it.
        """
        if not config.enabled:
            return None
        if config.key_file and config.key_env:
            raise ConfigError("config.pseudonym: give key_file or key_env, not both")
        if config.key_env:
            where = f"config.pseudonym.key_env: environment variable {config.key_env!r}"
            if config.key_env not in os.environ:
                raise ConfigError(f"{where} is not set")
            key = os.environ[config.key_env].encode("utf-8", "surrogateescape").strip()
        else:
            where = f"config.pseudonym.key_file: {config.key_file}"
            try:
                key = epath.Path(config.key_file).read_bytes().strip()
            except OSError as error:
                raise ConfigError(f"{where} cannot be read: {error.strerror or error}") from error
        if len(key) < MIN_KEY_BYTES:
            raise ConfigError(
                f"{where} holds {len(key)} bytes; a key needs at least {MIN_KEY_BYTES}, for"
                " instance from: openssl rand -hex 32"
            )
        return cls(key)

    @property
    def key_id(self) -> str:
        """16 hex digits that tell keys apart and say nothing of the key."""
        return hashlib.sha256(b"clue key id" + self.key).hexdigest()[:16]

    def of(self, user_id: str) -> str:
        """64 hex digits."""
        return hmac.digest(self.key, user_id.encode("utf-8"), "sha256").hex()

    def of_all(self, user_ids: np.ndarray) -> np.ndarray:
        """Pseudonyms of user ids, [N] str (object) each."""
        return np.array([self.of(user_id) for user_id in user_ids.tolist()], dtype=object)
