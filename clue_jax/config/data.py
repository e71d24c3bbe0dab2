"""What `synthesize` and `prepare` take."""

# Annotations stay real types here (no `from __future__ import annotations`): config_flags reads
# them from the fields to parse overrides.

import datetime
import enum
import re
from dataclasses import dataclass, field

from clue_jax.config.checks import require
from clue_jax.errors import ConfigError


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


MIN_MEMORY_MB = 512
PROCESS_MEMORY_MB = 448  # of each of several processes, beside those below of the one they serve
PARENT_MEMORY_MB = 192
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


class NewServices(enum.Enum):
    """Which guide token a service gets that the given tokenizer does not know."""

    GENERIC = "generic"  # that of all services an encoder has not seen
    RESERVED = "reserved"  # one for itself, to train on; until then it is read as the generic one


@dataclass
class TokenizerConfig:
    """Byte-level BPE, trained on texts of training users only, or a given one."""

    path: str = ""  # of a run, a dataset or a tokenizer.json whose it is; empty: train one
    new_services: NewServices = NewServices.GENERIC  # guides of services that `path` lacks
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
    start: str = ""  # ISO date: rows of any source before it are left out and counted
    end: str = ""  # ISO date, such as that of a split in time: rows at or after it are left out
    max_bad_rows: int = 0  # rows that may be malformed before the stage stops
    replace_bad_text: bool = False  # mend and cut texts (U+FFFD) rather than reject their rows
    max_text_bytes: int = 10_000  # longer texts are rejected rows
    max_item_tokens: int = 64  # tokens kept of an item, guide token included
    drop_repeats: bool = False  # of equal user, service, time and text keep one; else count them
    max_behaviours: int = 0  # per user; users with more are dropped as robots; 0: no bound
    max_user_share: float = 1.0  # of all behaviours; users with a larger one are dropped as robots
    min_service_behaviours: int = 1  # per user and service; shorter histories are dropped
    min_behaviours: int = 1  # per user, over all services; users with fewer are dropped
    max_history: int = 4_096  # behaviours kept per user and service, the newest
    users_per_shard: int = 4_096
    memory_mb: int = 2_048  # resident memory of all processes together, however large the logs
    processes: int = 0  # change no byte; 0: one a core, if they fit into memory_mb and pay
    overwrite: bool = False

    @property
    def most_processes(self) -> int:
        """Processes that `memory_mb` has room for."""
        return max(1, (self.memory_mb - PARENT_MEMORY_MB) // PROCESS_MEMORY_MB)


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
    require(
        dated == {True} or not (config.start or config.end),
        "start",
        "start and end need sources with a timestamp",
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
    for name in (
        "max_item_tokens",
        "min_behaviours",
        "min_service_behaviours",
        "max_history",
        "users_per_shard",
    ):
        value = getattr(config, name)
        require(value >= 1, name, f"{value} must be at least 1")
    require(config.max_behaviours >= 0, "max_behaviours", f"{config.max_behaviours} is negative")
    require(
        0.0 < config.max_user_share <= 1.0,
        "max_user_share",
        f"{config.max_user_share} is not a share above 0 and up to 1 of all behaviours",
    )
    require(
        config.memory_mb >= MIN_MEMORY_MB,
        "memory_mb",
        f"{config.memory_mb} is too little; the program itself and one batch of rows take about"
        f" {MIN_MEMORY_MB}",
    )
    require(config.processes >= 0, "processes", f"{config.processes} is negative")
    require(
        config.processes <= config.most_processes,
        "processes",
        f"{config.processes} do not fit into config.memory_mb={config.memory_mb}; there is room for"
        f" {config.most_processes}",
    )
    require(config.max_item_tokens >= 2, "max_item_tokens", "must hold the guide and one token")
    require(
        bool(config.tokenizer.path) or config.tokenizer.new_services is NewServices.GENERIC,
        "tokenizer.new_services",
        "a tokenizer trained here knows every service; name the one to use in tokenizer.path",
    )
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
