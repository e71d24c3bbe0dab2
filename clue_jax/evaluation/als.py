"""Matrix factorisation of implicit feedback by alternating least squares, as the literature has it.

Hu, Koren and Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets": with r how
often a user has an item, each entry of a matrix of zeros and ones counts 1 + alpha r in a squared
error. By the package `implicit`.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from clue_jax.errors import ConfigError


def require_als() -> None:
    """Raises ConfigError where `implicit` is not installed."""
    try:
        import implicit.cpu.als  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "config.downstream.features: als needs implicit: pip install '.[probes]'"
        ) from error


def als_factors(
    counts_AJ: sp.csr_array, rank: int, alpha: float, penalty: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of users [A, R] and of items [J, R], float32.

    Args:
        counts_AJ: how often each user has each item.
        rank: R.
        alpha: weight of one occurrence beside what is unknown.
        penalty: of squared factors.
        seed: of the factors at the start.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # comes with implicit

    weights = sp.csr_matrix(counts_AJ, dtype=np.float32)  # it knows matrices alone
    weights.data = 1.0 + alpha * weights.data
    with threadpool_limits(1, user_api="blas"):  # it has threads of its own
        model = AlternatingLeastSquares(rank, penalty, alpha=1.0, random_state=seed)
        model.fit(weights, show_progress=False)
    return model.user_factors, model.item_factors
