"""What `synthesize` and `prepare` take."""

# Annotations stay real types here (no `from __future__ import annotations`): config_flags reads
# them from the fields to parse overrides.

import enum
from dataclasses import dataclass, field


@dataclass
class SynthesizeConfig:
    """The generative model behind `synthesize`; see data/synthetic.py for the process."""

    num_users: int = 20_000  # people, of whom each may use several services
    # Names of the services, each with a table and a catalogue of its own.
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
    num_days: int = 365  # days from the first behaviour to the last
    users_per_file: int = 10_000  # users in a Parquet file
    labels: bool = True  # of tasks, and an impression log; they change no byte of the logs
    seed: int = 0  # of all draws: the same one gives the same bytes
    company: int = 0  # those of one seed have topics and words in common, but items and people not
    overwrite: bool = False  # replace what is in --out


MIN_MEMORY_MB = 512
PROCESS_MEMORY_MB = 448  # of each of several processes, beside those below of the one they serve
PARENT_MEMORY_MB = 192
SERVICE_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"  # it becomes part of a column's name


class Comparison(enum.Enum):
    """How a row filter compares a column with its value."""

    EQUAL = "=="  # as texts, with 5.0 the same as 5
    NOT_EQUAL = "!="  # likewise
    GREATER = ">"  # as numbers; what is none does not hold
    LESS = "<"  # likewise
    MATCHES = "matches"  # regular expression found in the text
    NOT_MATCHES = "does not match"  # no such expression found
    PRESENT = "is present"  # neither null nor blank; needs no value


@dataclass
class RowFilter:
    """Keeps the rows for which `column comparison value` holds; the rest is counted as filtered.

    A missing value makes no comparison hold.
    """

    column: str  # of the log table
    comparison: Comparison  # which has to hold for a row to stay
    value: str = ""  # what the column is compared with
    name: str = ""  # what it is counted as; empty: the comparison


@dataclass
class SourceConfig:
    """One kind of log table and how its columns become behaviours."""

    path: str = ""  # file or glob, relative to `PrepareConfig.source`; .gz is read as it is
    format: str = ""  # parquet, csv or jsonl; empty: from the file name
    delimiter: str = ","  # of CSV
    service: str = ""  # the service of every row, or empty when `service_column` says it
    service_column: str = ""  # column with the service of each row; empty: `service` says it
    user_id: str = "user_id"  # column
    timestamp: str = "timestamp"  # column: ISO date, epoch s or ms, or a timestamp; empty: none
    order: str = ""  # column with the order within a user's history, for logs without dates
    item_id: str = ""  # column with the identity of the item at its source; empty: none
    split: str = ""  # column with train, validation or test; empty: by hash
    text: str = "{text}"  # template over columns: the paper's tabular-to-text
    start: str = ""  # ISO date: rows before it are left out and counted
    end: str = ""  # ISO date: rows at or after it are left out and counted
    keep: tuple[RowFilter, ...] = ()  # rows that stay have to pass all of these


@dataclass
class SplitConfig:
    """Users are dealt to splits by a hash of their id, so none is ever in two."""

    validation: float = 0.1  # share of the users, 0 to 1
    test: float = 0.1  # share of the users, 0 to 1; the rest trains
    salt: str = "clue"  # hashed with the ids: another one deals the users anew


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

    key_file: str = ""  # file with the key; empty: none
    key_env: str = ""  # name of an environment variable

    @property
    def enabled(self) -> bool:
        return bool(self.key_file or self.key_env)


@dataclass
class ScrubPattern:
    """Something else that texts are not to hold."""

    name: str = ""  # it is counted by, and replaced by, in brackets
    pattern: str = ""  # regular expression (RE2)


@dataclass
class ScrubConfig:
    """What is replaced in texts, and counted, so that no model sees it (data/scrubbing.py)."""

    emails: bool = False  # become [email]
    phones: bool = False  # become [phone]: with a country code, or written in groups
    cards: bool = False  # 13 to 19 digits become [card]
    patterns: tuple[ScrubPattern, ...] = ()  # more expressions, each with a placeholder of its own


@dataclass
class PrepareConfig:
    """Behaviour logs -> validated, tokenised, sharded dataset."""

    name: str = "behaviours"  # of the dataset, in its manifest and card
    source: str = ""  # folder with the raw logs
    help: str = ""  # where to get the logs, said when they are not there
    sources: tuple[SourceConfig, ...] = ()  # tables of logs, one entry a kind
    split: SplitConfig = field(default_factory=SplitConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    pseudonym: PseudonymConfig = field(default_factory=PseudonymConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)
    suppress: str = ""  # file of ids of users, as the logs have them, whose rows are left out
    start: str = ""  # ISO date: rows of any source before it are left out and counted
    end: str = ""  # ISO date, such as that of a split in time: rows at or after it are left out
    retention_days: int = 0  # rows older than so many days, today's included, are left out; 0: none
    max_bad_rows: int = 0  # rows that may be malformed before the stage stops
    replace_bad_text: bool = False  # mend and cut texts (U+FFFD) rather than reject their rows
    max_text_bytes: int = 10_000  # longer texts are rejected rows
    max_item_tokens: int = 64  # tokens kept of an item, guide token included
    drop_repeats: bool = False  # of equal user, service, time and text keep one; else count them
    max_behaviours: int = 0  # per user; users with more are dropped as robots; 0: no bound
    max_user_share: float = 1.0  # of all behaviours; users with a larger one are dropped as robots
    min_item_users: int = 1  # users an item needs; behaviours on others' own texts are dropped
    min_service_behaviours: int = 1  # per user and service; shorter histories are dropped
    min_behaviours: int = 1  # per user, over all services; users with fewer are dropped
    max_history: int = 4_096  # behaviours kept per user and service, the newest
    users_per_shard: int = 4_096  # users in a file of the dataset, at most
    memory_mb: int = 2_048  # resident memory of all processes together, however large the logs
    processes: int = 0  # change no byte; 0: one a core, if they fit into memory_mb and pay
    texts_may_be_shown: bool = True  # of people; false: `report --show_texts` refuses to
    overwrite: bool = False  # replace what is in --out

    @property
    def most_processes(self) -> int:
        """Processes that `memory_mb` has room for."""
        return max(1, (self.memory_mb - PARENT_MEMORY_MB) // PROCESS_MEMORY_MB)
