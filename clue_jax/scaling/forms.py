"""Laws that a loss may follow, as functions of what was spent on it.

Those of size and data are Hoffmann et al.'s (arXiv 2203.15556); that of the critical batch is
McCandlish et al.'s (arXiv 1812.06162): with E = samples / (1 + B / critical) as what counts, a
batch at the critical one needs twice the least samples, and twice the least steps.

`compute` C is in PF-days, `parameters` N without token embeddings, `users` D are those there are,
`samples` D those that were drawn (steps x batch), `batch` B is in users, `behaviours` T are per
user and service, `chance` is the loss of a run that has learnt nothing. Coefficients that must be
positive are kept as their logarithms, so that a search over them has no bounds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Columns = Mapping[str, np.ndarray]  # factor -> [R], one value for each run
LENGTH = 16.0  # behaviours per service that samples are compared at
_TINY = 1e-12  # what a form that reaches zero is cut to, as its logarithm is compared


@dataclass(frozen=True)
class Form:
    """A law.

    Attributes:
        name: for reports.
        factors: columns it is a function of.
        coefficients: names of its P coefficients.
        law: for people.
        predict: (coefficients [P], columns) -> losses [R], positive.
        starts: [K, P] where a search begins, from losses [R] and columns.
        values: of each factor that it needs: two tell a slope, but no bend beside a floor.
    """

    name: str
    factors: tuple[str, ...]
    coefficients: tuple[str, ...]
    law: str
    predict: Callable[[np.ndarray, Columns], np.ndarray]
    starts: Callable[[np.ndarray, Columns], np.ndarray]
    values: int = 3


def _power_law(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
    log_a, alpha = theta_P
    return _exp(log_a - alpha * np.log(columns["compute"]))


def _power_law_starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
    slope, height = np.polyfit(np.log(columns["compute"]), np.log(losses_R), 1)
    return np.array([[height, -slope]])


def _with_floor(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
    log_floor = theta_P[2]
    return _exp(log_floor) + _power_law(theta_P[:2], columns)


def _with_floor_starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
    starts = []
    for share in (0.02, 0.2, 0.5, 0.8, 0.95, 0.99):
        floor = share * losses_R.min()
        (start,) = _power_law_starts(losses_R - floor, columns)
        starts.append([*start, np.log(floor)])
    return np.array(starts)


def _log_linear(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
    height, slope = theta_P
    return np.maximum(height - slope * np.log10(columns["compute"]), _TINY)


def _log_linear_starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
    slope, height = np.polyfit(np.log10(columns["compute"]), losses_R, 1)
    return np.array([[height, -slope]])


def _size_and(data: str) -> Form:
    """Size and data, apart from what neither can help (arXiv 2203.15556, equation 2)."""

    def predict(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
        log_floor, log_a, alpha, log_b, beta = theta_P
        by_size = _exp(log_a - alpha * np.log(columns["parameters"]))
        by_data = _exp(log_b - beta * np.log(columns[data]))
        return _exp(log_floor) + by_size + by_data

    def starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
        least, spread = losses_R.min(), max(np.ptp(losses_R), 1e-3 * losses_R.min())
        size, some = (np.exp(np.log(columns[name]).mean()) for name in ("parameters", data))
        found = []
        for floor, alpha, beta, share in itertools.product(
            (0.1, 0.6, 0.95), (0.1, 0.4, 0.9), (0.1, 0.4, 0.9), (0.2, 0.8)
        ):
            log_a = np.log(spread * share) + alpha * np.log(size)
            log_b = np.log(spread * (1 - share)) + beta * np.log(some)
            found.append([np.log(floor * least), log_a, alpha, log_b, beta])
        return np.array(found)

    return Form(
        f"size and {data}",
        ("parameters", data),
        ("log_floor", "log_a", "alpha", "log_b", "beta"),
        f"L = floor + a N^-alpha + b D^-beta, D: {data}",
        predict,
        starts,
    )


def _batch_efficiency(log_critical: float, columns: Columns) -> np.ndarray:
    """Samples that count: of batches far above the critical one, only a part of each does."""
    return columns["samples"] / (1.0 + columns["batch"] / _exp(np.asarray(log_critical)))


def _critical_batch(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
    log_floor, log_b, beta, log_critical = theta_P
    counted = _batch_efficiency(log_critical, columns)
    return _exp(log_floor) + _exp(log_b - beta * np.log(counted))


def _critical_batch_starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
    batches = np.unique(columns["batch"])
    starts = []
    for critical, share in itertools.product(
        (batches[0] / 4, *batches, 4 * batches[-1]), (0.1, 0.6)
    ):
        floor, log_critical = share * losses_R.min(), np.log(critical)
        counted = np.log(_batch_efficiency(log_critical, columns))
        slope, height = np.polyfit(counted, np.log(losses_R - floor), 1)
        starts.append([np.log(floor), height, -slope, log_critical])
    return np.array(starts)


def _everything(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
    *size_and_data, log_critical, delta, log_c, gamma = theta_P
    log_length = np.log(columns["behaviours"] / LENGTH)
    counted = _batch_efficiency(log_critical, columns) * _exp(delta * log_length)
    drawn = {"parameters": columns["parameters"], "samples": counted}
    by_users = _exp(log_c - gamma * np.log(columns["users"]))
    return SIZE_AND_SAMPLES.predict(np.array(size_and_data), drawn) + by_users


def _everything_starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
    some = np.log(np.median(columns["users"]))
    return np.array(
        [
            [*start, np.log(critical), delta, np.log(0.1 * losses_R.min()) + 0.5 * some, 0.5]
            for start in SIZE_AND_SAMPLES.starts(losses_R, columns)[::3]
            for critical in (np.median(columns["batch"]), 10 * columns["batch"].max())
            for delta in (0.0, 0.5)
        ]
    )


def _interactions(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
    return _exp(_terms(columns) @ theta_P)


def _interactions_starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
    return np.linalg.lstsq(_terms(columns), np.log(losses_R), rcond=None)[0][None]


def _terms(columns: Columns) -> np.ndarray:
    """[R, P]; logarithms to base two, so that a coefficient is the effect of a doubling."""
    size, length, batch = (np.log2(columns[f]) for f in ("parameters", "behaviours", "batch"))
    ones = np.ones_like(size)
    # Around a fixed point in the paper's range, where main effects are then those of that point.
    n, t, b = size - np.log2(1e6), length - np.log2(64), batch - np.log2(256)
    return np.stack([ones, n, t, b, n * b, n * t], axis=1)


def from_chance(form: Form) -> Form:
    """The same law for runs that have only begun to learn: it ends at the loss of chance.

    A softmax among so many negatives loses log(negatives + 1) before anything is learnt, and no law
    of powers stays below that. 1 / L = 1 / chance + 1 / X is X where X is small, and chance where
    it is large.
    """

    def predict(theta_P: np.ndarray, columns: Columns) -> np.ndarray:
        beyond_R = np.maximum(form.predict(theta_P, columns), _TINY)
        return 1.0 / (1.0 / columns["chance"] + 1.0 / beyond_R)

    def starts(losses_R: np.ndarray, columns: Columns) -> np.ndarray:
        below_R = np.minimum(losses_R, 0.999 * columns["chance"])
        return form.starts(1.0 / (1.0 / below_R - 1.0 / columns["chance"]), columns)

    law = f"1 / L = 1 / chance + 1 / X, {form.law.replace('L =', 'X =', 1)}"
    return dataclasses.replace(
        form, name=f"{form.name}, from chance", law=law, predict=predict, starts=starts
    )


def _exp(exponents: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(exponents, -50.0, 50.0))


POWER_LAW = Form(
    "power law",
    ("compute",),
    ("log_a", "alpha"),
    "L = a C^-alpha",
    _power_law,
    _power_law_starts,
    values=2,
)
POWER_LAW_WITH_FLOOR = Form(
    "power law with floor",
    ("compute",),
    ("log_a", "alpha", "log_floor"),
    "L = floor + a C^-alpha",
    _with_floor,
    _with_floor_starts,
)
LOG_LINEAR = Form(
    "log-linear",
    ("compute",),
    ("height", "slope"),
    "L = height - slope log10(C)",
    _log_linear,
    _log_linear_starts,
    values=2,
)
SIZE_AND_USERS, SIZE_AND_SAMPLES = _size_and("users"), _size_and("samples")
INTERACTIONS = Form(
    "size, length and batch",
    ("parameters", "behaviours", "batch"),
    ("height", "size", "length", "batch", "size_batch", "size_length"),
    "log L = height + size n + length t + batch b + size_batch n b + size_length n t,"
    " n = log2(N / 1e6), t = log2(T / 64), b = log2(B / 256)",
    _interactions,
    _interactions_starts,
    values=2,
)
CRITICAL_BATCH = from_chance(
    Form(
        "critical batch",
        ("samples", "batch"),
        ("log_floor", "log_b", "beta", "log_critical"),
        "L = floor + b E^-beta, E = samples / (1 + B / critical)",
        _critical_batch,
        _critical_batch_starts,
    )
)
EVERYTHING = from_chance(
    Form(
        "everything",
        ("parameters", "samples", "batch", "behaviours", "users"),
        (*SIZE_AND_SAMPLES.coefficients, "log_critical", "delta", "log_c", "gamma"),
        f"L = floor + a N^-alpha + b E^-beta + c U^-gamma, U: users,"
        f" E = samples (T / {LENGTH:g})^delta / (1 + B / critical)",
        _everything,
        _everything_starts,
    )
)
FROM_CHANCE = from_chance(POWER_LAW_WITH_FLOOR)
SIZE_AND_SAMPLES_FROM_CHANCE = from_chance(SIZE_AND_SAMPLES)
OF_COMPUTE: Sequence[Form] = (POWER_LAW, POWER_LAW_WITH_FLOOR, LOG_LINEAR, FROM_CHANCE)
