"""Parameters + prepared dataset -> embeddings on disk, sharded, resumable part by part."""

from __future__ import annotations

import datetime
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from etils import epath

from clue_jax import files
from clue_jax.config import ExportConfig, ExportWhat, PretrainConfig, from_json, require
from clue_jax.console import progress, say
from clue_jax.data.records import Users, visible
from clue_jax.data.source import Dataset, open_dataset
from clue_jax.errors import CheckpointError, ConfigError, DataError
from clue_jax.inference import Embedder, combine
from clue_jax.model import clue
from clue_jax.training.checkpoint import Restored, load_params
