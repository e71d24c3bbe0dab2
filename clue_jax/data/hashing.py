"""64-bit hashes: what orders users, deals them to splits, and identifies items."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def hash64(*parts: str) -> int:
    """64 bits of BLAKE2b over the parts, joined by NUL."""
    return int(hashes64(["\0".join(parts)])[0])


def hashes64(texts: Iterable[str]) -> np.ndarray:
    """`hash64` of texts whose parts are joined already, [n] uint64."""
    digest = hashlib.blake2b
    digests = [digest(text.encode("utf-8"), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), "<u8")
