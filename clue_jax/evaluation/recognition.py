"""Is a user found again by taste, or recognised by what they repeat? A probe of matching.

The same users are matched three times: with their texts as they are; without the texts that they
have in both services; and without every word that they have in both, texts without a word left
included. TF-IDF, which is given the same texts, has nothing left then: what an encoder still finds
it finds by relations between different words, which it must have learned. The steps between the
three say how much was recognition of repeated items, and how much of words.

The users as they are also come in parts: those who share a text, those who share words alone, and
those who share nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clue_jax.config import EvaluateConfig
from clue_jax.console import say
from clue_jax.data.records import Users
from clue_jax.data.source import Dataset
from clue_jax.embeddings.reader import Embeddings
from clue_jax.encoder import UserEncoder
from clue_jax.errors import DataError
from clue_jax.evaluation import baselines
from clue_jax.evaluation.bootstrap import bootstrap
from clue_jax.evaluation.exported import users_of
from clue_jax.evaluation.groups import Partition
from clue_jax.evaluation.maker import encoder_that_made
from clue_jax.evaluation.matching import METRICS, Pair
from clue_jax.evaluation.results import MODEL, Result, exact_rows, rows_of

Texts = tuple[list[str], list[str]]  # of one user, in the first service and in the second
FORMS = ("as they are", "without shared texts", "without shared words")
PARTS = ("who share a text", "who share words alone", "who share nothing")


def recognition_results(
    config: EvaluateConfig, export: Embeddings, dataset: Dataset, pairs: list[Pair]
) -> list[Result]:
    """Results of every pair of services in all three forms, and of the parts of the users.

    Raises:
        CheckpointError: no run there, or not the export's checkpoint.
        DataError: the encoder is another one than the export's; or fewer than 2 users are left.
    """
    encoder = encoder_that_made(export, config.matching.probe, "matching.probe")
    users = users_of(export, dataset, config.matching.splits)
    return [
        result
        for pair in pairs
        for result in _of_pair(config, export, dataset, users.take(pair.rows), pair, encoder)
    ]


def without_shared_texts(texts: Texts) -> Texts:
    """A user's texts but those in both services, whatever their letters' case."""
    first, second = ({text.lower() for text in side} for side in texts)
    return _keep(texts, lambda text: "" if text.lower() in first & second else text)


def without_shared_words(texts: Texts) -> Texts:
    """A user's texts with no word that occurs in both services; those without a word are gone."""
    shared = words_in(texts[0]) & words_in(texts[1])

    def rest(text: str) -> str:
        left = baselines.WORD.sub(lambda word: "" if word[0].lower() in shared else word[0], text)
        return left if baselines.WORD.search(left) else ""

    return _keep(texts, rest)


def words_in(texts: list[str]) -> set[str]:
    """The words of some texts, as TF-IDF has them."""
    return {word.lower() for text in texts for word in baselines.WORD.findall(text)}


def part_of(texts: Texts) -> int:
    """Which of `PARTS` a user is in."""
    if {text.lower() for text in texts[0]} & {text.lower() for text in texts[1]}:
        return 0
    return 1 if words_in(texts[0]) & words_in(texts[1]) else 2


def _keep(texts: Texts, change: Callable[[str], str]) -> Texts:
    first, second = ([left for text in side if (left := change(text))] for side in texts)
    return first, second


def _of_pair(
    config: EvaluateConfig,
    export: Embeddings,
    dataset: Dataset,
    users: Users,
    pair: Pair,
    encoder: UserEncoder,
) -> list[Result]:
    texts = _texts(users, dataset, (pair.first, pair.second))
    stripped = [without_shared_words(both) for both in texts]
    left = [n for n, both in enumerate(stripped) if both[0] and both[1]]
    if len(left) < 2:
        raise DataError(
            f"{pair.first} and {pair.second}: {len(left)} of {len(texts):,} users have words left"
            " in both services without those they share; the probe needs 2"
        )
    say(f"probe: {len(left):,} of {len(texts):,} users have words left without shared ones")
    prefix = f"matching/{'+'.join(config.matching.splits)}"
    results = []
    forms = (
        [texts[n] for n in left],
        [_or_all(without_shared_texts(texts[n]), stripped[n]) for n in left],
        [stripped[n] for n in left],
    )
    for form, of_form in zip(FORMS, forms, strict=True):
        for task, scores in _match(pair, of_form, encoder).items():
            name = f"{prefix}/{task}, {form}"
            results += _rows(config, export, name, scores, np.arange(len(left)))
            if form == FORMS[0]:
                part = np.array([part_of(texts[n]) for n in left])
                parts = Partition("", {p: part == number for number, p in enumerate(PARTS)})
                shown, _ = parts.shown(np.ones(len(left), bool), config.min_audience)
                for described in shown:
                    rows = np.flatnonzero(parts.members[described])
                    name = f"{prefix}/{task}, users {described}"
                    results += _rows(config, export, name, scores, rows)
    return results


def _or_all(texts: Texts, otherwise: Texts) -> Texts:
    # All of a side's texts may be shared ones, of which nevertheless some words are not.
    return (texts[0] or otherwise[0], texts[1] or otherwise[1])


def _match(pair: Pair, texts: list[Texts], encoder: UserEncoder) -> dict[str, dict]:
    """Scores [n, X] of each model by task; all users rank all."""
    services = (pair.first, pair.second)
    z = encoder.encode_services([dict(zip(services, both, strict=True)) for both in texts])
    joined = [" ".join(both[side]) for side in (0, 1) for both in texts]
    counts = baselines.words_of(joined)
    words = baselines.tfidf([counts[: len(texts)], counts[len(texts) :]])
    here = Pair(pair.first, pair.second, np.arange(len(texts)), [])
    of_model = {
        MODEL: here.match(lambda first, second, rows: (z[first], z[second])),
        "tfidf": here.match(lambda first, second, rows: (words[0], words[1])),
    }
    return {task: {m: scores[task] for m, scores in of_model.items()} for task in here.tasks()}


def _rows(
    config: EvaluateConfig,
    export: Embeddings,
    name: str,
    scores: dict[str, np.ndarray],
    rows: np.ndarray,
) -> list[Result]:
    samples = {
        model: bootstrap(scores_nX[rows], config.matching.bootstrap, config.seed)
        for model, scores_nX in scores.items()
    }
    samples[f"{MODEL} - tfidf"] = samples[MODEL].minus(samples["tfidf"])
    trained = int(export.manifest["train_seed"])
    results = []
    for model, sample in samples.items():
        seed = trained if model.startswith(MODEL) else config.seed
        results += rows_of(name, model, list(METRICS), sample, len(rows), seed)
    chance = baselines.chance(len(scores[MODEL]))
    return results + exact_rows(name, "chance", chance, len(rows), config.seed)


def _texts(users: Users, dataset: Dataset, services: tuple[str, str]) -> list[Texts]:
    """Texts of each user in both services, oldest first."""
    items = dataset.items()
    columns = [users.services.index(service) for service in services]
    found = []
    for n in range(len(users)):
        sides = []
        for column in columns:
            row = n * len(users.services) + column
            span = slice(users.behaviour_offsets[row], users.behaviour_offsets[row + 1])
            own = users.item_offsets[n] + users.behaviour_items[span]
            sides.append(items.texts[items.lookup(users.item_ids[own])].tolist())
        found.append((sides[0], sides[1]))
    return found
