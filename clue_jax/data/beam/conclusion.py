"""The last step of the pipeline: the tokenizer, and what the manifest will say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from clue_jax import files
from clue_jax.data.accounts import Lengths, Tallies
from clue_jax.data.beam.plan import Output, Plan
from clue_jax.data.beam.reading import Known
from clue_jax.data.beam.writing import Layout, entries_of
from clue_jax.data.log_reader import SPLITS
from clue_jax.data.prepare import contents_of
from clue_jax.data.tokenizer import Tokenizer
from clue_jax.data.writing import describe_splits

CONTENTS_FILE = "contents.json"


def conclude(
    entries: Sequence[dict[str, Any]],
    users: Layout,
    items: Layout,
    known: Known,
    tallies: Tallies,
    tokenizer: Tokenizer,
    lengths: tuple[Lengths, int],
    plan: Plan,
) -> Iterator[Output]:
    """Writes tokenizer.json, and all of the manifest that is about the contents."""
    by_split = {split: entries_of(entries, "users", split) for split in SPLITS}
    contents = contents_of(plan.config, known.reading, tallies, tokenizer, lengths) | {
        "splits": describe_splits(users.totals.tolist(), tallies, by_split),
        "items": {"count": int(items.totals[0]), "shards": entries_of(entries, "items", "items")},
        "inputs": known.inputs,
    }
    staged = epath.Path(plan.staged)
    tokenizer.save(staged / "tokenizer.json")
    files.write_json(staged / CONTENTS_FILE, contents)
    yield "written", CONTENTS_FILE
