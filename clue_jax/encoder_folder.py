"""An encoder as a folder to be shared: weights, config and tokenizer, nothing of its training.

config.json         what it is, and the SHA-256 of the others
model.safetensors   parameters by path, as any reader of that format has them
tokenizer.json
card.md             for people; may be edited
program.jax         if asked for: runs without this package (serving_program.py)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from clue_jax import files, publishing
from clue_jax.config import EncoderConfig, from_json, to_json
from clue_jax.data.tokenizer import GENERIC_GUIDE, Tokenizer
from clue_jax.embeddings.reader import SEAL, seal_of
from clue_jax.errors import DataError
from clue_jax.markdown import CARD
from clue_jax.model import clue
from clue_jax.parallel.rules import path_of
from clue_jax.serving_program import inputs_of, serialized_program
from clue_jax.training.card import encoder_card

FORMAT, VERSION = "clue_jax/encoder", 1
_CONFIG, _WEIGHTS, _TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
_PROGRAM = "program.jax"


@dataclass(frozen=True)
class EncoderFolder:
    """What the folder holds."""

    config: EncoderConfig
    params: clue.Params
    tokenizer: Tokenizer
    services: tuple[str, ...]
    model_version: str


def is_encoder_folder(path: epath.Path) -> bool:
    """Whether a folder is one of these, and not a run directory."""
    return (path / _WEIGHTS).exists()


def write_encoder(
    path: epath.PathLike, encoder: EncoderFolder, *, program: bool, overwrite: bool
) -> None:
    """Writes the folder, whole or not at all.

    Raises:
        ConfigError: a program is asked for, and what serialises it is not installed.
        StorageError: it is there already, or cannot be written.
    """
    runs = serialized_program(encoder.config, encoder.params) if program else b""
    leaves = jax.tree_util.tree_leaves_with_path(encoder.params)
    arrays = {path_of(path): np.asarray(jax.device_get(leaf)) for path, leaf in leaves}
    with publishing.staged_directory(path, overwrite=overwrite) as folder:
        files.write_bytes(folder / _WEIGHTS, safetensors.numpy.save(arrays))
        encoder.tokenizer.save(folder / _TOKENIZER)
        card = encoder_card(
            encoder.config, encoder.tokenizer.vocab_size, encoder.services, encoder.model_version
        )
        files.write_text(folder / CARD, card)
        if program:
            files.write_bytes(folder / _PROGRAM, runs)
        names = (_WEIGHTS, _TOKENIZER, *((_PROGRAM,) if program else ()))
        described = {
            "format": FORMAT,
            "schema_version": VERSION,
            "encoder": to_json(encoder.config),
            "services": list(encoder.services),
            "reserved_guides": dict(encoder.tokenizer.reserved),
            "model_version": encoder.model_version,
            "guides": {service: encoder.tokenizer.guide(service) for service in encoder.services}
            | {"": GENERIC_GUIDE},
            "program": inputs_of(encoder.config) if program else None,
            "sha256": {name: files.sha256_file(folder / name) for name in names},
        }
        described[SEAL] = seal_of(described)
        files.write_json(folder / _CONFIG, described)


def read_encoder(path: epath.Path) -> EncoderFolder:
    """Reads the folder.

    Raises:
        DataError: a file is missing, damaged or of another format; names it.
    """
    described = files.read_json(path / _CONFIG)
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise DataError(f"{path / _CONFIG}: not that of an encoder, as UserEncoder.save writes it")
    version = described.get("schema_version")
    if not isinstance(version, int) or version > VERSION:
        raise DataError(
            f"{path / _CONFIG}: schema version {version}, but this program"
            f" knows {VERSION}; update clue_jax"
        )
    if described.get(SEAL) != seal_of(described):
        raise DataError(f"{path / _CONFIG}: not what was saved; it is damaged, save it again")
    payloads = {name: _checked(path / name, sha) for name, sha in described["sha256"].items()}
    tokenizer = Tokenizer(payloads[_TOKENIZER], str(path / _TOKENIZER))
    tokenizer = tokenizer.with_reserved(described["reserved_guides"])
    config = from_json(EncoderConfig, described["encoder"], f"{path / _CONFIG}: encoder")
    shapes = jax.eval_shape(lambda: clue.init(config, tokenizer.vocab_size, jax.random.key(0)))
    arrays = safetensors.numpy.load(payloads[_WEIGHTS])
    return EncoderFolder(
        config,
        jax.tree_util.tree_map_with_path(
            lambda where, shape: _leaf(path / _WEIGHTS, arrays, path_of(where), shape), shapes
        ),
        tokenizer,
        tuple(described["services"]),
        described["model_version"],
    )


def _leaf(
    file: epath.Path, arrays: dict[str, np.ndarray], name: str, shape: jax.ShapeDtypeStruct
) -> Any:
    if name not in arrays or arrays[name].shape != shape.shape:
        found = arrays[name].shape if name in arrays else "none"
        raise DataError(f"{file}: {name} has shape {found}, but its config says {shape.shape}")
    return jax.numpy.asarray(arrays[name], shape.dtype)


def _checked(path: epath.Path, sha256: str) -> bytes:
    if not path.exists():
        raise DataError(f"{path}: no such file; the folder is not complete, save it again")
    payload: bytes = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise DataError(f"{path}: not the bytes that were saved; it is damaged, save it again")
    return payload
