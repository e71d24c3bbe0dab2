"""Typed configuration: one dataclass per stage, validation, JSON.

A config file in `configs/` returns one of these from `get_config(variant)`. It is resolved and
validated once, saved as JSON beside what it made, and later stages read that JSON, never the file.
Derived values are properties, so an override can never leave them stale.
"""

# Annotations stay real types here (no `from __future__ import annotations`): config_flags reads
# them from the fields to parse overrides.

import dataclasses
import datetime
import enum
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clue_jax.errors import ConfigError

C = TypeVar("C")


# ---------------------------------------------------------------------------------- synthesize


@dataclass
class SynthesizeConfig:
    """The generative model behind `synthesize`; see data/synthetic.py for the process."""

    num_users: int = 20_000
    services: tuple[str, ...] = ("search", "shop", "news")
    num_topics: int = 64  # leaves of the topic tree
    items_per_service: int = 5_000  # catalogue size
    interests_per_user: int = 3  # topics a user cares about at the start
    drift: float = 0.15  # chance per month that one interest is replaced
    zipf_exponent: float = 1.05  # popularity of items inside a topic
    mean_behaviours: float = 30.0  # per user and service; lengths are log-normal
    behaviours_sigma: float = 0.9  # spread of the log-normal
    missing_service: float = 0.15  # chance that a user never uses a given service
    repeat: float = 0.1  # chance that a behaviour repeats an earlier item of the user
    noise: float = 0.1  # chance that a behaviour has nothing to do with the interests
    first_day: str = "2024-01-01"  # ISO date of the earliest behaviour
    num_days: int = 365
    users_per_file: int = 10_000
    seed: int = 0
    overwrite: bool = False


# ------------------------------------------------------------------------------------- prepare


SERVICE_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"  # it becomes part of a column's name


class Comparison(enum.Enum):
    """How a row filter compares a column with its value."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"
    MATCHES = "matches"  # regular expression found in the text
    NOT_MATCHES = "does not match"
    PRESENT = "is present"  # neither null nor blank; needs no value


@dataclass
class RowFilter:
    """Keeps the rows for which `column comparison value` holds; the rest is counted as filtered.

    A missing value makes no comparison hold.
    """

    column: str
    comparison: Comparison
    value: str = ""
    name: str = ""  # what it is counted as; empty: the comparison


@dataclass
class SourceConfig:
    """One kind of log table and how its columns become behaviours."""

    path: str = ""  # file or glob, relative to `PrepareConfig.source`; .gz is read as it is
    format: str = ""  # parquet, csv or jsonl; empty: from the file name
    delimiter: str = ","  # of CSV
    service: str = ""  # the service of every row, or empty when `service_column` says it
    service_column: str = ""
    user_id: str = "user_id"  # column
    timestamp: str = "timestamp"  # column: ISO date, epoch s or ms, or a timestamp; empty: none
    order: str = ""  # column with the order within a user's history, for logs without dates
    item_id: str = ""  # column with the identity of the item at its source; empty: none
    split: str = ""  # column with train, validation or test; empty: by hash
    text: str = "{text}"  # template over columns: the paper's tabular-to-text
    start: str = ""  # ISO date: rows before it are left out and counted
    end: str = ""  # ISO date: rows at or after it are left out and counted
    keep: tuple[RowFilter, ...] = ()


@dataclass
class SplitConfig:
    """Users are dealt to splits by a hash of their id, so none is ever in two."""

    validation: float = 0.1
    test: float = 0.1
    salt: str = "clue"


@dataclass
class TokenizerConfig:
    """Byte-level BPE, trained on texts of training users only, or a given one."""

    path: str = ""  # a tokenizer.json to use as it is; empty: train one
    vocab_size: int = 16_384  # including guide and padding tokens
    max_training_texts: int = 1_000_000  # distinct texts, a hash sample beyond it


@dataclass
class PseudonymConfig:
    """Keyed pseudonyms (HMAC-SHA-256) instead of user ids; the key itself is never stored."""

    key_file: str = ""
    key_env: str = ""  # name of an environment variable

    @property
    def enabled(self) -> bool:
        return bool(self.key_file or self.key_env)


@dataclass
class PrepareConfig:
    """Behaviour logs -> validated, tokenised, sharded dataset."""

    name: str = "behaviours"
    source: str = ""  # folder with the raw logs
    help: str = ""  # where to get the logs, said when they are not there
    sources: tuple[SourceConfig, ...] = ()
    split: SplitConfig = field(default_factory=SplitConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    pseudonym: PseudonymConfig = field(default_factory=PseudonymConfig)
    max_bad_rows: int = 0  # rows that may be malformed before the stage stops
    max_text_bytes: int = 10_000  # longer texts are rejected rows
    max_item_tokens: int = 64  # tokens kept of an item, guide token included
    min_behaviours: int = 1  # per user, over all services; users with fewer are dropped
    max_history: int = 4_096  # behaviours kept per user and service, the newest
    users_per_shard: int = 4_096
    overwrite: bool = False


# --------------------------------------------------------------------------------------- train


class Activation(enum.Enum):
    GELU = "gelu"
    SWIGLU = "swiglu"


class Precision(enum.Enum):
    """Type of activations and matmul operands; parameters, softmax and loss stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass
class TransformerConfig:
    """One of the two levels. Zero layers leave a bag: mean pooling alone."""

    num_layers: int = 4
    num_heads: int = 4  # H
    mlp_width: int = 512  # F


@dataclass
class EncoderConfig:
    """Item Transformer -> mean pool -> Service Transformer -> mean pool -> projection."""

    width: int = 128  # D
    embedding_width: int = 128  # E
    item: TransformerConfig = field(default_factory=TransformerConfig)
    service: TransformerConfig = field(default_factory=TransformerConfig)
    activation: Activation = Activation.GELU
    precision: Precision = Precision.FLOAT32
    max_item_tokens: int = 32  # longer items are truncated
    max_history: int = 64  # T: behaviours in one view
    project: bool = True  # a linear map to E; off needs embedding_width == width
    normalize_items: bool = False  # unit item vectors before the Service Transformer
    remat: bool = False  # recompute each block's activations inside a chunk too
    # The static buffers: a group of users shares one table of distinct items, chunks are computed
    # one at a time, only as many as there are (see data/packing.py).
    max_items: int = 4_096  # U: distinct items in a group of users
    row_tokens: int = 128  # L
    item_rows: int = 64  # R: packed rows of tokens in one computed chunk
    row_behaviours: int = 128  # behaviours in a packed row of histories
    history_rows: int = 64  # packed rows of histories in one computed chunk

    @property
    def chunk_items(self) -> int:
        """Items of one chunk at most: a quarter of its slots, and always those of one row."""
        return self.row_tokens * max(1, self.item_rows // 4)

    @property
    def chunk_views(self) -> int:
        """Views of one chunk at most."""
        return self.row_behaviours * max(1, self.history_rows // 4)

    @property
    def max_behaviours(self) -> int:
        """Behaviours in the views of one group at most."""
        return 4 * self.max_items


@dataclass
class SamplingConfig:
    """How two views of a user are drawn; every draw is keyed by (seed, step, identity)."""

    behaviours_kept: float = 1.0  # chance that a behaviour stays in a view
    token_dropout: float = 0.0  # chance that a token of an item (guide excepted) is left out
    generic_guide: float = 0.1  # chance that an item's guide token becomes the generic one
    within_service_weight: float = 0.0  # weight of pairs of two disjoint parts of one history
    item_steps: int = 0  # first steps, in which a view is one single item of the user
    min_behaviours: int = 1  # per service, for a user to take part with it


@dataclass
class LossConfig:
    temperature: float = 0.07  # initial value, or the value when fixed
    learn_temperature: bool = True
    max_logit_scale: float = 100.0  # the learned scale (1 / temperature) is clipped to it


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3  # peak
    item_learning_rate: float = 0.0  # peak during `sampling.item_steps`; 0: the same
    warmup_fraction: float = 0.05  # of the steps
    final_fraction: float = 0.1  # of the peak, at the last step
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.01  # on matrices only
    clip_norm: float = 1.0  # global gradient norm


@dataclass
class TrainConfig:
    steps: int = 1_000
    batch_users: int = 256  # B: users in the global batch
    log_every: int = 10
    eval_every: int = 100  # 0: never
    eval_users: int = 2_000  # held-out users at most
    eval_min_behaviours: int = 1  # in each service of the pair


@dataclass
class CheckpointConfig:
    every_steps: int = 200
    keep: int = 2  # newest
    keep_best: int = 1  # by `metric` on validation users
    metric: str = "recall_at_10"


@dataclass
class MeshConfig:
    """Devices along each mesh axis; -1 once: what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass
class PretrainConfig:
    """Contrastive pretraining of the encoder."""

    seed: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


# ---------------------------------------------------------------------------- export, evaluate


class ExportWhat(enum.Enum):
    USERS = "users"
    ITEMS = "items"


@dataclass
class ExportConfig:
    what: ExportWhat = ExportWhat.USERS
    cutoff: str = ""  # ISO time: behaviours at or after it are left out
    hold_out_last: int = 0  # behaviours left out at the end of each service's history
    splits: tuple[str, ...] = ("train", "validation", "test")
    step: int = -1  # checkpoint; -1: newest, -2: best
    batch_users: int = 512
    num_shards: int = 8
    overwrite: bool = False


BASELINES = ("tfidf", "random_encoder", "chance")


@dataclass
class MatchingConfig:
    """Cross-service user matching: find the same person among others through another service."""

    services: tuple[str, ...] = ()  # every pair of these; empty: every pair of the export
    splits: tuple[str, ...] = ("test",)
    min_behaviours: int = 5  # in each of the two services
    block: int = 1_000  # candidates in a block for the blocked recall
    bootstrap: int = 1_000  # resamples over users
    baselines: tuple[str, ...] = BASELINES


@dataclass
class EvaluateConfig:
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    data: str = ""  # prepared dataset; empty: the one named in the export's manifest
    seed: int = 0
    overwrite: bool = False


# ------------------------------------------------------------------------------------ to and from


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


# --------------------------------------------------------------------------------- validation


def require(condition: bool, key: str, problem: str) -> None:
    """Raises ConfigError naming `key` unless `condition` holds."""
    if not condition:
        raise ConfigError(f"config.{key}: {problem}")


def validate_synthesize(config: SynthesizeConfig) -> None:
    """Refuses a generator config that cannot work, before anything is written.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    for name in ("num_users", "num_days", "users_per_file", "interests_per_user"):
        value = getattr(config, name)
        require(value >= 1, name, f"{value} must be at least 1")
    require(config.seed >= 0, "seed", f"{config.seed} must not be negative")
    require(len(config.services) >= 1, "services", "at least one service is needed")
    require(len(set(config.services)) == len(config.services), "services", "a name is there twice")
    for service in config.services:
        require(
            bool(re.fullmatch(r"[a-z][a-z0-9_]{0,31}", service)) and service != "latents",
            "services",
            f"{service!r} cannot name a folder and a column: use up to 32 of a-z, 0-9 and _,"
            " a letter first, and not 'latents'",
        )
    require(
        2 <= config.num_topics <= 10_000,
        "num_topics",
        f"{config.num_topics} is not between 2 and 10,000",
    )
    require(
        config.interests_per_user <= config.num_topics,
        "interests_per_user",
        f"{config.interests_per_user} is more than num_topics={config.num_topics}",
    )
    require(
        config.items_per_service >= config.num_topics,
        "items_per_service",
        f"{config.items_per_service} leaves a topic without items; use at least"
        f" num_topics={config.num_topics}",
    )
    for name in ("drift", "missing_service", "repeat", "noise"):
        value = getattr(config, name)
        require(0.0 <= value <= 1.0, name, f"{value} is not a probability")
    require(0.0 <= config.zipf_exponent <= 10.0, "zipf_exponent", "is not between 0 and 10")
    require(1.0 <= config.mean_behaviours <= 1e6, "mean_behaviours", "is not between 1 and 1e6")
    require(0.0 <= config.behaviours_sigma <= 3.0, "behaviours_sigma", "is not between 0 and 3")
    try:
        datetime.date.fromisoformat(config.first_day)
    except ValueError as error:
        raise ConfigError(
            f"config.first_day: {config.first_day!r} is not a date such as 2024-01-31"
        ) from error


def validate_prepare(config: PrepareConfig) -> None:
    """Refuses a prepare config that cannot work, before any log is opened.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    require(bool(config.source), "source", "name the folder of the logs: --config.source=DIR")
    require(len(config.sources) >= 1, "sources", "at least one source of logs is needed")
    for position, source in enumerate(config.sources):
        _validate_source(source, f"sources[{position}]")
    dated = {bool(source.timestamp) for source in config.sources}
    require(
        len(dated) == 1,
        "sources",
        "some have a timestamp and some have none; times of one user could not be compared",
    )
    split = config.split
    for name in ("validation", "test"):
        value = getattr(split, name)
        require(0.0 <= value <= 1.0, f"split.{name}", f"{value} is not a share of the users")
    require(
        split.validation + split.test < 1.0,
        "split",
        f"validation={split.validation} and test={split.test} leave no user for training",
    )
    for name in ("max_item_tokens", "min_behaviours", "max_history", "users_per_shard"):
        value = getattr(config, name)
        require(value >= 1, name, f"{value} must be at least 1")
    require(config.max_item_tokens >= 2, "max_item_tokens", "must hold the guide and one token")
    require(config.max_bad_rows >= 0, "max_bad_rows", f"{config.max_bad_rows} is negative")
    require(config.max_text_bytes >= 1, "max_text_bytes", "must be at least 1")
    require(
        not (config.pseudonym.key_file and config.pseudonym.key_env),
        "pseudonym",
        "give key_file or key_env, not both",
    )


def _validate_source(source: SourceConfig, key: str) -> None:
    require(bool(source.path), f"{key}.path", "name a file or a glob such as 'logs/*.parquet'")
    require(
        not source.path.startswith("/") and ".." not in source.path.split("/"),
        f"{key}.path",
        f"{source.path!r} must be relative to config.source and stay inside it",
    )
    require(
        source.format in ("", "parquet", "csv", "jsonl"),
        f"{key}.format",
        f"{source.format!r} is not parquet, csv or jsonl",
    )
    require(len(source.delimiter) == 1, f"{key}.delimiter", "must be one character")
    require(
        bool(source.service) != bool(source.service_column),
        f"{key}.service",
        "give `service`, or `service_column` where rows say it themselves",
    )
    if source.service:
        require(
            bool(re.fullmatch(SERVICE_NAME, source.service)),
            f"{key}.service",
            f"{source.service!r}: use up to 64 letters, digits, '_', '-' and '.'",
        )
    require(bool(source.user_id), f"{key}.user_id", "name the column with the user")
    require(bool(source.text), f"{key}.text", "name the columns of the text: '{title}'")
    require(
        not (source.timestamp and source.order),
        f"{key}.order",
        "is for logs without dates; set timestamp='' beside it",
    )
    require(
        bool(source.timestamp) or not (source.start or source.end),
        f"{key}.start",
        "start and end need a timestamp",
    )


def validate_pretrain(config: PretrainConfig) -> None:
    """Refuses a training config that cannot work, before anything is read or compiled.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    encoder, sampling, train, mesh = config.encoder, config.sampling, config.train, config.mesh
    for level in ("item", "service"):
        stack: TransformerConfig = getattr(encoder, level)
        require(stack.num_layers >= 0, f"encoder.{level}.num_layers", "must not be negative")
        require(
            stack.num_layers == 0 or encoder.width % max(stack.num_heads, 1) == 0,
            f"encoder.{level}.num_heads",
            f"{stack.num_heads} heads do not divide the width {encoder.width}",
        )
    require(
        encoder.project or encoder.embedding_width == encoder.width,
        "encoder.embedding_width",
        f"must equal encoder.width ({encoder.width}) when encoder.project is off",
    )
    require(
        encoder.max_item_tokens <= encoder.row_tokens,
        "encoder.max_item_tokens",
        f"{encoder.max_item_tokens} does not fit a row of encoder.row_tokens={encoder.row_tokens}",
    )
    require(
        encoder.max_history <= encoder.row_behaviours,
        "encoder.max_history",
        f"{encoder.max_history} does not fit a row of"
        f" encoder.row_behaviours={encoder.row_behaviours}",
    )
    for name in ("behaviours_kept", "token_dropout", "generic_guide"):
        value = getattr(sampling, name)
        require(0.0 <= value <= 1.0, f"sampling.{name}", f"{value} is not a probability")
    require(sampling.behaviours_kept > 0, "sampling.behaviours_kept", "must be above 0")
    require(sampling.within_service_weight >= 0, "sampling.within_service_weight", "is negative")
    require(sampling.min_behaviours >= 1, "sampling.min_behaviours", "must be at least 1")
    require(train.steps >= 1, "train.steps", f"{train.steps} is not a number of steps")
    require(
        0 <= sampling.item_steps <= train.steps,
        "sampling.item_steps",
        f"{sampling.item_steps} is not within train.steps={train.steps}",
    )
    require(
        train.batch_users >= 2,
        "train.batch_users",
        f"{train.batch_users}: a contrastive batch needs at least 2 users",
    )
    require(config.loss.temperature > 0, "loss.temperature", "must be above 0")
    require(
        1.0 / config.loss.temperature <= config.loss.max_logit_scale,
        "loss.max_logit_scale",
        f"is below the initial scale {1.0 / config.loss.temperature:.1f}",
    )
    require(config.optim.learning_rate > 0, "optim.learning_rate", "must be above 0")
    require(config.checkpoint.every_steps >= 1, "checkpoint.every_steps", "must be at least 1")
    require(config.checkpoint.keep >= 1, "checkpoint.keep", "must be at least 1")
    for axis in ("fsdp", "tensor"):
        require(
            getattr(mesh, axis) == 1,
            f"mesh.{axis}",
            "only 1 is supported: parameters are replicated and users sharded over mesh.data",
        )


def epoch_seconds(time: str) -> int:
    """Epoch seconds of an ISO date or time; one without a zone is UTC.

    Raises:
        ValueError: it is neither.
    """
    moment = datetime.datetime.fromisoformat(time)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp() // 1)


def validate_export(config: ExportConfig) -> None:
    """Refuses an export that cannot work, before anything is read.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    if config.cutoff:
        try:
            epoch_seconds(config.cutoff)
        except ValueError as error:
            raise ConfigError(
                f"config.cutoff: {config.cutoff!r} is not a date or time such as 2024-06-01 or"
                " 2024-06-01T12:00:00+00:00"
            ) from error
    require(config.hold_out_last >= 0, "hold_out_last", f"{config.hold_out_last} is negative")
    require(
        config.what is ExportWhat.USERS or not (config.cutoff or config.hold_out_last),
        "what",
        "items have no behaviours to leave out; cutoff and hold_out_last are for users",
    )
    require(len(config.splits) >= 1, "splits", "name one split or more")
    require(len(set(config.splits)) == len(config.splits), "splits", "one is there twice")
    require(config.step >= -2, "step", f"{config.step}: a step, -1 (newest) or -2 (best)")
    for name in ("batch_users", "num_shards"):
        value = getattr(config, name)
        require(value >= 1, name, f"{value} must be at least 1")


def validate_evaluate(config: EvaluateConfig) -> None:
    """Refuses an evaluation that cannot work, before anything is read.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    matching = config.matching
    services = matching.services
    require(
        not services or (len(services) >= 2 and len(set(services)) == len(services)),
        "matching.services",
        f"{', '.join(services)}: name two different services or more, or none for all",
    )
    require(len(matching.splits) >= 1, "matching.splits", "name one split or more")
    require(len(set(matching.splits)) == len(matching.splits), "matching.splits", "one is twice")
    for name, least in (("min_behaviours", 1), ("block", 2), ("bootstrap", 1)):
        value = getattr(matching, name)
        require(value >= least, f"matching.{name}", f"{value} must be at least {least}")
    for name in matching.baselines:
        require(
            name in BASELINES,
            "matching.baselines",
            f"no baseline {name!r}; there are {', '.join(BASELINES)}",
        )
    require(config.seed >= 0, "seed", f"{config.seed} must not be negative")
