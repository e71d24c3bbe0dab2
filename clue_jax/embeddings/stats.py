"""Figures of an export that tell whether its embeddings are spread out or collapsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from clue_jax.embeddings.reader import open_export, verified_parts
from clue_jax.embeddings.vectors import matrix
from clue_jax.errors import DataError

SAMPLE = 1_000  # rows whose pairs are compared
QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
LEADING = (1, 8, 32)  # directions of most variance, as many as these
# Of unit vectors spread evenly each dimension has a deviation of 1/sqrt(E).
DEAD = 0.01
BINS, BAR = 20, 50  # of the histogram, and characters of its longest bar


@dataclass(frozen=True)
class Statistics:
    """Of the column `embedding` of an export, the combined vectors of E dimensions.

    Attributes:
        manifest: of the export.
        services: service -> rows that have it.
        norms: least and greatest length.
        mean_E: of each dimension.
        deviation_E: standard deviation of each dimension.
        variance_E: eigenvalues of the covariance, the greatest first.
        cosines: of all pairs among at most 1,000 rows, which lie evenly over the export.
    """

    manifest: dict[str, Any]
    services: dict[str, int]
    norms: tuple[float, float]
    mean_E: np.ndarray
    deviation_E: np.ndarray
    variance_E: np.ndarray
    cosines: np.ndarray

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the shares of variance (Roy and Vetterli, EUSIPCO 2007)."""
        total = self.variance_E.sum()
        shares = self.variance_E[self.variance_E > 0] / total if total else np.ones(1)
        return float(np.exp(-(shares * np.log(shares)).sum()))

    @property
    def dead(self) -> np.ndarray:
        """Dimensions that deviate less than a hundredth of what an even spread would."""
        return np.flatnonzero(self.deviation_E < DEAD / np.sqrt(len(self.deviation_E)))


def statistics(path: epath.PathLike) -> Statistics:
    """Reads an export of users or items, one part in memory at a time, each verified.

    Raises:
        DataError: the export is damaged, or has no rows.
    """
    manifest = open_export(path)
    if not manifest["rows"]:
        raise DataError(f"{path}: an export of nobody has no statistics")
    width = manifest["embedding_width"]
    sum_E, products_EE = np.zeros(width), np.zeros((width, width))
    wanted = np.unique(np.linspace(0, manifest["rows"] - 1, SAMPLE).astype(int))
    services = dict.fromkeys(manifest["dataset"]["services"], 0)
    sample, norms, first = [], [], 0
    for table in verified_parts(path, manifest):
        z_NE = matrix(table, "embedding")[0].astype(np.float64)
        sum_E += z_NE.sum(axis=0)
        products_EE += z_NE.T @ z_NE
        sample.append(z_NE[wanted[(first <= wanted) & (wanted < first + len(z_NE))] - first])
        norms += [f(np.linalg.norm(z_NE, axis=1)) for f in (np.min, np.max) if len(z_NE)]
        _count(table, services)
        first += len(z_NE)
    mean_E = sum_E / first
    covariance_EE = products_EE / first - np.outer(mean_E, mean_E)
    return Statistics(
        manifest,
        services,
        (float(min(norms)), float(max(norms))),
        mean_E,
        np.sqrt(np.maximum(np.diag(covariance_EE), 0)),
        np.maximum(np.linalg.eigvalsh(covariance_EE)[::-1], 0),
        _pair_cosines(np.concatenate(sample)),
    )


def describe(found: Statistics) -> list[str]:
    """The statistics as lines of text, a histogram included."""
    rows, what, width = found.manifest["rows"], found.manifest["what"], len(found.mean_E)
    total = found.variance_E.sum() or 1.0
    leading = ", ".join(
        f"{found.variance_E[:n].sum() / total:.1%} in {n}" for n in LEADING if n <= width
    )
    dead = f": {', '.join(map(str, found.dead))}" if len(found.dead) else ""
    lines = [
        f"{rows:,} {what} of {width} dimensions, model {found.manifest['model_version']}",
        *(f"  {name}: {n:,} {what} ({n / rows:.1%})" for name, n in found.services.items()),
        f"norms {found.norms[0]:.6f} to {found.norms[1]:.6f}",
        f"mean of a dimension {found.mean_E.min():+.4f} to {found.mean_E.max():+.4f},"
        f" length of the mean vector {np.linalg.norm(found.mean_E):.4f}",
        f"deviation of a dimension {found.deviation_E.min():.4f} to {found.deviation_E.max():.4f}"
        f" ({1 / np.sqrt(width):.4f} where spread evenly)",
        f"effective rank {found.effective_rank:.1f} of {width}; share of variance {leading}",
        f"dead dimensions {len(found.dead)}{dead}",
    ]
    if len(found.cosines):
        lines += [f"cosine of {len(found.cosines):,} pairs of a fixed sample"]
        lines += [f"  {quantile_text(found.cosines)}", *_histogram(found.cosines)]
    return lines


def quantile_text(values: np.ndarray) -> str:
    """Mean and quantiles in a line."""
    found = zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    return f"mean {values.mean():+.4f}; " + ", ".join(f"{q:.0%} {v:+.4f}" for q, v in found)


def _count(table: pa.Table, services: dict[str, int]) -> None:
    for service in services:
        if "service" in table.column_names:  # of items
            services[service] += pc.sum(pc.equal(table.column("service"), service)).as_py() or 0
        else:
            column = table.column(f"embedding_{service}")
            services[service] += len(column) - column.null_count


def _pair_cosines(z_NE: np.ndarray) -> np.ndarray:
    z_NE = z_NE / np.linalg.norm(z_NE, axis=1, keepdims=True)
    return np.clip((z_NE @ z_NE.T)[np.triu_indices(len(z_NE), 1)], -1.0, 1.0)


def _histogram(cosines: np.ndarray) -> list[str]:
    first = np.floor(cosines.min() * BINS) / BINS
    last = max(np.ceil(cosines.max() * BINS) / BINS, first + 1 / BINS)
    counts, edges = np.histogram(cosines, BINS, (first, last))
    bars = ["#" * round(BAR * int(count) / int(counts.max())) for count in counts]
    rows = zip(edges, counts / len(cosines), bars, strict=False)  # there is one edge more
    return [f"  {edge:+.4f} {share:6.1%} {bar}".rstrip() for edge, share, bar in rows]
