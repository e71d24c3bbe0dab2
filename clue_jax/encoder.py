"""A trained encoder in a few lines of Python: texts of behaviour in, vectors out.

    from clue_jax import UserEncoder

    encoder = UserEncoder.from_pretrained("runs/first")
    z_NE = encoder.encode([{"search": ["running shoes"], "shop": ["trail shoe 42", "socks"]}])

The same vectors as `export` gives, in any process, without a prepared dataset.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from clue_jax.composition import combine
from clue_jax.config import EncoderConfig
from clue_jax.console import progress
from clue_jax.data.capacity import capacity_for_any
from clue_jax.data.guides import given_tokenizer
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.encoder_folder import EncoderFolder, is_encoder_folder, read_encoder, write_encoder
from clue_jax.encoder_views import (
    History,
    Seconds,
    Times,
    View,
    histories_of,
    seconds_of,
    service_weights,
    together,
    view_of,
)
from clue_jax.errors import ConfigError, DataError, NonFiniteError
from clue_jax.inference import BatchEncoder
from clue_jax.model import clue
from clue_jax.parallel.mesh import single_device_mesh
from clue_jax.training.checkpoint import NEWEST
from clue_jax.training.parameters import load_params
from clue_jax.training.trained import read_run

_BATCH_VIEWS = 1_024  # histories that are encoded together, at most
_BATCH_FULL = 64  # of the longest histories: what their behaviours add up to, at most
_BATCH_USERS = 1_000  # users whose texts are tokenised together
_CPU_SLOTS = 512  # of tokens in a chunk, on CPUs
_CPU_BEHAVIOURS = 128  # in a chunk of histories, on CPUs; more where one history may have more


class UserEncoder:
    """Encodes users given as texts by service.

    Attributes:
        config: of the encoder.
        tokenizer: of its texts, with the guides of the services it was trained on.
        services: those it has a guide for; others are encoded with the generic one.
        model_version: as in the manifests of exports from the same checkpoint.
        half_life_days: in which a behaviour's weight halves; 0: all weigh alike.

    Examples:
        >>> from clue_jax import UserEncoder
        >>> encoder = UserEncoder.from_pretrained("runs/first")
        >>> encoder.services
        ('news', 'search', 'shop')
        >>> runner = {"search": ["running shoes"], "shop": ["trail shoe 42", "wool socks"]}
        >>> z_NE = encoder.encode([runner, {"news": ["marathon in the rain"]}])
        >>> z_NE.shape == (2, encoder.config.embedding_width)
        True
        >>> encoder.encode([{"search": []}])
        Traceback (most recent call last):
        clue_jax.errors.DataError: user 0: no behaviour in any service, so nothing to encode
    """

    def __init__(
        self,
        config: EncoderConfig,
        params: clue.Params,
        tokenizer: Tokenizer,
        services: Sequence[str],
        model_version: str,
        half_life_days: float = 0.0,
    ):
        if not 0.0 <= half_life_days < math.inf:
            raise ConfigError(f"half_life_days: {half_life_days} must be finite and not negative")
        self.config, self.params, self.tokenizer = config, params, tokenizer
        self.half_life_days = half_life_days
        self.services, self.model_version = tuple(services), model_version
        # Sized for any histories, so that nothing compiles twice.
        self._most_behaviours = _BATCH_FULL * config.max_history
        laid = _in_small_chunks(config) if jax.default_backend() == "cpu" else config
        capacity = capacity_for_any(laid, _BATCH_VIEWS, 1, self._most_behaviours)
        self._batches = BatchEncoder(laid, capacity, single_device_mesh(), half_life_days)

    @classmethod
    def from_pretrained(
        cls, path: epath.PathLike, step: int = NEWEST, half_life_days: float = 0.0
    ) -> UserEncoder:
        """The encoder of a run directory of `train`, or of a folder that `save` wrote.

        Args:
            path: of the folder.
            step: of a run's checkpoint; -1: newest, -2: best.
            half_life_days: in which a behaviour's weight in the means halves, as of `export`; 0:
                all weigh alike.

        Raises:
            ConfigError: a half-life that is none.
            CheckpointError: no run there, or no whole checkpoint of that step.
            DataError: a saved folder that is damaged.
        """
        path = epath.Path(path)
        if is_encoder_folder(path):
            return cls(**vars(read_encoder(path)), half_life_days=half_life_days)
        run, tokenizer = read_run(path), given_tokenizer(path)
        restored = load_params(
            path / "checkpoints", lambda: clue.init_run(run.config, run.vocab_size), step
        )
        return cls(
            run.config.encoder,
            run.with_generic(restored.parts["params"], tokenizer)["encoder"],
            tokenizer,
            tuple(run.guides),
            restored.model_version,
            half_life_days,
        )

    def save(self, path: epath.PathLike, *, program: bool = False, overwrite: bool = False) -> None:
        """Writes a folder to be shared: weights, config and tokenizer, nothing of the training.

        Args:
            path: of the folder.
            program: also write program.jax, which runs without this package.
            overwrite: replace a folder that is there.

        Raises:
            ConfigError: a program is asked for without the extra `serving`.
            StorageError: the folder is there already, or cannot be written.
        """
        parts = self.config, self.params, self.tokenizer, self.services, self.model_version
        write_encoder(path, EncoderFolder(*parts), program=program, overwrite=overwrite)

    def encode(self, users: Sequence[History], times: Sequence[Times] | None = None) -> np.ndarray:
        """One vector per user: the mean of its services' vectors, of length one.

        Args:
            users: N histories; of each service the newest `config.max_history` texts count.
            times: of each text, in epoch seconds; only where there is a half-life.

        Returns:
            z_NE float32.

        Raises:
            ConfigError: times without a half-life, or a half-life without times.
            DataError: a user without any behaviour, what is no text, or times that do not go with
                the texts; names user and service.
            NonFiniteError: an embedding with a NaN or infinity; names the user.
        """
        for number, user in enumerate(users):
            if not any(len(texts) for texts in user.values()):
                raise DataError(f"user {number}: no behaviour in any service, so nothing to encode")
        seconds = self._seconds_of(users, times)
        by_service = self._by_service(users, seconds)
        if not by_service:
            return np.zeros((0, self.config.embedding_width), np.float32)
        z_NSE = np.stack(list(by_service.values()), axis=1)
        weight_NS = np.any(z_NSE, axis=2)
        if seconds is not None:
            weights = [service_weights(own, self.half_life_days) for own in seconds]
            of_service = [[found.get(service, 0.0) for service in by_service] for found in weights]
            weight_NS = weight_NS * np.array(of_service)
        return combine(z_NSE, weight_NS).astype(np.float32)

    def encode_services(
        self, users: Sequence[History], times: Sequence[Times] | None = None
    ) -> dict[str, np.ndarray]:
        """A vector of length one per user and service; zeros where a user lacks the service.

        Args:
            users: as of `encode`; here a user may have no behaviour at all.
            times: as of `encode`.

        Returns:
            service -> z_NE float32, for every service that a user names.

        Raises:
            ConfigError, DataError, NonFiniteError: as of `encode`.
        """
        return self._by_service(users, self._seconds_of(users, times))

    def _by_service(
        self, users: Sequence[History], seconds: Sequence[Seconds] | None
    ) -> dict[str, np.ndarray]:
        services = list(dict.fromkeys(service for user in users for service in user))
        width, most = self.config.embedding_width, self.config.max_history
        found = {service: np.zeros((len(users), width), np.float32) for service in services}
        with progress("encoding users", len(users)) as advance:
            for first in range(0, len(users), _BATCH_USERS):
                some = users[first : first + _BATCH_USERS]
                views = [
                    view_of(n, service, texts, seconds[n] if seconds else None, most)
                    for n, user in enumerate(some, first)
                    for service, texts in user.items()
                    if len(texts)
                ]
                z_VE = self._encode_views(views)
                for view, z_E in zip(views, z_VE, strict=True):
                    found[view.service][view.user] = z_E
                advance(len(some))
        return found

    def _seconds_of(
        self, users: Sequence[History], times: Sequence[Times] | None
    ) -> list[Seconds] | None:
        if times is None and self.half_life_days:
            raise ConfigError(
                f"half_life_days: {self.half_life_days:g}, and no times of the texts; give them as"
                " the second argument, in seconds since 1970"
            )
        if times is not None and not self.half_life_days:
            raise ConfigError(
                "times have no effect without a half-life; give one to from_pretrained, or leave"
                " them out"
            )
        return None if times is None else seconds_of(users, times)

    def _encode_views(self, views: Sequence[View]) -> np.ndarray:
        """z_VE of views, each a history of its own."""
        if not views:
            return np.zeros((0, self.config.embedding_width), np.float32)
        histories = histories_of(views, self.tokenizer, self.config.max_item_tokens)
        counts = np.array([len(view.texts) for view in views])
        parts = [
            self._batches(self.params, histories.take(rows))[0][:, 0]
            for rows in together(counts, self._batches.batch_users, self._most_behaviours)
        ]
        z_VE = np.concatenate(parts)
        bad = np.flatnonzero(~np.isfinite(z_VE).all(axis=1))
        if len(bad):
            view = views[bad[0]]
            raise NonFiniteError(
                f"user {view.user}, service {view.service!r}: its embedding is not finite; the"
                " parameters are damaged or the precision overflows"
            )
        return z_VE


def _in_small_chunks(config: EncoderConfig) -> EncoderConfig:
    """The same encoder, of which a CPU computes less in vain.

    A chunk is computed whole though one text may be all there is, and cores need no large ones. A
    single row of histories may be full of single behaviours; of several rows only a quarter.
    """
    return dataclasses.replace(
        config,
        item_rows=max(1, _CPU_SLOTS // config.row_tokens),
        history_rows=1,
        row_behaviours=max(_CPU_BEHAVIOURS, config.max_history),
    )
