"""Parameters + prepared dataset -> embeddings on disk, sharded, resumable part by part."""

from __future__ import annotations
