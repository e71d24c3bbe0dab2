"""The cells of the study of transfer: data sets, models, and shares of the training users."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

FRACTIONS = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Domain:
    """A data set of two services, with what its recipe needs."""

    name: str
    user_columns: tuple[str, ...]  # by either name in its tables
    text_column: str
    services: tuple[str, str]
    min_behaviours: int  # in each service, to be matched
    learning_rates: tuple[float, float]  # of the recipe: for users and for single items
    every: int  # steps between validations
    batches: dict[float, int]  # by fraction: users that fill a batch


DOMAINS = {
    domain.name: domain
    for domain in (
        Domain(
            "online_retail",
            ("Customer ID", "CustomerID"),
            "Description",
            ("year1", "year2"),
            10,
            (4e-3, 4e-3),
            20,
            {0.01: 16, 0.1: 128, 1.0: 1_024},
        ),
        Domain(
            "art_office",
            ("user_id",),
            "text",
            ("art", "office"),
            5,
            (1e-3, 2e-3),
            100,
            {0.01: 64, 0.1: 256, 1.0: 1_024},
        ),
    )
}
OTHER = dict(zip(DOMAINS, reversed(DOMAINS), strict=True))


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    target: str
    model: str
    fraction: float  # of the target's training users
    seed: int

    @property
    def domain(self):
        return DOMAINS[self.target]

    @property
    def key(self):
        return f"{self.target}-{self.model}-{self.fraction:g}-{self.seed}"

    @property
    def tokenizer_of(self):
        return self.target if self.model == "scratch" else OTHER[self.target]

    @property
    def factors(self):
        """Factors of the recipe's learning rates that are tried."""
        return (1.0,) if self.fraction == 1.0 else (1.0, 0.25)


def cells(seed):
    """In an order in which each only needs those before it."""
    order = [Cell(target, "scratch", 1.0, seed) for target in DOMAINS]
    order += [Cell(target, "zero_shot", 0.0, seed) for target in DOMAINS]
    for fraction in FRACTIONS[:-1]:
        for model in ("scratch", "continued"):
            order += [Cell(target, model, fraction, seed) for target in DOMAINS]
    for fraction in FRACTIONS[1:]:
        for model in ("continued", "scratch_source_tokenizer"):
            order += [Cell(target, model, fraction, seed) for target in DOMAINS]
    return list(dict.fromkeys(order))


def kept_users(user_ids, fraction, seed):
    """A share of users in order of a hash, so that a larger share has the smaller one in it."""
    ordered = sorted(user_ids, key=lambda u: hashlib.sha256(f"{seed}:{u}".encode()).digest())
    return ordered[: round(fraction * len(ordered))]


def without(table, column, users):
    """The rows of a table that are of other users; ids may be stored as whole floats."""
    ids = table[column]
    if pa.types.is_floating(ids.type):
        ids = ids.cast(pa.int64())
    gone = pc.is_in(ids.cast(pa.large_string()), pa.array(users, pa.large_string()))
    return table.filter(pc.invert(gone))


def in_lower_case(table, column):
    """A table with the texts of a column in lower case."""
    place = table.column_names.index(column)
    return table.set_column(place, column, pc.utf8_lower(table[column]))
