"""Typed configuration: one dataclass per stage, validation, JSON.

A config file in `configs/` returns one of these from `get_config(variant)`. It is resolved and
validated once, saved as JSON beside what it made, and later stages read that JSON, never the file.
Derived values are properties, so an override can never leave them stale.
"""

from clue_jax.config.checks import require
from clue_jax.config.data import (
    PARENT_MEMORY_MB,
    SERVICE_NAME,
    Comparison,
    NewServices,
    PrepareConfig,
    PseudonymConfig,
    RowFilter,
    SourceConfig,
    SplitConfig,
    SynthesizeConfig,
    TokenizerConfig,
)
from clue_jax.config.data_checks import validate_prepare, validate_synthesize
from clue_jax.config.evaluation import (
    BASELINES,
    FEATURES,
    DownstreamConfig,
    EvaluateConfig,
    MatchingConfig,
    TaskConfig,
    TaskKind,
)
from clue_jax.config.evaluation_checks import validate_evaluate
from clue_jax.config.json import from_json, to_json
from clue_jax.config.scaling import (
    HeldOutConfig,
    RateRule,
    ScaleConfig,
    Sweep,
    validate_scale,
)
from clue_jax.config.serving import (
    ExportConfig,
    ExportWhat,
    ItemTableUse,
    StoredPrecision,
    epoch_seconds,
    validate_export,
)
from clue_jax.config.training import (
    Activation,
    AttentionKernel,
    CheckpointConfig,
    DataConfig,
    EncoderConfig,
    HistorySchedule,
    LossConfig,
    LossForm,
    MeshConfig,
    OptimConfig,
    PairWeight,
    Parts,
    Precision,
    PretrainConfig,
    Remat,
    SamplingConfig,
    TrainConfig,
    TransformerConfig,
    Transport,
)
from clue_jax.config.training_checks import batch_ranges, validate_pretrain

__all__ = [
    "SynthesizeConfig",
    "SERVICE_NAME",
    "PARENT_MEMORY_MB",
    "Comparison",
    "RowFilter",
    "SourceConfig",
    "SplitConfig",
    "NewServices",
    "TokenizerConfig",
    "PseudonymConfig",
    "PrepareConfig",
    "validate_synthesize",
    "validate_prepare",
    "Activation",
    "Precision",
    "Remat",
    "AttentionKernel",
    "TransformerConfig",
    "EncoderConfig",
    "Parts",
    "PairWeight",
    "HistorySchedule",
    "SamplingConfig",
    "LossForm",
    "Transport",
    "LossConfig",
    "OptimConfig",
    "TrainConfig",
    "CheckpointConfig",
    "MeshConfig",
    "DataConfig",
    "PretrainConfig",
    "validate_pretrain",
    "batch_ranges",
    "HeldOutConfig",
    "RateRule",
    "Sweep",
    "ScaleConfig",
    "validate_scale",
    "StoredPrecision",
    "ItemTableUse",
    "ExportWhat",
    "ExportConfig",
    "epoch_seconds",
    "validate_export",
    "BASELINES",
    "FEATURES",
    "MatchingConfig",
    "TaskKind",
    "TaskConfig",
    "DownstreamConfig",
    "EvaluateConfig",
    "validate_evaluate",
    "to_json",
    "from_json",
    "require",
]
