"""What an encoder has to beat: TF-IDF on the users' words, its own random start, and chance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from clue_jax.config import PretrainConfig, from_json
from clue_jax.data.items import ItemTable
from clue_jax.data.records import Users

WORD = re.compile(r"(?u)\b\w\w+\b")


def word_counts(users: Users, items: ItemTable) -> list[sp.csr_array]:
    """How often each word occurs in each user's texts, by service.

    Words are those of a user's texts joined by spaces, in lower case, of two letters or digits and
    more; a behaviour that occurs twice counts twice.

    Args:
        users: N users.
        items: of their dataset.

    Returns:
        For each service a matrix [N, W] over the same W words.

    Raises:
        DataError: an item that the table does not have.
    """
    used_J, item_M = np.unique(users.item_ids[users.item_rows()], return_inverse=True)
    words_JW = words_of(items.texts[items.lookup(used_J)].tolist())
    return [
        _behaviours_of(users, service, item_M, len(used_J)) @ words_JW
        for service in range(len(users.services))
    ]


@dataclass(frozen=True)
class Tfidf:
    """Weights of words; see `fit_tfidf`."""

    kept: np.ndarray  # [W'] columns of the words that are left
    idf: np.ndarray  # [W']

    def __call__(self, counts: sp.csr_array) -> sp.csr_array:
        """Unit vectors of weighted words [N, W'], float64, of counts [N, W].

        A document without a word left is all zeros, so its scores all tie.
        """
        return _weighted(counts[:, self.kept], self.idf)


def fit_tfidf(counts: Sequence[sp.csr_array]) -> Tfidf:
    """Weights from all given documents together.

    As scikit-learn's `TfidfVectorizer(sublinear_tf=True, min_df=2)`: the weight is
    `(1 + ln count) * (1 + ln((1 + D) / (1 + documents with the word)))` for D documents, words in
    fewer than 2 documents are left out, rows have length one.

    Args:
        counts: matrices [N, W] of word counts.
    """
    documents = sum(matrix.shape[0] for matrix in counts)
    frequency_W = np.sum([np.bincount(m.indices, minlength=m.shape[1]) for m in counts], axis=0)
    kept = np.flatnonzero(frequency_W >= 2)
    return Tfidf(kept, 1.0 + np.log((1.0 + documents) / (1.0 + frequency_W[kept])))


def tfidf(counts: Sequence[sp.csr_array]) -> list[sp.csr_array]:
    """Each matrix of word counts weighted by a fit on all of them; see `fit_tfidf`."""
    weigh = fit_tfidf(counts)
    return [weigh(matrix) for matrix in counts]


def random_encoder(
    config: dict[str, Any], users: Users, vocab_size: int, seed: int
) -> dict[str, np.ndarray]:
    """Embeddings from freshly drawn parameters: what the architecture knows before training.

    Args:
        config: JSON of the run's PretrainConfig.
        users: N users.
        vocab_size: of their tokenizer.
        seed: of the parameters.

    Returns:
        Unit vectors [N, E] by service.
    """
    # Only this baseline needs jax.
    import jax

    from clue_jax import inference
    from clue_jax.model import clue

    pretrain = from_json(PretrainConfig, config, "the export's config")
    params = clue.init(pretrain.encoder, vocab_size, jax.random.key(seed))
    z_NSE, _ = inference.embed_users(params, pretrain, users)
    return {service: z_NSE[:, s] for s, service in enumerate(users.services)}


def chance(candidates: int) -> dict[str, float]:
    """Expected metrics when the order is random: recall k / n, and MRR H_n / n."""
    harmonic = float((1.0 / np.arange(1, candidates + 1)).sum())
    return {
        "recall_at_1": 1 / candidates,
        "recall_at_10": min(1.0, 10 / candidates),
        "mrr": harmonic / candidates,
    }


def words_of(texts: list[str]) -> sp.csr_array:
    """How often each word occurs in each text, [J, W]; see `word_counts` for what a word is."""
    vocabulary: dict[str, int] = {}
    columns: list[int] = []
    lengths = []
    for text in texts:
        words = WORD.findall(text.lower())
        columns += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        lengths.append(len(words))
    rows = np.repeat(np.arange(len(texts)), lengths)
    return _count(rows, np.array(columns, np.int64), (len(texts), len(vocabulary)))


def _behaviours_of(users: Users, service: int, item_M: np.ndarray, items: int) -> sp.csr_array:
    """How often each user has each item in one service, [N, J]."""
    rows, behaviours = users.in_service(service)
    return _count(rows, item_M[behaviours], (len(users), items))


def _count(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    ones = np.ones(len(rows))
    matrix = sp.csr_array((ones, (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def _weighted(counts: sp.csr_array, idf: np.ndarray) -> sp.csr_array:
    weights = counts.copy()
    weights.data = (1.0 + np.log(weights.data)) * idf[weights.indices]
    lengths = np.sqrt(weights.multiply(weights).sum(axis=1))
    # Rows without a word have length zero and stay as they are.
    weights.data /= np.repeat(
        np.maximum(lengths, np.finfo(np.float64).tiny), np.diff(weights.indptr)
    )
    return weights
