"""What the configs of logs and datasets must keep to, checked before anything is read."""

from __future__ import annotations

import datetime
import re

from clue_jax.config.checks import require
from clue_jax.config.data import (
    MIN_MEMORY_MB,
    SERVICE_NAME,
    NewServices,
    PrepareConfig,
    SourceConfig,
    SplitConfig,
    SynthesizeConfig,
)
from clue_jax.errors import ConfigError


def validate_synthesize(config: SynthesizeConfig) -> None:
    """Refuses a generator config that cannot work, before anything is written.

    Raises:
        ConfigError: names the key, the value and what would be valid.
    """
    for name in ("num_users", "num_days", "users_per_file", "interests_per_user"):
        value = getattr(config, name)
        require(value >= 1, name, f"{value} must be at least 1")
    for name in ("seed", "company"):
        value = getattr(config, name)
        require(value >= 0, name, f"{value} must not be negative")
    require(len(config.services) >= 1, "services", "at least one service is needed")
    require(len(set(config.services)) == len(config.services), "services", "a name is there twice")
    for service in config.services:
        require(
            bool(re.fullmatch(r"[a-z][a-z0-9_]{0,31}", service))
            and service not in ("latents", "labels"),
            "services",
            f"{service!r} cannot name a folder and a column: use up to 32 of a-z, 0-9 and _,"
            " a letter first, and not 'latents' or 'labels'",
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
        dated == {True} or not (config.start or config.end or config.retention_days),
        "start",
        "start, end and retention_days need sources with a timestamp",
    )
    require(config.retention_days >= 0, "retention_days", f"{config.retention_days} is negative")
    _validate_split(config.split)
    _validate_limits(config)
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
    names = [one.name for one in config.scrub.patterns]
    for place, one in enumerate(config.scrub.patterns):
        key = f"scrub.patterns[{place}]"
        require(bool(one.name) and bool(one.pattern), key, "give it a name and a pattern")
        require(names.count(one.name) == 1, key, f"two patterns are called {one.name!r}")


def _validate_split(split: SplitConfig) -> None:
    for name in ("validation", "test"):
        value = getattr(split, name)
        require(0.0 <= value <= 1.0, f"split.{name}", f"{value} is not a share of the users")
    require(
        split.validation + split.test < 1.0,
        "split",
        f"validation={split.validation} and test={split.test} leave no user for training",
    )


def _validate_limits(config: PrepareConfig) -> None:
    for name in (
        "max_item_tokens",
        "min_behaviours",
        "min_item_users",
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
