"""A trained encoder in a few lines of Python: texts of behaviour in, vectors out.

    from clue_jax import UserEncoder

    encoder = UserEncoder.from_pretrained("runs/first")
    z_NE = encoder.encode([{"search": ["running shoes"], "shop": ["trail shoe 42", "socks"]}])

The same vectors as `export` gives, in any process, without a prepared dataset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax.composition import combine
from clue_jax.config import EncoderConfig
from clue_jax.console import progress
from clue_jax.data.capacity import capacity_for_any
from clue_jax.data.columns import render
from clue_jax.data.guides import given_tokenizer
from clue_jax.data.hashing import hashes64
from clue_jax.data.item_tokens import tokenize
from clue_jax.data.ragged import offsets_of, rows_at
from clue_jax.data.records import Users
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.encoder_folder import EncoderFolder, is_encoder_folder, read_encoder, write_encoder
from clue_jax.errors import DataError, NonFiniteError
from clue_jax.inference import BatchEncoder
from clue_jax.model import clue
from clue_jax.parallel.mesh import single_device_mesh
from clue_jax.training.checkpoint import NEWEST
from clue_jax.training.parameters import load_params
from clue_jax.training.trained import read_run

History = Mapping[str, Sequence[str]]  # service -> texts, oldest first
_BATCH_VIEWS = 1_024  # histories that are encoded together, at most
_BATCH_FULL = 64  # of the longest histories: what their behaviours add up to, at most
_BATCH_USERS = 1_000  # users whose texts are tokenised together
_CPU_SLOTS = 512  # of tokens in a chunk, on CPUs
_CPU_BEHAVIOURS = 128  # in a chunk of histories, on CPUs; more where one history may have more
_NUL = pa.scalar("\0", pa.large_string())


class UserEncoder:
    """Encodes users given as texts by service.

    Attributes:
        config: of the encoder.
        tokenizer: of its texts, with the guides of the services it was trained on.
        services: those it has a guide for; others are encoded with the generic one.
        model_version: as in the manifests of exports from the same checkpoint.

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
    ):
        self.config, self.params, self.tokenizer = config, params, tokenizer
        self.services, self.model_version = tuple(services), model_version
        # Sized for any histories, so that nothing compiles twice.
        self._most_behaviours = _BATCH_FULL * config.max_history
        laid = _in_small_chunks(config) if jax.default_backend() == "cpu" else config
        capacity = capacity_for_any(laid, _BATCH_VIEWS, 1, self._most_behaviours)
        self._batches = BatchEncoder(laid, capacity, single_device_mesh())

    @classmethod
    def from_pretrained(cls, path: epath.PathLike, step: int = NEWEST) -> UserEncoder:
        """The encoder of a run directory of `train`, or of a folder that `save` wrote.

        Args:
            path: of the folder.
            step: of a run's checkpoint; -1: newest, -2: best.

        Raises:
            CheckpointError: no run there, or no whole checkpoint of that step.
            DataError: a saved folder that is damaged.
        """
        path = epath.Path(path)
        if is_encoder_folder(path):
            return cls(**vars(read_encoder(path)))
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

    def encode(self, users: Sequence[History]) -> np.ndarray:
        """One vector per user: the mean of its services' vectors, of length one.

        Args:
            users: N histories; of each service the newest `config.max_history` texts count.

        Returns:
            z_NE float32.

        Raises:
            DataError: a user without any behaviour, or what is no text; names user and service.
            NonFiniteError: an embedding with a NaN or infinity; names the user.
        """
        for number, user in enumerate(users):
            if not any(len(texts) for texts in user.values()):
                raise DataError(f"user {number}: no behaviour in any service, so nothing to encode")
        by_service = self.encode_services(users)
        z_NSE = np.stack(list(by_service.values()), axis=1) if by_service else None
        if z_NSE is None:
            return np.zeros((0, self.config.embedding_width), np.float32)
        return combine(z_NSE, np.any(z_NSE, axis=2)).astype(np.float32)

    def encode_services(self, users: Sequence[History]) -> dict[str, np.ndarray]:
        """A vector of length one per user and service; zeros where a user lacks the service.

        Args:
            users: as of `encode`; here a user may have no behaviour at all.

        Returns:
            service -> z_NE float32, for every service that a user names.

        Raises:
            DataError, NonFiniteError: as of `encode`.
        """
        services = list(dict.fromkeys(service for user in users for service in user))
        width = self.config.embedding_width
        found = {service: np.zeros((len(users), width), np.float32) for service in services}
        with progress("encoding users", len(users)) as advance:
            for first in range(0, len(users), _BATCH_USERS):
                some = users[first : first + _BATCH_USERS]
                views = [
                    (first + n, service, self._checked(first + n, service, texts))
                    for n, user in enumerate(some)
                    for service, texts in user.items()
                    if len(texts)
                ]
                z_VE = self._encode_views(views)
                for (number, service, _), z_E in zip(views, z_VE, strict=True):
                    found[service][number] = z_E
                advance(len(some))
        return found

    def _checked(self, number: int, service: str, texts: Sequence[str]) -> list[str]:
        """The newest texts of a view."""
        if isinstance(texts, str):
            raise DataError(f"user {number}, service {service!r}: one text, not a list of texts")
        newest = list(texts[-self.config.max_history :])
        for text in newest:
            if not isinstance(text, str):
                raise DataError(f"user {number}, service {service!r}: {text!r} is not a text")
            if not _is_unicode(text):
                raise DataError(
                    f"user {number}, service {service!r}: {text!r} is not Unicode: half of a"
                    " character in it has no other half; decode it with errors='replace'"
                )
        return newest

    def _encode_views(self, views: Sequence[tuple[int, str, list[str]]]) -> np.ndarray:
        """z_VE of views (user, service, texts), each a history of its own."""
        if not views:
            return np.zeros((0, self.config.embedding_width), np.float32)
        histories = _histories(views, self.tokenizer, self.config.max_item_tokens)
        counts = np.array([len(texts) for _, _, texts in views])
        parts = [
            self._batches(self.params, histories.take(rows))[0][:, 0]
            for rows in _together(counts, self._batches.batch_users, self._most_behaviours)
        ]
        z_VE = np.concatenate(parts)
        bad = np.flatnonzero(~np.isfinite(z_VE).all(axis=1))
        if len(bad):
            number, service, _ = views[bad[0]]
            raise NonFiniteError(
                f"user {number}, service {service!r}: its embedding is not finite; the parameters"
                " are damaged or the precision overflows"
            )
        return z_VE


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _together(counts: np.ndarray, most: int, most_behaviours: int) -> Iterator[np.ndarray]:
    """Rows in turn: so many at a time as neither they nor their behaviours exceed what fits."""
    ends, first = np.cumsum(counts), 0
    while first < len(counts):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + most_behaviours, side="right"))
        last = min(last, first + most)
        yield np.arange(first, last)
        first = last


def _histories(
    views: Sequence[tuple[int, str, list[str]]], tokenizer: Tokenizer, max_item_tokens: int
) -> Users:
    """Each view as a user with one service, of items that are distinct by service and text."""
    counts = [len(texts) for _, _, texts in views]
    owners = np.repeat(np.arange(len(views)), counts)
    raw = pa.array([text for _, _, texts in views for text in texts], pa.large_string())
    texts = render("{text}", {"text": raw})  # white space as `prepare` has it
    services = pa.array([service for _, service, texts in views for _ in texts], pa.large_string())
    keys = pc.binary_join_element_wise(services, texts, _NUL).to_pylist()
    identities, first, codes = np.unique(hashes64(keys), return_index=True, return_inverse=True)
    tokens = tokenize(services.take(first), texts.take(first), tokenizer, max_item_tokens)
    pairs, position = np.unique(owners * len(identities) + codes, return_inverse=True)
    owner, item = np.divmod(pairs, len(identities))
    item_offsets = offsets_of(np.bincount(owner, minlength=len(views)))
    flat, lengths = rows_at(tokens.offsets, item)
    return Users(
        user_ids=np.arange(len(views)).astype(str).astype(object),
        services=("view",),
        item_ids=identities[item],
        item_offsets=item_offsets,
        tokens=tokens.tokens[flat],
        token_offsets=offsets_of(lengths),
        behaviour_items=(position - item_offsets[owners]).astype(np.int32),
        behaviour_times=np.zeros(len(owners), np.int64),
        behaviour_offsets=offsets_of(np.array(counts, np.int64)),
    )
