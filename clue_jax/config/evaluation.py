"""What `evaluate` takes."""

# Annotations stay real types here (no `from __future__ import annotations`): config_flags reads
# them from the fields to parse overrides.

import enum
from dataclasses import dataclass, field

SUITES = ("matching", "downstream", "audit")
BASELINES = ("tfidf", "random_encoder", "chance")
FEATURES = (
    "clue",
    "random_encoder",
    "tfidf",
    "factors",
    "item_mean",
    "item_recent",
    "sasrec",
    "clue+best",
)
TUNED = ("fine_tuned", "text_transformer")  # encoders trained on the labels
MORE_FEATURES = ("als", *TUNED)  # that a config has to ask for
WHOLE = ("sasrec", "clue+best", *TUNED)  # models that cannot stand beside others
HEADS = ("linear", "mlp", "knn")
MORE_HEADS = ("boosting",)


@dataclass
class MatchingConfig:
    """Cross-service user matching: find the same person among others through another service."""

    services: tuple[str, ...] = ()  # every pair of these; empty: every pair of the export
    splits: tuple[str, ...] = ("test",)  # of the users who are matched
    min_behaviours: int = 5  # in each of the two services
    block: int = 1_000  # candidates in a block for the blocked recall
    bootstrap: int = 1_000  # resamples over users
    baselines: tuple[str, ...] = BASELINES  # models beside the export; () for none
    probe: str = ""  # run, or saved encoder: also match without the texts and words users repeat


class TaskKind(enum.Enum):
    BINARY = "binary"  # yes or no
    MULTICLASS = "multiclass"  # one of several classes
    REGRESSION = "regression"  # a number
    RETRIEVAL = "retrieval"  # the right item among a catalogue, full ranking
    AUDIENCE = "audience"  # users like given seeds, which are positive ones; labels as of BINARY
    CLICKS = "clicks"  # a row an impression: click-through and the value of policies


@dataclass
class TaskConfig:
    """One downstream task: a Parquet table of labels and what its columns are."""

    name: str = ""  # in results, as downstream/NAME
    kind: TaskKind = TaskKind.BINARY  # what a label is
    labels: str = ""  # file, folder or glob in `downstream.labels`; RETRIEVAL may leave it empty:
    # then the label is the first behaviour on `service` that the export left out
    user_id: str = "user_id"  # column
    label: str = "label"  # column; of RETRIEVAL the item's id at its source
    timestamp: str = "timestamp"  # column; empty: the labels have no dates
    timeless: bool = False  # no behaviour can give the label away, so the export needs no cutoff
    window_days: int = 0  # labels as late as this after the cutoff are refused; 0: none is
    service: str = ""  # of the catalogue of RETRIEVAL
    at: tuple[int, ...] = (10,)  # k of the metrics at k of RETRIEVAL and AUDIENCE
    best: str = ""  # column with the best possible prediction, shown as the model `best`
    # Of CLICKS, columns:
    action: str = "advertisement"  # what was shown
    position: str = "position"  # place on the page, which has a share in what is clicked
    propensity: str = "propensity"  # probability with which the logging policy showed it
    truth: str = ""  # table of true click probabilities of each user, to validate lifts


@dataclass
class GroupConfig:
    """A Parquet table that says which group each user is in, such as an age band or a region."""

    name: str = ""  # in results, before the value that names a group
    labels: str = ""  # file, folder or glob in `downstream.labels`
    user_id: str = "user_id"  # column
    label: str = "group"  # column


@dataclass
class DownstreamConfig:
    """Downstream tasks: heads on frozen embeddings beside baselines, on users in folds.

    Each fold of the users is predicted by heads that were fitted on the others; one more fold is
    kept from fitting to choose hyper-parameters and when to stop.
    """

    labels: str = ""  # folder of the label tables
    items: str = ""  # export of items (--config.what=items) for RETRIEVAL, item_mean, item_recent
    # Other exports, NAME=DIR: a window of time, another encoder. They see no more than the export
    # that is evaluated, and give the features NAME and NAME/SERVICE.
    beside: tuple[str, ...] = ()
    beside_items: tuple[str, ...] = ()  # NAME=DIR of their items, for RETRIEVAL, where they differ
    tasks: tuple[TaskConfig, ...] = ()  # what is predicted
    # Heads overfit on embeddings of users the encoder was trained on, so these are left out.
    splits: tuple[str, ...] = ("validation", "test")
    folds: int = 5  # parts of the users; each is predicted by heads fitted on the others
    # What heads read, a model each (evaluation/features.py).
    features: tuple[str, ...] = ("clue", "random_encoder", "tfidf", "factors", "clue+best")
    heads: tuple[str, ...] = HEADS  # small models on the vectors, of which validation users choose
    # Of linear heads and MLPs, of which validation users choose.
    weight_decays: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    mlp_widths: tuple[int, ...] = (64,)  # hidden units of the MLPs, likewise
    neighbours: tuple[int, ...] = (10, 30, 100)  # nearest users that vote in knn, likewise
    boosting_leaves: tuple[int, ...] = (4, 16)  # of a tree
    half_life_days: float = 60.0  # of a behaviour's weight in item_recent
    rank: int = 128  # dimensions of the truncated SVD of tfidf and factors, and of als
    als_alpha: float = 40.0  # weight of a behaviour of als beside what is unknown, which weighs 1
    als_penalty: float = 100.0  # of its squared factors
    steps: int = 300  # at most; the step of the least validation loss is kept
    batch_rows: int = 256  # labels in a step of a head
    sasrec_steps: int = 1_000  # at most, of the Transformer that RETRIEVAL trains from scratch
    tune_from: str = ""  # run, or saved encoder, that made the export: fine_tuned starts from it
    tune_steps: int = 60  # at most, of fine_tuned and text_transformer
    tune_learning_rates: tuple[float, ...] = (3e-4, 1e-3)  # peaks, of which validation users choose
    tune_users: int = 64  # in a batch
    max_users: int = 50_000  # a sample by hash where more are labelled
    max_unknown_users: int = 0  # labels of users that neither export nor dataset has
    # Users by visible behaviours, reported on their own: at most the first number, and so on.
    histories: tuple[int, ...] = (5, 20, 60)
    groups: tuple[GroupConfig, ...] = ()  # by what a table says, likewise, and how far they differ
    exploration: float = 0.1  # share of the policies of CLICKS that is dealt evenly
    bootstrap: int = 1_000  # resamples over users


@dataclass
class AuditConfig:
    """What an attacker who holds embeddings learns: who is who elsewhere, who was trained on.

    Attributes that can be predicted are tasks of `downstream`.
    """

    splits: tuple[str, ...] = ("test",)  # of the people who are to be linked
    services: tuple[str, ...] = ()  # every pair of these is linked; empty: every pair there is
    # Other exports of the same people, NAME=DIR: another window of time, another encoder.
    beside: tuple[str, ...] = ()
    # NAME=FILE, where that export has ids of its own: Parquet of true pairs, user_id and other_id.
    pairs: tuple[str, ...] = ()
    # Pairs that an attacker knows already and turns one encoder's space into the other's with; one
    # attack for each number. They are neither looked for nor candidates.
    known: tuple[int, ...] = (100,)
    min_behaviours: int = 5  # on each side
    galleries: tuple[int, ...] = (100, 1_000, 10_000)  # candidates, where there are so many
    histories: tuple[int, ...] = (20, 40, 80)  # of both sides together, as of `downstream`
    max_users: int = 20_000  # that are ranked, a sample by hash where there are more
    membership: bool = True  # whether training users are told from others
    # Exports of the same people by encoders not trained on any of them, NAME=DIR: who is near in
    # those anyhow is no sign of the training, which makes the attack on membership far stronger.
    reference: tuple[str, ...] = ()
    crops: tuple[str, ...] = ()  # NAME=DIR by the same encoder of fewer behaviours, likewise
    attack_folds: int = 5  # of users; each is told by an attack model fitted on the others
    bootstrap: int = 1_000  # resamples over users


def named_folders(pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=DIR, ... as a dict."""
    return {name: folder for name, _, folder in (pair.partition("=") for pair in pairs)}


@dataclass
class EvaluateConfig:
    # What is run, of matching, downstream and audit; results come in the order given.
    suites: tuple[str, ...] = ("matching",)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    downstream: DownstreamConfig = field(default_factory=DownstreamConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    min_audience: int = 30  # users of a group that is reported on its own
    data: str = ""  # prepared dataset; empty: the one named in the export's manifest
    seed: int = 0  # of folds, heads, resamples and baselines
    overwrite: bool = False  # replace what is in --out
