"""What `export` takes."""

# Annotations stay real types here (no `from __future__ import annotations`): config_flags reads
# them from the fields to parse overrides.

import datetime
import enum
import math
from dataclasses import dataclass

from clue_jax.config.checks import require
from clue_jax.errors import ConfigError


class StoredPrecision(enum.Enum):
    """How the values of exported vectors are kept; readers give float32 for each."""

    FLOAT32 = "float32"  # 4 bytes a dimension, as computed
    FLOAT16 = "float16"  # 2 bytes
    INT8 = "int8"  # 1 byte, and a scale for each vector


class ItemTableUse(enum.Enum):
    """Whether each item of the dataset is encoded once for all batches, or once for each."""

    AUTO = "auto"  # for all where batches have most of their items in common
    ON = "on"  # once for all batches
    OFF = "off"  # anew in each batch


class ExportWhat(enum.Enum):
    USERS = "users"  # a vector per user, and per user and service
    ITEMS = "items"  # a vector per distinct item


@dataclass
class ExportConfig:
    what: ExportWhat = ExportWhat.USERS  # is embedded
    cutoff: str = ""  # ISO time: behaviours at or after it are left out
    start: str = ""  # ISO time: behaviours before it are left out
    hold_out_last: int = 0  # behaviours left out at the end of each service's history
    newest: int = 0  # of what is left, the newest so many of each service alone; 0: all
    # A behaviour's weight, in the mean over its service and of its service, halves every so many
    # days into the past; 0: all behaviours, and all services, weigh alike.
    half_life_days: float = 0.0
    splits: tuple[str, ...] = ("train", "validation", "test")  # whose users are exported
    # Older behaviours are left out; 0, or more than the dataset's: as the dataset says.
    retention_days: int = 0
    suppress: str = ""  # file of ids of users, as the dataset has them, who get no embedding
    step: int = -1  # checkpoint; -1: newest, -2: best
    batch_users: int = 512  # users that are encoded together
    item_table: ItemTableUse = ItemTableUse.AUTO  # whether items are encoded once, before the users
    num_shards: int = 0  # parts; 0: 8, or as many as have 100,000 rows each
    host: str = ""  # i/P: of P hosts that share the export, this is number i, from 0
    precision: StoredPrecision = StoredPrecision.FLOAT32  # of the values on disk
    dimensions: int = 0  # keep so many of each vector, scaled to length one again; 0: all
    npy: bool = False  # also write vectors and ids as .npy, for readers of no Parquet
    verify: bool = False  # compare all shards of the data with their SHA-256 before anything else
    overwrite: bool = False  # replace what is in --out


LIMITS = ("hold_out_last", "newest", "retention_days")
DATED = ("start", "cutoff", "half_life_days")


def epoch_seconds(time: str) -> int:
    """Epoch seconds of an ISO date or time; one without a zone is UTC.

    Raises:
        ValueError: it is neither.

    Examples:
        >>> epoch_seconds("2024-06-01"), epoch_seconds("2024-06-01T02:00:00+02:00")
        (1717200000, 1717200000)
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
    start, cutoff = _time("start", config.start), _time("cutoff", config.cutoff)
    require(
        start is None or cutoff is None or start < cutoff,
        "start",
        f"{config.start} is not before config.cutoff={config.cutoff}",
    )
    for name in LIMITS:
        require(getattr(config, name) >= 0, name, f"{getattr(config, name)} is negative")
    require(
        0.0 <= config.half_life_days < math.inf,
        "half_life_days",
        f"{config.half_life_days} must be finite and not negative",
    )
    limited = [name for name in DATED + LIMITS if getattr(config, name)]
    require(
        config.what is ExportWhat.USERS or not limited,
        "what",
        f"items have no behaviours to choose among; {' and '.join(limited)}: for users alone",
    )
    require(
        config.what is ExportWhat.USERS or not config.suppress,
        "suppress",
        "a list of users says nothing of items",
    )
    require(len(config.splits) >= 1, "splits", "name one split or more")
    require(len(set(config.splits)) == len(config.splits), "splits", "one is there twice")
    require(config.step >= -2, "step", f"{config.step}: a step, -1 (newest) or -2 (best)")
    require(config.batch_users >= 1, "batch_users", f"{config.batch_users} must be at least 1")
    require(config.num_shards >= 0, "num_shards", f"{config.num_shards} is negative")
    require(config.dimensions >= 0, "dimensions", f"{config.dimensions} is negative")
    index, _, count = config.host.partition("/")
    require(
        not config.host or (index.isdecimal() and count.isdecimal() and int(index) < int(count)),
        "host",
        f"{config.host!r}: give i/P, such as 0/4, with i from 0 and below P",
    )


def _time(name: str, value: str) -> int | None:
    try:
        return epoch_seconds(value) if value else None
    except ValueError as error:
        raise ConfigError(
            f"config.{name}: {value!r} is not a date or time such as 2024-06-01 or"
            " 2024-06-01T12:00:00+00:00"
        ) from error
